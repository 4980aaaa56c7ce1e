"""Commands called in the test's own process."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest


def exit_code(main: Callable[[Sequence[str]], Any], arguments: Sequence[str]) -> int:
    """The code that a command ends with."""
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    return stop.value.code


def said_line(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that a command said."""
    (said,) = capsys.readouterr().err.splitlines()
    return said
