"""Signals that ask a run to stop: noted, so that it saves first."""

import logging
import os
import signal
import types
from collections.abc import Callable
from typing import Any, TypeVar

import jax
from jax.experimental import multihost_utils

__all__ = ["Interrupts"]

_log = logging.getLogger(__name__)

Result = TypeVar("Result")

_ASKED = (signal.SIGTERM, signal.SIGINT)
# A closed terminal, and SLURM's habit; several may come, from the shell and the kernel both.
_TOLD = (signal.SIGHUP, signal.SIGUSR1)


class _Now(BaseException):
    """Leaves work that may be dropped at any point."""


class Interrupts:
    """Notes SIGTERM, SIGINT, SIGHUP and SIGUSR1 instead of dying of them.

    A second SIGTERM or SIGINT is not held back. A signal that the process was started to ignore,
    such as SIGHUP under nohup, stays ignored. With several processes a signal to any of them stops
    all after the same step.
    """

    def __init__(self):
        self.signum = signal.SIGTERM
        self._noted = self._asked = False
        self._several = jax.process_count() > 1
        self._agreed = False
        self._leave_at_once = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Interrupts":
        # JAX's preemption service, which lets the processes agree on a step, takes SIGTERM itself.
        for signum in _ASKED + _TOLD:
            own = self._several and signum == signal.SIGTERM
            if own or signal.getsignal(signum) == signal.SIG_IGN:
                continue
            try:
                self._before[signum] = signal.signal(signum, self._note)
            except ValueError:  # not in the main thread, where signals cannot be handled
                break
        return self

    def __exit__(self, *exception: object) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)

    def stop_after(self, step: int) -> bool:
        """Whether to save and stop after this step; asked after every step, on all processes."""
        if self._several:
            self._agreed = multihost_utils.reached_preemption_sync_point(step)
        return self.stopping

    @property
    def stopping(self) -> bool:
        """Whether the run is to stop after the step that was last asked about."""
        return self._agreed if self._several else self._noted

    def unless_stopped(self, work: Callable[[], Result]) -> Result | None:
        """Does work that may be dropped: a signal ends it where it stands, and None comes back.

        With several processes it does not, since the others would wait for this one.
        """
        if self._several:
            return work()
        if self._noted:
            return None
        try:
            try:
                self._leave_at_once = True
                return work()
            finally:
                self._leave_at_once = False
        except _Now:
            return None

    def _note(self, signum: int, frame: types.FrameType | None) -> None:
        del frame
        if self._asked and signum in _ASKED:  # whoever asks twice does not want to wait
            for caught, handler in self._before.items():
                signal.signal(caught, handler)
            os.kill(os.getpid(), signum)
            return
        self._asked |= signum in _ASKED
        if self._noted:
            return
        self._noted, self.signum = True, signal.Signals(signum)
        if self._several:
            os.kill(os.getpid(), signal.SIGTERM)
        _log.warning("%s: saving, then stopping", self.signum.name)
        if self._leave_at_once:
            raise _Now
