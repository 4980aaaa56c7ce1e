"""What every test shares: CPU, quiet logs, and x64 on request."""

import hashlib
import os
import pathlib
import subprocess

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Compiling takes most of the time, and less so without XLA's optimizations.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")

import jax
import jaxtyping
import pytest

from tests import typechecking


def _compilation_cache() -> str:
    """A folder that all workers and later runs share, one for each kind of processor."""
    info = pathlib.Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    features = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    name = hashlib.sha256(features.encode()).hexdigest()[:12]
    return os.path.expanduser(f"~/.cache/drawjax/tests/{name}")


# What one test compiled the next, and the commands that tests start, need not compile again.
_compiled = os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", _compilation_cache())
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.05"
jax.config.update("jax_compilation_cache_dir", _compiled)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.05)

os.environ["DRAWJAX_CACHE_DIR"] = ""  # nothing of a test is kept for the next run

# Annotated shapes are checked at run time here and nowhere else.
_MATHS = (
    "attention", "cells", "draw", "modules", "objective", "ram", "scan",
    "data.placing", "data.preprocess",
)  # fmt: skip
jaxtyping.install_import_hook(
    [f"drawjax.{name}" for name in _MATHS], f"{typechecking.__name__}.check"
)


@pytest.fixture
def own_errors():
    """Lets wrong arguments through to the checks of the library itself."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def optimized():
    """Compiles as users do, with all of XLA's optimizations."""
    before = jax.config.values["jax_disable_most_optimizations"]
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture
def strict():
    """Refuses arrays of two ranks or types in one operation, which hide mistakes."""
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        yield


@pytest.fixture
def promoting(strict):
    """Lets a strict test mix ranks and types, where that is what it is about."""
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture
def x64():
    """Runs the test in float64."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def real_data_dir() -> pathlib.Path:
    """The folder of prepared real sets; the test is skipped where there is none."""
    folder = os.environ.get("TFDS_DATA_DIR")
    if not folder or not pathlib.Path(folder).is_dir():
        pytest.skip("TFDS_DATA_DIR names no folder of prepared sets")
    return pathlib.Path(folder)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of one megabyte."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("only root can mount a small file system")
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)
