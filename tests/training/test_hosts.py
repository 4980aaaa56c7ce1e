import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from drawjax.training import RunError, RunWriter, hosts
from tests.training import toy
from tests.training.toy import ToyConfig

ROOT = pathlib.Path(__file__).parents[2]
_ALONE = (
    "SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE", "TPU_WORKER_HOSTNAMES",
    "KUBERNETES_SERVICE_HOST", "JOB_COMPLETION_INDEX",
)  # fmt: skip


@pytest.fixture
def joined(monkeypatch):
    """How `jax.distributed.initialize` was called, in an environment that knows of no others."""
    calls = []
    monkeypatch.setattr(
        hosts.jax.distributed, "initialize", lambda *given, **how: calls.append((given, how))
    )
    monkeypatch.setattr("glob.glob", lambda pattern: [])  # neither GPUs nor TPUs
    for name in (*_ALONE, "OMPI_COMM_WORLD_LOCAL_SIZE", "SLURM_STEP_TASKS_PER_NODE",
                 "CUDA_VISIBLE_DEVICES"):  # fmt: skip
        monkeypatch.delenv(name, raising=False)
    return calls


def test_a_process_started_by_hand_stays_alone(monkeypatch, joined):
    hosts.connect()
    # A batch script, or an element of an array, of a job with several tasks is one process too.
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    monkeypatch.setenv("SLURM_NTASKS", "4")
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "1")
    monkeypatch.setenv("TPU_WORKER_HOSTNAMES", "localhost")
    hosts.connect()
    assert joined == []


@pytest.mark.parametrize(("environment", "gpus"), [
    ({"SLURM_STEP_NUM_TASKS": "2"}, None),
    ({"OMPI_COMM_WORLD_SIZE": "4"}, None),
    ({"TPU_WORKER_HOSTNAMES": "10.0.0.1,10.0.0.2"}, None),
    ({"JAX_COORDINATOR_ADDRESS": "10.0.0.1:1"}, None),
    # A process alone on its host has all GPUs that it sees, others the one of their number.
    ({"SLURM_STEP_TASKS_PER_NODE": "1(x4)", "CUDA_VISIBLE_DEVICES": "0,1,2,3"}, [0, 1, 2, 3]),
    ({"SLURM_STEP_TASKS_PER_NODE": "1", "CUDA_VISIBLE_DEVICES": "2,5"}, [0, 1]),
    ({"OMPI_COMM_WORLD_LOCAL_SIZE": "1", "CUDA_VISIBLE_DEVICES": "0,1"}, [0, 1]),
    ({"SLURM_STEP_TASKS_PER_NODE": "4(x2)", "CUDA_VISIBLE_DEVICES": "0,1,2,3"}, None),
    ({"SLURM_STEP_TASKS_PER_NODE": "4(x2)", "CUDA_VISIBLE_DEVICES": "3"}, [0]),  # bound by SLURM
    ({"SLURM_STEP_TASKS_PER_NODE": "1(x4)"}, None),
])  # fmt: skip
def test_a_scheduler_is_noticed(monkeypatch, joined, environment, gpus):
    if "CUDA_VISIBLE_DEVICES" in environment or "SLURM_STEP_TASKS_PER_NODE" in environment:
        environment = {"SLURM_STEP_NUM_TASKS": "4"} | environment
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    hosts.connect()
    how = {"local_device_ids": gpus, "shutdown_timeout_seconds": 10}
    assert joined == [((None, None, None), how)]


def test_pods_of_one_job_are_one_run_unless_each_has_a_point_of_a_sweep(monkeypatch, joined):
    installed = ["kubernetes"]
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name in installed or None)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    hosts.connect()  # a pod of another kind than an Indexed Job's
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "1")
    hosts.connect(indexed=True)
    assert joined == []
    hosts.connect()
    how = {"local_device_ids": None, "shutdown_timeout_seconds": 10}
    assert joined == [((None, None, None), how)]
    installed.clear()
    hosts.connect()
    assert len(joined) == 1


