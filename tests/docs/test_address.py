"""The public address, written in before a release."""

import importlib.util
import json
import re
import tomllib

import pytest
import yaml

from tests.docs.pages import ROOT

_SPEC = importlib.util.spec_from_file_location("address", ROOT / "docs" / "address.py")
address = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(address)

FIRST, SECOND = "https://github.com/somebody/drawjax", "https://example.org/else/drawjax"


@pytest.mark.parametrize("name", address.FILES)
def test_another_address_takes_the_place_of_the_first(name):
    text, change = (ROOT / name).read_text(), address.FILES[name]
    first = change(text, FIRST)
    assert FIRST in first
    assert change(first, FIRST) == first
    assert change(first, SECOND) == change(text, SECOND)
    assert FIRST not in change(first, SECOND)


def test_no_link_of_the_readme_stays_in_the_repository():
    text = (ROOT / "README.md").read_text()
    links = re.findall(r"\]\(([^)\s]+)\)", address.readme(text, FIRST))
    assert len(links) > 15
    assert all(link.startswith(("https://", "#")) for link in links)
    assert f"{FIRST}/raw/main/docs/images/mnist.gif" in links
    assert f"{FIRST}/blob/main/docs/results.md" in links
    for link in links:
        if link.startswith(FIRST):
            path = re.sub(r"^(raw|blob)/main/", "", link.removeprefix(f"{FIRST}/"))
            assert (ROOT / path.partition("#")[0]).exists(), link


def test_the_other_files_stay_what_they_are():
    text = (ROOT / "pyproject.toml").read_text()
    before, after = tomllib.loads(text), tomllib.loads(address.project(text, FIRST))
    assert after["project"].pop("urls")["Issues"] == f"{FIRST}/issues"
    before["project"].pop("urls", None)
    assert after == before
    text = (ROOT / "CITATION.cff").read_text()
    before, after = yaml.safe_load(text), yaml.safe_load(address.citation(text, FIRST))
    assert after.pop("repository-code") == FIRST
    before.pop("repository-code", None)
    assert after == before


@pytest.mark.parametrize("path", [name for name in address.FILES if name.endswith(".ipynb")])
def test_a_notebook_is_opened_and_installed_from_the_address(path):
    text = (ROOT / path).read_text()
    before, after = json.loads(text), json.loads(address.FILES[path](text, FIRST))
    install = "".join(after["cells"][1]["source"])
    assert f'%pip install --quiet "drawjax[train] @ git+{FIRST}"' in install
    links = re.findall(r"\]\(([^)]+)\)", "".join(after["cells"][0]["source"]))
    assert links == [
        f"https://colab.research.google.com/github/somebody/drawjax/blob/main/{path}",
        f"https://kaggle.com/kernels/welcome?src={FIRST}/blob/main/{path}",
        f"{FIRST}/tree/main/docs/guides",
    ]
    assert after["cells"][2:] == before["cells"][2:]
    assert after["metadata"] == before["metadata"]


def test_every_notebook_that_installs_gets_the_address():
    notebooks = (ROOT / "docs").rglob("*.ipynb")
    installs = {path for path in notebooks if "%pip install" in path.read_text()}
    assert {ROOT / name for name in address.FILES if name.endswith(".ipynb")} == installs


def test_what_is_no_address_is_refused():
    with pytest.raises(SystemExit, match="no address like"):
        address.main("github.com/somebody")
