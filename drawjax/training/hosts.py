"""Several processes, one run: how they find each other, agree, and stop when a signal asks them to.

One process per host is usual, each with its own devices. All run the same program on the same
config; process 0 alone writes what is not sharded.
"""

import glob
import importlib.util
import itertools
import json
import logging
import os
import re
import signal
import threading
import types
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from drawjax.training.errors import RunError

_log = logging.getLogger(__name__)

_waits = itertools.count()

_TEXT_BYTES = 1 << 16

_PATIENCE = 10  # seconds in which processes that end together arrive

# Fields that may differ: each host may have its data on a disk of its own. That the images are the
# same is seen by their digest.
_OWN = {"data.dir", "data.folder"}


def connect(
    coordinator: str | None = None,
    processes: int | None = None,
    process: int | None = None,
    *,
    indexed: bool = False,
) -> None:
    """Joins the other processes of this run, if there are any; before JAX touches a device.

    Without arguments the processes are found from what a scheduler leaves in the environment
    (`srun` of SLURM, Open MPI, Cloud TPU and GKE with several workers, a JobSet or an Indexed Job
    of Kubernetes where `jax[k8s]` is installed); a process started by hand stays alone.

    Args:
      coordinator: address and port of process 0, e.g. `10.0.0.1:1234`.
      processes: how many there are.
      process: the number of this one, from 0.
      indexed: whether the pods of an Indexed Job do one thing each, as points of a sweep, and are
        not processes of one run.

    Raises:
      ValueError: if some of the arguments are given and others missing, or there are not so many.
      RunError: if the others cannot be reached.
    """
    given = (coordinator, processes, process)
    if any(value is not None for value in given) and (
        None in given or not 0 <= (process or 0) < (processes or 0)
    ):
        raise ValueError(
            "--coordinator, --processes and --process go together: an address:port, how many "
            "processes there are, and which of them, from 0, this is; got "
            + ", ".join(map(str, given))
        )
    host, _, port = (coordinator or "").rpartition(":")
    if coordinator is not None and not (host and port.isdecimal() and 0 < int(port) < 2**16):
        raise ValueError(f"--coordinator must be HOST:PORT, got {coordinator}")
    if coordinator is None and not _scheduled(indexed):
        if _on_tpu():
            try:  # where there is one host it is a run of one process
                jax.distributed.initialize()
            except (RuntimeError, ValueError, OSError) as error:
                _log.warning("one process alone on this TPU: %s", error)
        return
    how: dict[str, Any] = {"local_device_ids": _gpus()}
    if coordinator is not None:  # what a scheduler says is not to be mixed with it
        how = {"cluster_detection_method": "deactivate"}
    try:
        jax.distributed.initialize(
            coordinator, processes, process, shutdown_timeout_seconds=_PATIENCE, **how
        )
    except (RuntimeError, ValueError) as error:
        raise RunError(f"cannot join the other processes of the run: {error}") from error


def leave(code: int) -> None:
    """Lets one of several processes end early: returns if it is alone, or if all end.

    If the others do not, they wait for it; JAX then ends them when their time to shut down is over,
    and would end this one too, with its own words and exit code.
    """
    if not jax.distributed.is_initialized():
        return
    waiting = threading.Thread(target=jax.distributed.shutdown, daemon=True)
    waiting.start()
    waiting.join(_PATIENCE - 2)
    if waiting.is_alive():
        os._exit(code)


def devices() -> str:
    """How many devices of what kind all processes have together, e.g. `1 x cpu`."""
    return f"{jax.device_count()} x {jax.devices()[0].device_kind}"


def is_first() -> bool:
    """Whether this process writes what is not sharded."""
    return jax.process_index() == 0


def on_first(action: Callable[[], object]) -> None:
    """Runs on process 0 while the others wait; what goes wrong there is a RunError on all."""
    failure: Exception | None = None
    message = ""
    if is_first():
        try:
            action()
        except OSError as error:
            what = error.filename or "the run's folder"
            failure, message = error, f"{what} cannot be written: {error.strerror}"
        except (RunError, ValueError) as error:
            failure, message = error, str(error)
    if message := _gather(message)[0]:
        raise RunError(message) from failure


def check_same(fields: Mapping[str, Any]) -> None:
    """Makes sure that all processes were given the same flat config.

    Raises:
      RunError: on all of them, naming the fields that differ.
    """
    texts = _gather(json.dumps(dict(fields), default=str))
    first = json.loads(texts[0])
    for process, text in enumerate(texts):
        other = json.loads(text)
        differ = [
            f"{name}: {first.get(name)} on process 0, {other.get(name)} on process {process}"
            for name in sorted(first.keys() | other.keys())
            if first.get(name) != other.get(name) and name not in _OWN
        ]
        if differ:
            raise RunError(f"the processes were given different configs ({'; '.join(differ)})")


