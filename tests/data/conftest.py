import pathlib

import pytest


@pytest.fixture
def svhn_raw_dir(real_data_dir) -> pathlib.Path:
    """A few hundred real images of SVHN in the official archives; skipped where there are none."""
    folder = real_data_dir.resolve().parent / "svhn_raw"
    if not folder.is_dir():
        pytest.skip("there is no folder svhn_raw beside TFDS_DATA_DIR")
    return folder
