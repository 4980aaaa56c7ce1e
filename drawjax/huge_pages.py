"""Huge pages for the large arrays of a command on a CPU.

A training step allocates some hundred MB of stacked states anew. In pages of 4 KiB that is 57,000
page faults a step on Table 3's MNIST row, about a fifth of its time on two cores; glibc asks Linux
for pages of 2 MiB instead if a tunable says so, which it reads once, when a process starts.
"""

import os
import platform
import sys

__all__ = ["use_huge_pages"]

_TUNABLES = "GLIBC_TUNABLES"
_TUNABLE = "glibc.malloc.hugetlb"


def use_huge_pages() -> None:
    """Starts a `python -m` command again with the tunable set; to be called before heavy imports.

    Does nothing where the tunable is already set, to whatever value, outside Linux with glibc, and
    when the package is imported in another way than by `python -m`. The process keeps its number.
    """
    tunables = os.environ.get(_TUNABLES, "")
    if (
        _TUNABLE in tunables
        or sys.argv[0] != "-m"  # what it is while `python -m` looks for its module
        or not sys.platform.startswith("linux")
        or platform.libc_ver()[0] != "glibc"
    ):
        return
    tunables = ":".join(filter(None, [tunables, f"{_TUNABLE}=1"]))
    os.execve(sys.executable, sys.orig_argv, os.environ | {_TUNABLES: tunables})
