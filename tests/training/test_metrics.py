import json
import logging

import pytest

from drawjax.files import read_metrics
from drawjax.training import RunError
from drawjax.training.metrics import MetricWriter, Progress


def test_entries_are_read_back(tmp_path):
    writer = MetricWriter(tmp_path, 0)
    writer.write(5, "train", {"loss": 2.0})
    writer.write(5, "validation", {"loss": 3.0, "images": 10})
    assert writer.has(5, "train")
    assert not writer.has(10, "train")
    writer.close()
    assert read_metrics(tmp_path) == [
        {"step": 5, "split": "train", "loss": 2.0},
        {"step": 5, "split": "validation", "loss": 3.0, "images": 10},
    ]


def test_events_are_written_for_tensorboard(tmp_path):
    writer = MetricWriter(tmp_path, 0)
    writer.write(5, "train", {"loss": 2.0})
    writer.close()
    (events,) = (tmp_path / "tensorboard").iterdir()
    assert b"train/loss" in events.read_bytes()


def test_going_on_takes_out_what_came_after(tmp_path):
    writer = MetricWriter(tmp_path, 0)
    for step in (5, 10, 15):
        writer.write(step, "train", {"loss": float(step)})
    writer.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 20, "spl')  # torn by a kill
    writer = MetricWriter(tmp_path, 10)
    assert writer.has(10, "train")
    assert not writer.has(15, "train")
    writer.write(15, "train", {"loss": 0.5})
    writer.close()
    assert [(e["step"], e["loss"]) for e in read_metrics(tmp_path)] == [
        (5, 5.0), (10, 10.0), (15, 0.5),
    ]  # fmt: skip


def test_a_torn_line_takes_no_others_with_it(tmp_path):
    lines = [{"step": step, "split": "train", "loss": 1.0} for step in (1, 2)]
    torn = ['{"step": 1, "sp', "null", "[1]", '{"a": 1}', '{"step": "one", "split": "train"}']
    text = "\n".join([json.dumps(lines[0]), *torn, json.dumps(lines[1])])
    (tmp_path / "metrics.jsonl").write_bytes(text.encode() + b"\n\xe9\n")
    assert read_metrics(tmp_path) == lines


def test_no_metrics_are_no_entries(tmp_path):
    assert read_metrics(tmp_path) == []


def test_a_full_disk_is_one_clear_error(tmp_path):
    writer = MetricWriter(tmp_path, 0)
    (tmp_path / "metrics.jsonl").unlink()
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    with pytest.raises(RunError, match=r"metrics.jsonl cannot be written: No space left"):
        writer.write(1, "train", {"loss": 1.0})
    writer.close()  # says nothing more


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "tensorboard").write_text("in the way")
    with pytest.raises(RunError, match=r"tensorboard cannot be written: File exists"):
        MetricWriter(tmp_path, 0)


def test_progress_counts_images_a_second_and_the_time_left(monkeypatch, caplog):
    clock = [100.0]
    monkeypatch.setattr("drawjax.training.metrics.time.monotonic", lambda: clock[0])
    progress = Progress(total=1000, done=100, batch_size=10)
    clock[0] = 102.0
    with caplog.at_level(logging.INFO):
        assert progress.show(120, {"kl": 20.0, "loss": 95.25}) == pytest.approx(100.0)
    assert caplog.messages == ["step 120 of 1000: loss 95.25, kl 20, 100 images/s, 01:28 left"]
    clock[0] = 103.0
    with progress.resting():
        clock[0] = 110.0
    clock[0] = 111.0
    assert progress.show(140, {"loss": 95.0}) == pytest.approx(100.0)
    progress.close()


def test_a_terminal_gets_a_bar(monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    progress = Progress(total=10, done=0, batch_size=4)
    progress.advance()
    progress.show(1, {"loss": 95.25})
    progress.close()
    assert "loss 95.25" in capsys.readouterr().err
