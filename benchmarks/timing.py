"""Timing for all benchmarks: several functions side by side in one process, as ratios.

A shared machine is noisy, and its noise lasts longer than a call. So the functions take turns,
and each counts with its fastest call; the median is printed beside it to show the noise. Where
other programs keep the cores busy, pin the process to one (`taskset -c 0 python -m benchmarks`):
the processor time of a call, printed as well, then tells the work and not the waiting.
"""

import dataclasses
import importlib.util
import json
import os
import pathlib
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from typing import Any, NoReturn

import jax
import jax.numpy as jnp

from drawjax import cli

__all__ = [
    "MATMUL_FLOPS",
    "Timing",
    "compare",
    "environment",
    "has_torch",
    "main",
    "matmul",
    "ratios",
]


@dataclasses.dataclass(frozen=True)
class Timing:
    """Seconds a call."""

    fastest: float  # by the clock
    median: float
    processor: float  # the least time that all threads of the process took together


def compare(functions: dict[str, Callable[[], Any]], *, rounds: int = 10) -> dict[str, Timing]:
    """Calls the functions in turn, once each a round after one warm-up, and times them."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    work: dict[str, list[float]] = {name: [] for name in functions}
    for function in functions.values():
        jax.block_until_ready(function())
    for _ in range(rounds):
        for name, function in functions.items():
            start, work_start = time.perf_counter(), time.process_time()
            jax.block_until_ready(function())
            times[name].append(time.perf_counter() - start)
            work[name].append(time.process_time() - work_start)
    return {
        name: Timing(min(row), statistics.median(row), min(work[name]))
        for name, row in times.items()
    }


_BATCH, _INPUTS, _OUTPUTS, _REPEATS = 100, 520, 1024, 64  # of the encoder's product
MATMUL_FLOPS = 2 * _BATCH * _INPUTS * _OUTPUTS * _REPEATS  # operations of a call of `matmul`'s


def matmul(dtype: str) -> Callable[[], jax.Array]:
    """A call that runs the encoder's product many times in one program.

    `MATMUL_FLOPS` over its time is the machine's rate at the LSTM's shapes.
    """
    left = jax.random.normal(jax.random.key(0), (_BATCH, _INPUTS), jnp.float32)
    right = jax.random.normal(jax.random.key(1), (_INPUTS, _OUTPUTS), dtype)

    @jax.jit
    def run(left: jax.Array, right: jax.Array) -> jax.Array:
        def body(_: int, total: jax.Array) -> jax.Array:
            # Each product waits for the one before, as in a recurrent network.
            entering = (left + total[:1, :1]).astype(dtype)
            return 1e-9 * jnp.matmul(entering, right, preferred_element_type=jnp.float32)

        return jax.lax.fori_loop(0, _REPEATS, body, jnp.zeros((_BATCH, _OUTPUTS)))

    return lambda: run(left, right)


def ratios(times: dict[str, Timing], name: str, port: str) -> dict[str, float]:
    """How many times as fast as the port a function is, by the clock and by the processor."""
    if port not in times:
        return {}
    timed, ported = times[name], times[port]
    return {
        f"times {port}": ported.fastest / timed.fastest,
        f"times {port} (processor)": ported.processor / timed.processor,
    }


def has_torch() -> bool:
    """Whether PyTorch is installed; without it the ratios are left out."""
    return importlib.util.find_spec("torch") is not None


def environment() -> dict[str, Any]:
    """Where and with what the figures came about."""
    git = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=pathlib.Path(__file__).parent,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    versions = {"python": platform.python_version(), "jax": jax.__version__}
    if has_torch():
        import torch

        versions["torch"] = torch.__version__
    return {
        "machine": f"{_processor()}, {_cores()} cores, {jax.devices()[0].device_kind}",
        "load": round(os.getloadavg()[0], 1),
        "versions": versions,
        "commit": git.stdout.strip() or "unknown",
    }


def _cores() -> int:
    # Those that this process may use, where the system tells.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf8") as lines:
            return next(line.split(":")[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


@dataclasses.dataclass(frozen=True)
class PrintConfig:
    """How to print."""

    json: bool = False
    """A line of JSON, not a table."""


def main(measure: Callable[[], list[dict[str, Any]]], description: str | None) -> NoReturn:
    """The command line of one benchmark: prints its rows as a table, or as JSON."""

    def show(config: PrintConfig) -> None:
        rows = measure()
        if config.json:
            print(json.dumps({**environment(), "rows": rows}))
            return
        print(environment())
        if not has_torch():
            print("PyTorch is not installed (pip install 'drawjax[benchmark]'): no ratios to it.")
        print(table(rows))

    cli.command(show, PrintConfig(), description=(description or "").splitlines()[0])


def table(rows: list[dict[str, Any]]) -> str:
    """Rows as a Markdown table; the columns are those of all rows together."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [names, ["---"] * len(names)]
    lines += [[_cell(row.get(name)) for name in names] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, float):
        return f"{value}"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
