"""Models for other runtimes: StableHLO, which JAX reads again without drawjax, and ONNX.

>>> drawjax.export(model, "mnist.onnx")
>>> session = onnxruntime.InferenceSession("mnist.onnx")
>>> drawing, windows = session.run(None, {"noise": noise})       # [T, batch, Z]
>>> images = drawing[-1]                                         # [batch, height, width, channels]

What is computed is chosen by name. Inputs and outputs have names too; all are float32, and the
batch size is free.

=============  ================================  ================================================
function       inputs                            outputs
=============  ================================  ================================================
`generate`     noise `[T, batch, Z]`             drawing, write_windows
`step`         state `[batch, S]`, noise         drawing, write_windows, next_state
`reconstruct`  images                            drawing, read_windows, write_windows, latents, kl
`complete`     images, known, noise              drawing, read_windows, write_windows
`classify`     images                            logits, read_windows; of a `drawjax.Ram`
=============  ================================  ================================================

`drawing` is the mean image after each step, `[T, batch, height, width, channels]`; that of `step`,
as its windows and its noise, has no T. T is free where noise is given. `known` is `[batch, height,
width, 1]`: 1 where a pixel of the images is given, 0 where the model is to draw. `state` is what a
drawing has changed of the initial state, as one row of numbers per image, `[batch, S]`: zeros begin
a drawing. A conditional model takes `condition` `[batch, features]` as its last input: a class is
one-hot. Windows, of a model that has them, are `[T, batch, numbers]`, the fields of
`drawjax.attention.Window` that are set, in its order; five for the paper's.

Axes: `T` steps, `batch` images, `Z` latents, `S` numbers of a state.
"""

import importlib
import importlib.metadata
import logging
import pathlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import jax
import jax.export
import jax.extend.core
import jax.numpy as jnp
from flax import nnx
from jax.flatten_util import ravel_pytree

from drawjax import draw, ram
from drawjax.attention import Window
from drawjax.files import write_atomically

__all__ = ["export", "export_function"]

Format = Literal["onnx", "stablehlo"]
_Shapes = Mapping[str, Sequence[int | str]]
_Given = jax.Array | None
_Outputs = tuple[dict[str, Any], dict[str, Any]]  # batch first, and T before it

_OPSET = 20  # of ONNX; onnxruntime reads it since 1.17 (2024)
_PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


def export(
    model: Any,
    path: str | pathlib.Path,
    *,
    function: str | None = None,
    format: Format | None = None,
) -> None:
    """Writes what a model computes to a file that runs without drawjax, in float32.

    Args:
      model: a `drawjax.Draw`, a `drawjax.Ram`, or one of your own with their methods.
      path: the file.
      function: one of the names above; None: `classify` for a classifier, `generate` for others.
      format: "onnx" or "stablehlo"; None: by the suffix, `.onnx` or `.stablehlo`.

    Raises:
      ValueError: if the model has no such function, or the format is none of the two.
      ModuleNotFoundError: if ONNX is asked for, and what writes it is not installed.
    """
    model = _in_float32(model)
    functions = _classifying(model) if isinstance(model, ram.Model) else _drawing(model)
    function = function or next(iter(functions))
    if function not in functions:
        listed = ", ".join(functions)
        raise ValueError(f"a {type(model).__name__} exports {listed}, got {function!r}")
    computed, inputs = functions[function]
    export_function(_batched(computed, inputs), path, inputs, format=format)


def export_function(
    function: Callable[..., Mapping[str, jax.Array]],
    path: str | pathlib.Path,
    inputs: _Shapes,
    *,
    format: Format | None = None,
) -> None:
    """Writes a function of your own as `export` does, for example of `drawjax.attention`.

    Args:
      function: pure; called with an array for each of `inputs` by name, returns arrays by name.
      path: the file.
      inputs: the shape of each, all float32. A name in it is an axis of any size, the same
        wherever it stands.
      format: as for `export`.

    Raises:
      ValueError: if the format is none of the two.
      ModuleNotFoundError: if ONNX is asked for, and what writes it is not installed.
    """
    path = pathlib.Path(path).expanduser()
    writers = {"onnx": _onnx, "stablehlo": _stablehlo}
    kind = format or path.suffix.removeprefix(".")
    if kind not in writers:
        raise ValueError(
            f"format must be onnx or stablehlo, or the suffix say so, got {format or path.name}"
        )
    scope = jax.export.SymbolicScope()
    specs = {
        name: jax.ShapeDtypeStruct(
            jax.export.symbolic_shape(",".join(map(str, shape)), scope=scope), jnp.float32
        )
        for name, shape in inputs.items()
    }
    with jax.enable_x64(False):
        write_atomically(path, writers[kind](function, specs))


def _stablehlo(function: Callable[..., Any], specs: Mapping[str, Any]) -> bytes:
    return bytes(jax.export.export(jax.jit(function), platforms=_PLATFORMS)(**specs).serialize())