def test_a_pod_of_tpus_is_joined_and_a_single_one_does_without(monkeypatch, joined, caplog):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name == "libtpu")
    monkeypatch.setattr("glob.glob", lambda pattern: ["/dev/accel0"])
    hosts.connect()
    assert joined == [((), {})]

    def fail():
        raise ValueError("no metadata server")

    monkeypatch.setattr(hosts.jax.distributed, "initialize", fail)
    hosts.connect()
    assert "alone on this TPU: no metadata server" in caplog.text


def test_addresses_by_flag(joined):
    hosts.connect("10.0.0.1:1234", 4, 2)
    # A scheduler's word on the number of processes or devices would contradict.
    how = {"cluster_detection_method": "deactivate", "shutdown_timeout_seconds": 10}
    assert joined == [(("10.0.0.1:1234", 4, 2), how)]
    with pytest.raises(ValueError, match="--coordinator, --processes and --process go together"):
        hosts.connect("10.0.0.1:1234", 4)
    with pytest.raises(ValueError, match=r"which of them, from 0, .* got 10\.0\.0\.1:1234, 4, 4"):
        hosts.connect("10.0.0.1:1234", 4, 4)


@pytest.mark.parametrize("address", ["localhost", "localhost:abc", ":1", "here:", "here:70000"])
def test_what_is_no_address_is_one_line(joined, address):
    with pytest.raises(ValueError, match=f"--coordinator must be HOST:PORT, got {address}"):
        hosts.connect(address, 2, 0)
    assert joined == []


def test_others_that_cannot_be_reached_are_one_error(monkeypatch):
    def fail(*given, **how):
        raise RuntimeError("deadline exceeded")

    monkeypatch.setattr(hosts.jax.distributed, "initialize", fail)
    with pytest.raises(RunError, match="cannot join the other processes of the run: deadline"):
        hosts.connect("10.0.0.1:1234", 2, 0)


def test_hosts_may_differ_in_where_their_images_lie_alone(monkeypatch):
    monkeypatch.setattr(hosts.jax, "process_count", lambda: 2)
    for name, agreed in (
        ("data.dir", True), ("data.folder", True), ("data.digest", False), ("workdir", False)
    ):  # fmt: skip
        texts = [json.dumps({name: f"/of/{host}", "train.steps": 1}) for host in range(2)]
        monkeypatch.setattr(hosts, "_gather", lambda text, texts=texts: texts)
        if agreed:
            hosts.check_same({})
            continue
        with pytest.raises(RunError, match=rf"{name}: /of/0 on process 0, /of/1 on process 1"):
            hosts.check_same({})


def test_alone_there_is_nothing_to_agree_on():
    hosts.check_same({"train.steps": 1})
    hosts.wait_for_first()
    hosts.leave(1)
    assert hosts.is_first()
    assert hosts.all_agree(True)
    assert not hosts.all_agree(False)
    with pytest.raises(ZeroDivisionError):
        hosts.on_first(lambda: 1 / 0)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


class _Two:
    """Two processes of one run."""

    def __init__(self, workdir, *arguments, own=((), ()), fault=None):
        address = f"localhost:{_free_port()}"
        self.logs = [workdir.with_name(f"{workdir.name}.{i}.log") for i in range(2)]
        self.processes = []
        for number, log in enumerate(self.logs):
            command = [
                sys.executable, "-m", "tests.training.toy", "--workdir", str(workdir),
                "--coordinator", address, "--processes", "2", "--process", str(number),
                *arguments, *own[number],
            ]  # fmt: skip
            faults = {"TOY_FAULT": str(fault)} if fault is not None and number == 1 else {}
            environment = {**os.environ, "JAX_PLATFORMS": "cpu", **faults}
            with log.open("w") as file:
                self.processes.append(
                    subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=file, env=environment)
                )

    def wait_for_a_checkpoint(self, workdir):
        before = _checkpoints(workdir)
        while not _checkpoints(workdir) - before:
            time.sleep(0.01)
            assert all(process.poll() is None for process in self.processes), self.said()

    def codes(self):
        try:
            return [process.wait(240) for process in self.processes]
        finally:  # one that hangs is not to outlive its test
            for process in self.processes:
                process.kill()
                process.wait()

    def said(self):
        return [log.read_text() for log in self.logs]


