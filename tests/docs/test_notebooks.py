"""The notebooks run from top to bottom, here as on Colab and Kaggle.

`glimpse.ipynb` is committed as it came out, for the site; the others without outputs.
"""

import os
import re

import pytest

from tests.docs.pages import ROOT

nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")
nbformat = pytest.importorskip("nbformat")

NOTEBOOKS = sorted((ROOT / "docs").rglob("*.ipynb"))
SHOWN = [path for path in NOTEBOOKS if path.name == "glimpse.ipynb"]
TO_RUN = [path for path in NOTEBOOKS if path not in SHOWN]


def _name(path):
    return path.name


def _code(path):
    return [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]


def _execute(notebook, folder, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("PIP_NO_INDEX", "1")  # what is here is not installed again
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    client = nbclient.NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    )
    client.execute(env=dict(os.environ))


def _printed(cell):  # warnings too
    return "".join(output.get("text", "") for output in cell.get("outputs", ()))


def _pictures(notebook):
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    return sum(not {"image/png", "image/gif"}.isdisjoint(o.get("data", {})) for o in outputs)


@pytest.mark.slow
@pytest.mark.parametrize("path", SHOWN, ids=_name)
def test_a_notebook_runs_and_prints_what_is_committed(path, tmp_path, monkeypatch):
    committed = nbformat.read(path, as_version=4)
    fresh = nbformat.read(path, as_version=4)
    _execute(fresh, tmp_path, monkeypatch)
    for old, new in zip(committed.cells, fresh.cells, strict=True):
        assert _printed(new) == _printed(old), old.source


@pytest.mark.parametrize("path", SHOWN, ids=_name)
def test_a_notebook_is_committed_with_its_outputs(path):
    cells = _code(path)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert any("image/png" in output.get("data", {}) for cell in cells for output in cell.outputs)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "pictures"),
    [("ten_minutes.ipynb", 4), ("photograph.ipynb", 2), ("own_pictures.ipynb", 3)],
)
def test_a_notebook_runs_from_an_empty_folder(name, pictures, tmp_path, monkeypatch):
    """As it stands, but that it trains for two steps."""
    (path,) = (path for path in TO_RUN if path.name == name)
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        cell.source = re.sub(r"^STEPS = [\d_]+$", "STEPS = 2", cell.source, flags=re.M)
    _execute(notebook, tmp_path, monkeypatch)
    assert not _printed(notebook.cells[1])  # the cell that installs
    assert _pictures(notebook) == pictures


@pytest.mark.parametrize("path", TO_RUN, ids=_name)
def test_a_notebook_installs_what_is_missing_and_is_committed_without_outputs(path):
    install, *rest = _code(path)
    assert 'if importlib.util.find_spec("drawjax") is None:' in install.source
    assert '%pip install --quiet "drawjax[train]' in install.source
    assert not any("pip" in cell.source for cell in rest)
    for cell in (install, *rest):
        assert (cell.execution_count, cell.outputs) == (None, [])
    trains = any("train" in cell.source for cell in rest)
    assert trains == any(re.search(r"^STEPS = ", cell.source, re.M) for cell in rest)