def wait_for_first() -> None:
    """Waits, a week at most, while process 0 does something alone that may take long."""
    from orbax.checkpoint import multihost

    # Of processes that are named Orbax asks the coordinator; without, it would be a collective of
    # the devices, which gives up after some minutes.
    everyone = set(range(jax.process_count()))
    name = f"first is done {next(_waits)}"  # each barrier has a name of its own
    multihost.sync_global_processes(name, timeout=7 * 86_400, processes=everyone)


def all_agree(succeeded: bool) -> bool:
    """Whether something succeeded on every process."""
    return bool(np.all(multihost_utils.process_allgather(np.asarray(succeeded))))


def _gather(text: str) -> list[str]:
    """The texts of all processes, in their order."""
    data = text.encode()[:_TEXT_BYTES]
    padded = np.zeros(_TEXT_BYTES, np.uint8)
    padded[: len(data)] = np.frombuffer(data, np.uint8)
    rows = multihost_utils.process_allgather(padded)
    return [row.tobytes().rstrip(b"\0").decode(errors="replace") for row in np.asarray(rows)]


def _gpus() -> list[int] | None:
    """The numbers of the GPUs if this process is to have all that it sees; None: JAX decides.

    Under SLURM and Open MPI JAX takes one GPU a process, by the process's number on its host.
    """
    environment = os.environ
    alone = environment.get("OMPI_COMM_WORLD_LOCAL_SIZE") == "1" or re.fullmatch(
        r"1(\(x\d+\))?", environment.get("SLURM_STEP_TASKS_PER_NODE", "")
    )
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    count = len(visible.split(",")) if visible else len(glob.glob("/dev/nvidia[0-9]*"))
    return list(range(count)) if count and (alone or count == 1) else None


def _on_tpu() -> bool:
    """Whether this machine has TPUs of its own; they may be part of a pod."""
    installed = importlib.util.find_spec("libtpu") is not None
    return installed and bool(glob.glob("/dev/accel*") or glob.glob("/dev/vfio/[0-9]*"))


def _scheduled(indexed: bool) -> bool:
    """Whether a scheduler started this process as one of several."""
    environment = os.environ
    if "JAX_COORDINATOR_ADDRESS" in environment:
        return True
    # SLURM sets this for the tasks of one `srun`, not for a batch script or an array's elements.
    for name in ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE"):
        if environment.get(name, "1").isdigit() and int(environment.get(name, "1")) > 1:
            return True
    # Kubernetes sets these in the pods of an Indexed Job, of a JobSet too; how many they are, and
    # where the first is, JAX asks the cluster.
    pod = {"KUBERNETES_SERVICE_HOST", "JOB_COMPLETION_INDEX"} <= environment.keys()
    if pod and not indexed and importlib.util.find_spec("kubernetes") is not None:
        return True
    return "," in environment.get("TPU_WORKER_HOSTNAMES", "")


# Signals that ask a run to stop: noted, so that it saves first.

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
        self.stopping = False
        """Whether the run is to stop after the step that was last asked about."""
        self.signum = signal.SIGTERM
        """The first signal to this process, or what stands for one to another."""
        self._noted = self._asked = self._leave_at_once = False
        self._several = jax.process_count() > 1
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Interrupts":
        if threading.current_thread() is not threading.main_thread():
            return self  # where signals cannot be handled
        for signum in _ASKED + _TOLD:
            # JAX's preemption service, which lets the processes agree on a step, takes SIGTERM.
            own = self._several and signum == signal.SIGTERM
            if not own and signal.getsignal(signum) != signal.SIG_IGN:
                self._before[signum] = signal.signal(signum, self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)

    def stop_after(self, step: int) -> bool:
        """Whether to save and stop after this step; asked after every step, on all processes."""
        if self._several:
            self.stopping = multihost_utils.reached_preemption_sync_point(step)
        return self.stopping

    def unless_stopped(self, work: Callable[[], Result]) -> Result | None:
        """Does work that may be dropped: a signal ends it where it stands, and None comes back.

        With several processes it does not, since the others would wait for this one.
        """
        if self._several:
            return work()
        if self.stopping:
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
            self.__exit__()
            signal.raise_signal(signum)
            return
        self._asked |= signum in _ASKED
        if self._noted:
            return
        self._noted, self.signum = True, signal.Signals(signum)
        if self._several:
            signal.raise_signal(signal.SIGTERM)  # which JAX tells the others
        else:
            self.stopping = True
        _log.warning("%s: saving, then stopping", self.signum.name)
        if self._leave_at_once:
            raise _Now
