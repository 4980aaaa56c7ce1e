"""The command `drawjax`, and `python -m drawjax`: all commands under one name."""

import os
import pathlib
import sys
from typing import NoReturn

_VARIABLE, _TUNABLE = "GLIBC_TUNABLES", "glibc.malloc.hugetlb"
_SETTING = pathlib.Path("/sys/kernel/mm/transparent_hugepage/enabled")


def use_huge_pages() -> None:
    """Starts the process again with memory in huge pages, where the system gives them on request.

    XLA allocates the memory of every step anew, hundreds of megabytes, and Linux clears it 4 KB at
    a time as it is touched; with pages of 2 MB a training step on a CPU is 1.25 to 1.3 times
    as fast. glibc asks for them if an environment variable says so when a process starts.

    Does nothing where the variable is set already (also `GLIBC_TUNABLES=glibc.malloc.hugetlb=0`),
    on other systems than Linux, where the system gives such pages to all or to nobody, and where
    the program comes from standard input, which would be at its end.
    """
    others = os.environ.get(_VARIABLE)
    arguments = sys.orig_argv[1:]
    # An interpreter that was given neither a module, a command nor a script reads the program;
    # so does one that was given /dev/stdin, or /dev/fd/63 for `<(...)` of a shell.
    piped = sys.argv[0] in ("", "-") or sys.argv[0].startswith(("/dev/", "/proc/"))
    if _TUNABLE in (others or "") or piped or not arguments:
        return
    try:
        if "[madvise]" not in _SETTING.read_text():
            return
    except OSError:
        return
    os.environ[_VARIABLE] = ":".join(filter(None, [others, f"{_TUNABLE}=1"]))
    os.execv(sys.executable, [sys.executable, *arguments])


def main() -> NoReturn:
    """Runs the command that the process's arguments name; ends the process."""
    use_huge_pages()
    from drawjax.cli import drawjax  # loads tyro, which a process that starts again need not

    drawjax()


if __name__ == "__main__":
    main()
