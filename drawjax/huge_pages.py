"""Memory in huge pages, with which a training step on a CPU is 1.2 to 1.3 times as fast.

XLA allocates the memory of every step anew, hundreds of megabytes, and Linux clears it 4 KB at a
time as it is touched. glibc asks for pages of 2 MB if an environment variable says so when a
process starts; so a command that finds it missing starts again with it, before it has loaded JAX.
"""

import os
import pathlib
import sys

__all__ = ["use"]

_VARIABLE, _TUNABLE = "GLIBC_TUNABLES", "glibc.malloc.hugetlb"
_SETTING = pathlib.Path("/sys/kernel/mm/transparent_hugepage/enabled")


def use() -> None:
    """Starts the process again with huge pages, where the system gives them to those who ask.

    Does nothing where the variable is set already (also `GLIBC_TUNABLES=glibc.malloc.hugetlb=0`),
    on other systems than Linux, and where the system gives such pages to all or to nobody.
    """
    others = os.environ.get(_VARIABLE)
    if _TUNABLE in (others or "") or not sys.orig_argv[1:]:
        return
    try:
        if "[madvise]" not in _SETTING.read_text():
            return
    except OSError:
        return
    os.environ[_VARIABLE] = ":".join(filter(None, [others, f"{_TUNABLE}=1"]))
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
