"""docs/paper.md names the function that computes each equation: it must be there and say so."""

import inspect
import pathlib
import re

from tests.docs.pages import ROOT, resolve

_ROW = re.compile(r"^\| (\d+) \| .+? \| `([\w.]+)`.*? \| `([\w/.]+)` \|$", re.M)


def _rows():
    return _ROW.findall((ROOT / "docs" / "paper.md").read_text())


def _equations(source):
    """The numbers that "Eq. 3", "Eq. 13-16" and "Eq. 19-20 and 25-26" in a source stand for."""
    numbers = set()
    for listed in re.findall(r"Eq\. (\d+(?:-\d+)?(?:(?:, | and )\d+(?:-\d+)?)*)", source):
        for span in re.split(r", | and ", listed):
            first, _, last = span.partition("-")
            numbers |= set(range(int(first), int(last or first) + 1))
    return numbers


def test_all_equations_are_there_once():
    assert [int(number) for number, _, _ in _rows()] == list(range(1, 30))


def test_each_is_computed_where_the_page_says():
    for number, name, file in _rows():
        function = inspect.unwrap(resolve(f"drawjax.{name}"))
        where = pathlib.Path(inspect.getsourcefile(function)).relative_to(ROOT / "drawjax")
        assert str(where) == file, f"Eq. {number}: {name} is in {where}"
        assert int(number) in _equations(inspect.getsource(function)), f"Eq. {number}: {name}"


def test_lists_of_equations_are_read():
    assert _equations("Eq. 19-20 and 25-26 (Gregor et al. 2015); Eq. 3, 5") == {
        19,
        20,
        25,
        26,
        3,
        5,
    }
