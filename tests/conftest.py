"""What every test shares: CPU, quiet logs, and x64 on request."""

import os
import pathlib

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import jax
import pytest
from jaxtyping import install_import_hook

# Annotated shapes are checked at run time here and nowhere else. Not those of drawjax.attention,
# which checks its arguments itself and is tested for what it says then.
install_import_hook("drawjax.objective", "beartype.beartype")


@pytest.fixture
def x64():
    """Runs the test in float64."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def real_data_dir() -> pathlib.Path:
    """The folder of prepared real sets; the test is skipped where there is none."""
    folder = os.environ.get("TFDS_DATA_DIR")
    if not folder or not pathlib.Path(folder).is_dir():
        pytest.skip("TFDS_DATA_DIR names no folder of prepared sets")
    return pathlib.Path(folder)
