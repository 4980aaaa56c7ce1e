"""Training steps, drawing and the glimpse on a GPU, against PyTorch and XLA's switches.

    python -m benchmarks.gpu                              # 8 minutes at most
    python -m benchmarks.gpu --parts steps,compiled       # some of it
    python -m benchmarks.gpu --tiny --minutes 2           # to try the script, on a CPU too

Each part is a process of its own, with what is left of the time as its limit; a part that does not
end prints what it had, and the parts after it are named as left out. Rows are printed as they come.

parts   what is timed
steps     the library's training step: Table 3's MNIST row, three precisions, 100 to 800 images, and
          its CIFAR-10 row; the share of the rate of one large product
plain     loss and gradient by the library's scan and by `lax.scan`
torch     the PyTorch port's training step, eager, the same sizes, with TF32
compiled  the port under torch.compile(mode="reduce-overhead"), which is CUDA graphs
generate  1,000 images drawn, by both
glimpse   `attention.read` with its gradient, by grid_sample and scale_and_translate too
switches  the step of 200 images under XLA's switches and other unrolled loops, one at a time
"""

import dataclasses
import functools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

# One process after another shares the card's memory, and PyTorch with JAX.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import jax
import jax.numpy as jnp

from benchmarks import problem, timing
from benchmarks.glimpse import by_grid_sample
from drawjax import attention, cli, draw, modules, scan
from drawjax.modules import DrawConfig
from drawjax.scan import deferral

PARTS = ("steps", "torch", "switches", "plain", "generate", "glimpse", "compiled")
SWITCHES = {
    "as it is": "",
    "command buffers in loops": "--xla_gpu_enable_command_buffer=+WHILE "
    "--xla_gpu_command_buffer_unroll_loops=true",
    "command buffers, skip temporaries": "--xla_gpu_enable_command_buffer=+WHILE "
    "--xla_gpu_command_buffer_update_mode=SKIP_TEMP",
    "smallest graphs": "--xla_gpu_graph_min_graph_size=1",
    "double buffering": "--xla_gpu_enable_while_loop_unrolling=WHILE_LOOP_UNROLLING_DOUBLE_BUFFER",
    "optimization level 1": "JAX_OPTIMIZATION_LEVEL=O1",
    "unroll 1": "UNROLL=1",
    "unroll 4": "UNROLL=4",
    "unroll 16": "UNROLL=16",
}


@dataclasses.dataclass(frozen=True)
class GpuConfig:
    """What to time, and for how long."""

    parts: str = ",".join(PARTS)
    """Parts, with commas; in this order."""
    minutes: float = 8.0
    """Limit of all together."""
    tiny: bool = False
    """Sizes that a CPU does at once, to see that the script works."""
    json: bool = False
    """JSON lines, not a table."""


@dataclasses.dataclass(frozen=True)
class Sizes:
    """The sizes of a run of this script."""

    mnist: DrawConfig
    cifar: DrawConfig
    batches: tuple[int, ...]
    batch: int  # of what is timed at one size
    images: int  # drawn; looked at in the glimpse
    rounds: int


FULL = Sizes(DrawConfig(), DrawConfig(64, 400, 200, 5, 5), (100, 200, 800), 200, 1_000, 10)
TINY = Sizes(DrawConfig(2, 8, 4, 2, 3), DrawConfig(2, 8, 4, 3, 3), (4,), 4, 4, 2)
_CIFAR = (32, 32, 3)


def steps(sizes: Sizes) -> Iterator[dict[str, Any]]:
    cases = [("mnist", sizes.mnist, problem.IMAGE_SHAPE, batch) for batch in sizes.batches]
    cases.append(("cifar10", sizes.cifar, _CIFAR, sizes.batch))
    for row, config, shape, batch in cases:
        for precision in ("float32", "tf32", "bfloat16"):
            products = "bfloat16" if precision == "bfloat16" else "float32"
            with jax.default_matmul_precision({"float32": "highest"}.get(precision, "default")):
                changed = dataclasses.replace(config, precision=products)
                run, _ = problem.training_step(changed, batch, shape=shape)
                side = 64 if sizes is TINY else 4096
                rate, peak = _matmul(products, side), 2 * side**3
                times = timing.compare({"step": run, "peak": rate}, rounds=sizes.rounds)
            flops = problem.model_flops(changed, batch, shape)
            share = flops / times["step"].fastest / (peak / times["peak"].fastest)
            yield {
                "row": row, "batch": batch, "what": f"drawjax, {precision}",
                "ms": 1e3 * times["step"].fastest, "median ms": 1e3 * times["step"].median,
                "share of the rate of a product of 4,096": share,
            }  # fmt: skip


def _matmul(dtype: str, side: int) -> Callable[[], jax.Array]:
    matrix = jax.random.normal(jax.random.key(0), (side, side), dtype)
    product = jax.jit(jnp.matmul)
    return lambda: product(matrix, matrix)


