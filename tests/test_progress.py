import logging
import os
import pty
import subprocess
import sys
import termios

import pytest

from drawjax import progress

# 100 items of which each takes its time, with a line of the log among them.
PROGRAM = """
import logging, time
from drawjax import progress
logging.basicConfig(level=logging.INFO, format="%(message)s")
with progress.logs_above_bars():
    for item in progress.track(range(10), "counting", 95, each=10):
        time.sleep(0.05)
        if item == 5:
            logging.getLogger("drawjax").info("half of it")
"""


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr("drawjax.progress.time.monotonic", lambda: now[0])
    return now


def test_a_log_gets_a_line_after_15_seconds_then_after_twice_as_long(clock, caplog):
    caplog.set_level(logging.INFO, "drawjax")
    for _ in progress.track(range(100), "evaluating", 9_950, each=100):
        clock[0] += 6.0
    assert caplog.messages == [
        "evaluating: 300 of 9,950 images, 09:39 left",
        "evaluating: 600 of 9,950 images, 09:21 left",
        "evaluating: 1,200 of 9,950 images, 08:45 left",
        "evaluating: 2,400 of 9,950 images, 07:33 left",
        "evaluating: 4,800 of 9,950 images, 05:09 left",
        "evaluating: 9,600 of 9,950 images, 00:21 left",
    ]


def test_short_work_says_nothing(clock, caplog):
    caplog.set_level(logging.INFO, "drawjax")
    assert list(progress.track(range(5), "evaluating", 5)) == [0, 1, 2, 3, 4]
    assert caplog.messages == []


def test_a_library_call_says_nothing(clock, caplog, monkeypatch, capsys):
    caplog.set_level(logging.WARNING, "drawjax")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    for _ in progress.track(range(5), "evaluating", 5):
        clock[0] += 100
    assert caplog.messages == []
    assert capsys.readouterr().err == ""


def test_work_of_unknown_length_is_announced(clock, caplog):
    caplog.set_level(logging.INFO, "drawjax")
    with progress.announced("compiling"):
        clock[0] += 12.34
    assert caplog.messages == ["compiling", "compiling: done in 12.3 s"]


def test_a_terminal_gets_a_bar_with_the_time_left_and_whole_lines():
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    done = subprocess.Popen([sys.executable, "-c", PROGRAM], stderr=theirs)
    os.close(theirs)
    said = b""
    while True:
        try:
            chunk = os.read(ours, 4096)
        except OSError:  # Linux's way to say that the other end is closed
            break
        if not chunk:
            break
        said += chunk
    os.close(ours)
    assert done.wait(timeout=60) == 0
    text = said.decode()
    assert "counting:" in text
    assert "/95 [" in text
    assert "00:00<00:00" in text
    assert "\rhalf of it\r\n" in text  # a line of its own, at the left edge
    assert text.rstrip(" ").endswith("\r")  # the bar is gone


def test_elsewhere_there_is_no_bar():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60
    )
    assert done.stderr == "half of it\n"
