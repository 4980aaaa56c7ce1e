import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from drawjax.training.checkpoints import steps
from drawjax.training.hosts import Interrupts


@pytest.fixture(autouse=True)
def _as_in_a_terminal():
    """No signal ignored, as jobs in the background inherit it, and those under nohup."""
    usual = {
        signal.SIGINT: signal.default_int_handler,
        signal.SIGHUP: signal.SIG_DFL,
        signal.SIGUSR1: signal.SIG_DFL,
    }
    before = {signum: signal.signal(signum, handler) for signum, handler in usual.items()}
    yield
    for signum, handler in before.items():
        signal.signal(signum, handler)


def _send(signum=signal.SIGTERM):
    os.kill(os.getpid(), signum)


_ALL = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)


@pytest.mark.parametrize("signum", _ALL)
def test_a_signal_is_noted_and_asked_for(signum):
    with Interrupts() as interrupts:
        assert not interrupts.stop_after(1)
        _send(signum)
        assert interrupts.stop_after(2)
        assert interrupts.stopping
        assert interrupts.signum == signum


def test_handlers_are_put_back():
    before = [signal.getsignal(signum) for signum in _ALL]
    with Interrupts():
        assert all(signal.getsignal(s) != old for s, old in zip(_ALL, before, strict=True))
    assert [signal.getsignal(signum) for signum in _ALL] == before


@pytest.mark.parametrize("signum", _ALL)
def test_what_the_process_was_started_to_ignore_stays_ignored(signum):
    before = signal.signal(signum, signal.SIG_IGN)  # as nohup does with SIGHUP
    try:
        with Interrupts() as interrupts:
            _send(signum)
            assert not interrupts.stop_after(1)
        assert signal.getsignal(signum) == signal.SIG_IGN
    finally:
        signal.signal(signum, before)


def test_a_closed_terminal_may_say_so_twice():
    with Interrupts() as interrupts:
        for signum in (signal.SIGHUP, signal.SIGHUP, signal.SIGUSR1, signal.SIGTERM):
            _send(signum)
        assert interrupts.stopping
        assert interrupts.signum == signal.SIGHUP


def test_a_second_signal_is_not_held_back():
    with pytest.raises(KeyboardInterrupt), Interrupts():
        _send(signal.SIGTERM)
        _send(signal.SIGINT)
        signal.pause()


def test_work_is_done_where_no_signal_comes():
    with Interrupts() as interrupts:
        assert interrupts.unless_stopped(lambda: 7) == 7
        assert not interrupts.stopping


def test_work_ends_where_a_signal_finds_it():
    done = []

    def work():
        done.append("begun")
        _send()
        done.append("ended")

    with Interrupts() as interrupts:
        assert interrupts.unless_stopped(work) is None
        assert done == ["begun"]
        assert interrupts.stopping
        assert interrupts.unless_stopped(lambda: done.append("more")) is None
    assert done == ["begun"]


def test_errors_of_work_are_its_own():
    with Interrupts() as interrupts, pytest.raises(ZeroDivisionError):
        interrupts.unless_stopped(lambda: 1 / 0)


def test_a_signal_outside_such_work_raises_nothing():
    with Interrupts() as interrupts:
        interrupts.unless_stopped(lambda: None)
        _send()
        assert interrupts.stopping


def test_with_several_processes_they_agree_on_a_step(monkeypatch):
    agreed = iter([False, True])
    monkeypatch.setattr("drawjax.training.hosts.jax.process_count", lambda: 2)
    monkeypatch.setattr(
        "drawjax.training.hosts.multihost_utils.reached_preemption_sync_point",
        lambda step: next(agreed),
    )
    before = signal.getsignal(signal.SIGTERM)
    with Interrupts() as interrupts:
        assert signal.getsignal(signal.SIGTERM) == before  # JAX's own notices it
        assert interrupts.unless_stopped(lambda: 7) == 7
        assert not interrupts.stop_after(1)
        assert interrupts.stop_after(2)
        assert interrupts.signum == signal.SIGTERM


_IN_A_TERMINAL = (
    "import fcntl, runpy, termios\n"
    "fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
    "runpy.run_module('tests.training.toy', run_name='__main__', alter_sys=True)"
)


@pytest.mark.slow
def test_a_closed_terminal_saves(tmp_path):
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", _IN_A_TERMINAL, "--workdir", str(tmp_path), "--pause", "0.1"],
        cwd=pathlib.Path(__file__).parents[2], stdin=theirs, stdout=theirs, stderr=theirs,
        start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    while not steps(tmp_path / "checkpoints"):
        assert process.poll() is None
        time.sleep(0.01)
    before = steps(tmp_path / "checkpoints")
    os.close(ours)
    assert process.wait(60) == 128 + signal.SIGHUP
    assert steps(tmp_path / "checkpoints") > before