def plain(sizes: Sizes) -> Iterator[dict[str, Any]]:
    for precision in ("float32", "bfloat16"):
        config = dataclasses.replace(sizes.mnist, precision=precision)
        model = modules.Draw(config, problem.IMAGE_SHAPE, key=jax.random.key(0))
        graph, params = modules.split(model)
        images = problem.images(sizes.batch)
        shape = config.num_glimpses, sizes.batch, config.latent_size
        noise = jax.random.normal(jax.random.key(2), shape)
        for name, loop in (("drawjax.scan", scan.scan), ("lax.scan", _lax_scan)):
            with mock.patch.object(draw, "scan", loop):

                def loss(params, graph=graph, images=images, noise=noise):
                    return jnp.mean(sum(draw.loss(modules.merge(graph, params), images, noise)))

                run = jax.jit(jax.grad(loss)).lower(params).compile()
            times = timing.compare({"run": functools.partial(run, params)}, rounds=sizes.rounds)
            yield {
                "row": "mnist, loss and gradient", "batch": sizes.batch,
                "what": f"{name}, {precision}", "ms": 1e3 * times["run"].fastest,
            }  # fmt: skip


def _lax_scan(body: Any, state: Any, xs: Any, **_: Any) -> Any:
    return jax.lax.scan(body, state, xs)


def torch(sizes: Sizes, compiled: bool = False) -> Iterator[dict[str, Any]]:
    import torch

    from benchmarks.torch_port import TorchDraw, train_step

    torch.set_float32_matmul_precision("high")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    cases = [("mnist", sizes.mnist, problem.IMAGE_SHAPE, batch) for batch in sizes.batches]
    cases.append(("cifar10", sizes.cifar, _CIFAR, sizes.batch))
    if compiled:  # minutes for each
        cases = [case for case in cases if case[3] == sizes.batch]
    for row, config, (height, width, channels), batch in cases:
        torch.manual_seed(0)
        model = TorchDraw(config, (height, width, channels)).to(device)
        if compiled:
            model.compile(mode="reduce-overhead")
        optimizer = torch.optim.Adam(model.parameters(), 1e-3)
        images = (torch.rand(batch, height, channels, width, device=device) > 0.8).float()
        times = timing.compare(
            {"step": lambda m=model, o=optimizer, i=images: train_step(m, o, i, 5.0)},
            rounds=sizes.rounds,
        )
        yield {
            "row": row, "batch": batch,
            "what": "PyTorch, compiled with CUDA graphs" if compiled else "PyTorch, eager",
            "ms": 1e3 * times["step"].fastest, "median ms": 1e3 * times["step"].median,
        }  # fmt: skip


def compiled(sizes: Sizes) -> Iterator[dict[str, Any]]:
    yield from torch(sizes, compiled=True)


def generate(sizes: Sizes) -> Iterator[dict[str, Any]]:
    functions: dict[str, Callable[[], Any]] = {}
    shape = sizes.mnist.num_glimpses, sizes.images, sizes.mnist.latent_size
    for precision in ("float32", "bfloat16"):
        config = dataclasses.replace(sizes.mnist, precision=precision)
        graph, params = modules.split(
            modules.Draw(config, problem.IMAGE_SHAPE, key=jax.random.key(0))
        )

        @jax.jit
        def sample(params, key, graph=graph):
            return draw.sample(modules.merge(graph, params), jax.random.normal(key, shape))

        functions[f"drawjax, {precision}"] = lambda s=sample, p=params: s(p, jax.random.key(0))
    if timing.has_torch():
        import torch

        from benchmarks.torch_port import TorchDraw

        device = "cuda" if torch.cuda.is_available() else "cpu"
        model = TorchDraw(sizes.mnist, problem.IMAGE_SHAPE).to(device)
        functions["PyTorch, eager"] = lambda: (
            model.generate(torch.randn(*shape, device=device)).cpu().numpy()
        )
    for name, timed in timing.compare(functions, rounds=sizes.rounds).items():
        yield {
            "row": "mnist, drawing",
            "batch": sizes.images,
            "what": name,
            "ms": 1e3 * timed.fastest,
        }


