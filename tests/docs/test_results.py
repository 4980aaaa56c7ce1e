"""The results' tables are those of the figures beside the weights."""

import importlib.util

import pytest

from drawjax import pretrained
from drawjax.pretrained.card import figure
from tests.docs.pages import ROOT

spec = importlib.util.spec_from_file_location("results_table", ROOT / "docs" / "results_table.py")
results_table = importlib.util.module_from_spec(spec)
spec.loader.exec_module(results_table)


@pytest.mark.parametrize("page", ["docs/results.md", "README.md", "docs/models.md"])
def test_the_table_is_generated(page):
    assert (ROOT / page).read_text() == results_table.pages()[ROOT / page], (
        "run python docs/results_table.py"
    )


def test_every_model_that_ships_has_a_row():
    assert {row.model for row in results_table.ROWS} - {None} == set(pretrained.available())


@pytest.mark.parametrize("name", pretrained.available())
def test_the_list_of_models_says_the_number_of_the_table(name):
    number = figure(pretrained.describe(name)).removesuffix(" wrong")
    rows = (ROOT / "docs/results.md").read_text().splitlines()
    assert any(f"| {number} |" in row and f"| `{name}` |" in row for row in rows)
