"""What long work does and how long it will take: a bar on a terminal, a few lines in a log.

Both appear where INFO is logged and nowhere else: in commands, on the first of several processes.
"""

import contextlib
import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import tqdm

__all__ = ["announced", "logs_above_bars", "track"]

_log = logging.getLogger(__name__)

_FIRST_LINE = 15.0  # seconds

Item = TypeVar("Item")


def track(
    items: Iterable[Item],
    what: str,
    total: int,
    *,
    unit: str = "images",
    each: int | Callable[[Item], int] = 1,
) -> Iterator[Item]:
    """Yields items, and shows how far the work on them is.

    On a terminal that is a bar with the time left, gone when the work is done. Elsewhere it is a
    line after 15 seconds, then after twice as long each time: none for short work, a dozen for
    work of a day.

    Args:
      items: what to work on.
      what: the work, e.g. `evaluating`.
      total: how many units there are.
      unit: of the work, in the plural.
      each: units an item, one number or by item; `total` is never exceeded.
    """
    if not _log.isEnabledFor(logging.INFO):
        yield from items
        return
    on_terminal = sys.stderr.isatty()
    large = total >= 1_000_000
    bar = tqdm.tqdm(
        desc=what, total=total, unit=f" {unit}", unit_scale=large, leave=False,
        dynamic_ncols=True, disable=not on_terminal, mininterval=0.2,
    )  # fmt: skip
    began, next_line, done = time.monotonic(), _FIRST_LINE, 0
    try:
        for item in items:
            yield item
            step = min(each(item) if callable(each) else each, total - done)
            done += step
            bar.update(step)
            seconds = time.monotonic() - began
            if not on_terminal and seconds >= next_line and done < total:
                left = tqdm.tqdm.format_interval(seconds * (total - done) / max(done, 1))
                shown = [tqdm.tqdm.format_sizeof(n) if large else f"{n:,}" for n in (done, total)]
                _log.info("%s: %s of %s %s, %s left", what, *shown, unit, left)
                next_line = 2 * seconds
    finally:
        bar.close()


@contextlib.contextmanager
def announced(what: str) -> Iterator[None]:
    """Says what begins, and in the end how long it took; for work of unknown length."""
    _log.info("%s", what)
    began = time.monotonic()
    yield
    _log.info("%s: done in %.1f s", what, time.monotonic() - began)


def logs_above_bars() -> contextlib.AbstractContextManager[None]:
    """While in it, lines of the log do not tear the bars on a terminal."""
    if not sys.stderr.isatty():
        return contextlib.nullcontext()
    from tqdm.contrib.logging import logging_redirect_tqdm  # warns in a notebook without widgets

    return logging_redirect_tqdm()