def glimpse(sizes: Sizes) -> Iterator[dict[str, Any]]:
    count, patch = min(256, sizes.images), 12
    for side in (28, 100, 512):
        image = jax.random.uniform(jax.random.key(0), (count, side, side, 1))
        center = jax.random.uniform(jax.random.key(1), (count, 2), minval=0.3, maxval=0.7)

        def by_attention(image, center, side=side):
            stride = 0.5 * side / patch
            window = attention.Window(
                side * center[:, 0], side * center[:, 1], stride, (stride / 2) ** 2, 1.0
            )
            return attention.read(image, window, patch)

        def by_translate(image, center, side=side):
            scale = jnp.full(2, 2 * patch / side)

            def one(image, center):
                shift = patch / 2 - scale * side * center[::-1]
                return jax.image.scale_and_translate(
                    image, (patch, patch, 1), (0, 1), scale, shift, "linear"
                )

            return jax.vmap(one)(image, center)

        def by_coordinates(image, center, side=side):
            offsets = (jnp.arange(patch) - (patch - 1) / 2) * 0.5 * side / patch

            def one(image, center):
                x, y = side * center[0] - 1 + offsets, side * center[1] - 1 + offsets
                places = jnp.meshgrid(y, x, indexing="ij")
                return jax.scipy.ndimage.map_coordinates(image[..., 0], places, order=1)

            return jax.vmap(one)(image, center)

        functions, memory = {}, {}
        for name, read in (
            ("read", by_attention),
            ("scale_and_translate", by_translate),
            ("map_coordinates", by_coordinates),
        ):
            total = jax.jit(
                jax.value_and_grad(lambda i, c, read=read: jnp.sum(read(i, c) ** 2), (0, 1))
            )
            program = total.lower(image, center).compile()
            functions[name] = functools.partial(program, image, center)
            memory[name] = program.memory_analysis().temp_size_in_bytes / 2**20
        if timing.has_torch():
            functions["grid_sample (PyTorch)"] = by_grid_sample(count, side, patch)
        for name, timed in timing.compare(functions, rounds=sizes.rounds).items():
            yield {
                "row": f"glimpse {patch}x{patch} of {side}x{side}, with gradient", "batch": count,
                "what": name, "ms": 1e3 * timed.fastest, "temporary MiB": memory.get(name),
            }  # fmt: skip


def switches(sizes: Sizes) -> Iterator[dict[str, Any]]:
    """One process a switch: XLA reads them when it starts."""
    names = list(SWITCHES)[:: len(SWITCHES) - 1] if sizes is TINY else SWITCHES
    for name in names:
        environment = dict(os.environ)
        for setting in SWITCHES[name].split():
            if setting.startswith("--"):
                environment["XLA_FLAGS"] = f"{environment.get('XLA_FLAGS', '')} {setting}"
            else:
                key, value = setting.split("=")
                environment[key] = value
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.gpu", "--part", "switch", *_tiny(sizes)],
            env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        for row in rows:
            yield {**row, "what": f"{row['what']}, {name}"}
        if not rows:
            reason = (done.stderr.strip().splitlines() or ["no reason"])[-1]
            yield {"row": "mnist", "batch": sizes.batch, "what": name, "failed": reason[:80]}


def switch(sizes: Sizes) -> Iterator[dict[str, Any]]:
    """The step of one size, in the environment that `switches` made."""
    if "UNROLL" in os.environ:
        deferral._unroll = lambda: int(os.environ["UNROLL"])
    for precision in ("float32", "bfloat16"):
        config = dataclasses.replace(sizes.mnist, precision=precision)
        start = time.perf_counter()
        run, _ = problem.training_step(config, sizes.batch)
        seconds = time.perf_counter() - start
        times = timing.compare({"step": run}, rounds=sizes.rounds)
        yield {
            "row": "mnist", "batch": sizes.batch, "what": precision,
            "ms": 1e3 * times["step"].fastest, "median ms": 1e3 * times["step"].median,
            "compiling, s": seconds,
        }  # fmt: skip


def _tiny(sizes: Sizes) -> list[str]:
    return ["--tiny"] if sizes is TINY else []


def run(config: GpuConfig) -> None:
    """Times part after part within the limit, and prints a table."""
    unknown = set(config.parts.split(",")) - set(PARTS)
    if unknown:
        raise ValueError(f"parts are {', '.join(PARTS)}; got {', '.join(sorted(unknown))}")
    end = time.monotonic() + 60 * config.minutes
    rows: list[dict[str, Any]] = []
    for part in config.parts.split(","):
        if part in ("torch", "compiled") and not timing.has_torch():
            print(f"{part}: PyTorch is not installed", file=sys.stderr)
            continue
        left = end - time.monotonic()
        if left < (1 if config.tiny else 20):
            print(f"{part}: left out, the time is over", file=sys.stderr)
            continue
        arguments = ["--part", part, *_tiny(TINY if config.tiny else FULL)]
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.gpu", *arguments],
            stdout=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        try:
            output, _ = process.communicate(timeout=left)
            if process.returncode:
                print(f"{part}: failed", file=sys.stderr)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # with the processes that it started
            output, _ = process.communicate()
            print(f"{part}: stopped, the time is over", file=sys.stderr)
        except BaseException:  # Ctrl-C, which does not reach them
            os.killpg(process.pid, signal.SIGKILL)
            raise
        new = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
        rows += new
        print(timing.table(new), file=sys.stderr, flush=True)
    if config.json:
        print(json.dumps({**timing.environment(), "rows": rows}))
    else:
        print(timing.environment())
        print(timing.table(rows))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--part"]:  # a process of one part, started by `run` or `switches`
        part, tiny = sys.argv[2], "--tiny" in sys.argv
        for row in globals()[part](TINY if tiny else FULL):
            print(json.dumps(row), flush=True)
    else:
        cli.command(run, GpuConfig(), description=__doc__.splitlines()[0])