def _checkpoints(workdir):
    return {int(path.name) for path in (workdir / "checkpoints").glob("*") if path.name.isdigit()}


@pytest.mark.slow
def test_two_processes_are_one_run_whatever_happens_to_one(tmp_path):
    toy.run([ToyConfig(workdir=str(tmp_path / "one"))])
    cut = tmp_path / "cut"

    # Killed, one of them by the machine and the other by the scheduler.
    run = _Two(cut, "--pause", "0.05")
    run.wait_for_a_checkpoint(cut)
    run.processes[1].kill()
    time.sleep(0.5)
    run.processes[0].kill()
    run.codes()

    # Asked to stop, one of them alone: both save.
    run = _Two(cut, "--pause", "0.05")
    run.wait_for_a_checkpoint(cut)
    before = max(_checkpoints(cut))
    run.processes[1].send_signal(signal.SIGTERM)
    assert run.codes() == [143, 143], run.said()
    assert max(_checkpoints(cut)) > before
    assert "stopped by SIGTERM; the run is saved" in run.said()[0]

    # One of them fails: it says why, and the other does not wait for it.
    run = _Two(cut, "--pause", "0.05", fault=1)
    first, second = run.codes()
    assert (first != 0, second) == (True, 1), run.said()
    assert run.said()[1].splitlines()[-1] == "error: no such batch"
    assert not (cut / "final.npz").exists()

    run = _Two(cut, "--pause", "0.05")
    assert run.codes() == [0, 0], run.said()
    first, second = run.said()
    assert "going on from step" in first
    assert "step 30 of 30" in first
    assert "step" not in second
    with np.load(tmp_path / "one/final.npz") as one, np.load(cut / "final.npz") as two:
        for array in one:
            np.testing.assert_allclose(one[array], two[array], rtol=1e-4, atol=1e-5)


_WAITING = """
import sys
import jax
from jax.experimental import multihost_utils
from drawjax.training import hosts

hosts.connect(sys.argv[1], 2, int(sys.argv[2]))
del multihost_utils.sync_global_devices
hosts.wait_for_first()
hosts.wait_for_first()
print("met")
"""


@pytest.mark.slow
def test_waiting_for_the_first_is_no_work_of_devices_which_gives_up():
    command, address = [sys.executable, "-c", _WAITING], f"localhost:{_free_port()}"
    processes = [
        subprocess.Popen([*command, address, str(i)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for i in range(2)
    ]
    assert [process.communicate(timeout=100)[0] for process in processes] == ["met\n"] * 2


@pytest.mark.slow
def test_processes_that_disagree_stop_with_one_line(tmp_path):
    run = _Two(tmp_path / "run", own=((), ("--train.seed", "3")))
    assert run.codes() == [1, 1], run.said()
    for text in run.said():
        errors = [line for line in text.splitlines() if line.startswith("error:")]
        assert errors == [
            "error: the processes were given different configs "
            "(train.seed: 0 on process 0, 3 on process 1)"
        ]
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.slow
def test_an_error_of_the_first_process_is_told_by_both(tmp_path):
    RunWriter(tmp_path / "run", ToyConfig(width=77)).close()
    run = _Two(tmp_path / "run")
    assert run.codes() == [1, 1], run.said()
    for text in run.said():
        assert "holds another run (width: 77 there, 4 now); name" in text
