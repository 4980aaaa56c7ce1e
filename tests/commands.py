"""Commands called in the test's own process."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from drawjax import cli


def exit_code(function: Callable[[Any], Any], default: Any, arguments: Sequence[str]) -> Any:
    """The code that the command of a function of a config ends with."""
    with pytest.raises(SystemExit) as stop:
        cli.command(function, default, arguments, description="What it does.")
    return stop.value.code


def said_line(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that a command said."""
    (said,) = capsys.readouterr().err.splitlines()
    return said