def _onnx(function: Callable[..., Any], specs: Mapping[str, Any]) -> bytes:
    for chatty in ("jax2onnx", "onnx_ir"):  # of every extra it does without, every value in a loop
        logging.getLogger(chatty).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(action="ignore"):
            jax2onnx = importlib.import_module("jax2onnx")
    except ModuleNotFoundError as error:
        message = f"export to ONNX needs {error.name}: pip install 'drawjax[export]'"
        raise ModuleNotFoundError(message, name=error.name) from None
    names: list[str] = []

    def positional(*values: jax.Array) -> tuple[jax.Array, ...]:
        outputs = function(**dict(zip(specs, values, strict=True)))
        names[:] = outputs
        return tuple(outputs.values())

    # Traced here, since jax2onnx replaces functions of JAX while it traces, and some of its own
    # take no axis of any size.
    jaxpr, outputs = jax.make_jaxpr(positional, return_shape=True)(*specs.values())
    # Warnings that are errors would keep it from loading what it knows of JAX.
    try:
        with warnings.catch_warnings(action="ignore"):
            proto = jax2onnx.to_onnx(
                jax.extend.core.jaxpr_as_fun(jaxpr),
                list(specs.values()),
                opset=_OPSET,
                input_names=list(specs),
                output_names=names,
            )
    except Exception as error:  # of any kind: it reads private parts of JAX
        known = importlib.metadata.version("jax2onnx")
        reason = (str(error).strip().splitlines() or [""])[0]
        raise ValueError(
            f"jax2onnx {known} cannot translate this with jax {jax.__version__} "
            f"({type(error).__name__}: {reason}); another version of either may, or StableHLO"
        ) from error
    for value, spec in zip(proto.graph.output, outputs, strict=True):
        # Some lose their axes, or the names of these, on the way.
        value.type.tensor_type.shape.ClearField("dim")
        for axis in spec.shape:
            known = {"dim_value": axis} if isinstance(axis, int) else {"dim_param": str(axis)}
            value.type.tensor_type.shape.dim.add(**known)
    proto.producer_name = "drawjax"
    proto.producer_version = importlib.metadata.version("drawjax")
    return proto.SerializeToString()


def _batched(function: Callable[..., _Outputs], inputs: _Shapes) -> Callable[..., Any]:
    """A function of a batch of one for any batch.

    Mapped, and not traced with a batch of unknown size: a model of a person's own may well use
    `len(images)` where JAX wants a number.
    """
    axes = [shape.index("batch") for shape in inputs.values()]

    def one(*values: jax.Array) -> _Outputs:
        rows = map(jnp.expand_dims, values, axes)
        first, second = function(**dict(zip(inputs, rows, strict=True)))
        return (
            {name: value.squeeze(0) for name, value in first.items()},
            {name: value.squeeze(1) for name, value in second.items()},
        )

    def batched(**values: jax.Array) -> dict[str, jax.Array]:
        ordered = [values[name] for name in inputs]
        first, second = jax.vmap(one, in_axes=axes, out_axes=(0, 1))(*ordered)
        return first | second

    return batched


def _drawing(model: Any) -> dict[str, tuple[Callable[..., _Outputs], _Shapes]]:
    """What a model that draws computes, each for a batch of one, and the shapes of its inputs."""
    start = model.initial_state(1)
    shape = model.likelihood(start.canvas).mean.shape[1:]
    noise, image = ("T", "batch", model.latent_size), ("batch", *shape)
    row, unravel = ravel_pytree((start.canvas, start.decoder, start.h_dec))
    size = model.condition_size if isinstance(model, draw.ConditionalModel) else 0
    given = {"condition": ("batch", size)} if size else {}

    def generate(noise: jax.Array, condition: _Given = None) -> _Outputs:
        return {}, _drawn(model, draw.generate(model, noise, condition=condition))

    def step(state: jax.Array, noise: jax.Array, condition: _Given = None) -> _Outputs:
        canvas, decoder, h_dec = unravel(row + state[0])
        before = draw.State(canvas, start.encoder, decoder, h_dec)
        after, output = draw.generation_step(model, before, noise=noise, condition=condition)
        changed, _ = ravel_pytree((after.canvas, after.decoder, after.h_dec))
        drawing = model.likelihood(after.canvas).mean
        windows = _windows(write_windows=output.write_windows)
        return {"drawing": drawing, **windows, "next_state": (changed - row)[None]}, {}

    def reconstruct(images: jax.Array, condition: _Given = None) -> _Outputs:
        output = draw.reconstruct(model, images, condition=condition)
        known = {"latents": output.latents, "kl": output.kl}
        return {}, _drawn(model, output) | {n: v for n, v in known.items() if v is not None}

    def complete(
        images: jax.Array, known: jax.Array, noise: jax.Array, condition: _Given = None
    ) -> _Outputs:
        output = draw.complete(model, images, known > 0, noise, condition=condition)
        return {}, _drawn(model, output)

    known = (*image[:-1], 1)
    return {
        "generate": (generate, {"noise": noise, **given}),
        "step": (step, {"state": ("batch", row.size), "noise": noise[1:], **given}),
        "reconstruct": (reconstruct, {"images": image, **given}),
        "complete": (
            complete, {"images": image, "known": known, "noise": noise, **given}
        ),
    }  # fmt: skip


def _drawn(model: Any, output: draw.DrawOutput) -> dict[str, jax.Array]:
    windows = _windows(read_windows=output.read_windows, write_windows=output.write_windows)
    return {"drawing": model.likelihood(output.canvases).mean, **windows}


def _classifying(model: Any) -> dict[str, tuple[Callable[..., _Outputs], _Shapes]]:
    def classify(images: jax.Array) -> _Outputs:
        output = ram.classify(model, images)
        return {"logits": output.logits}, _windows(read_windows=output.windows)

    return {"classify": (classify, {"images": ("batch", *model.image_shape)})}


def _windows(**windows: Window | None) -> dict[str, jax.Array]:
    """Each that there is, as one array: its fields along a last axis."""
    return {
        name: jnp.concatenate([field[..., None] for field in jax.tree.leaves(window)], axis=-1)
        for name, window in windows.items()
        if window is not None
    }


def _in_float32(model: Any) -> Any:
    """A copy of a model whose products take float32, which every runtime multiplies."""
    if not isinstance(model, nnx.Module):
        return model
    model = nnx.clone(model)
    for _, module in nnx.iter_modules(model):
        if getattr(module, "dtype", None) is not None:
            module.dtype = jnp.float32  # pyright: ignore[reportAttributeAccessIssue]
    return model
