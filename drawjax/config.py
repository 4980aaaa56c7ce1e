"""What a run is: frozen dataclasses that check themselves, from which flags are made.

A field is checked by its type when a config is made: choices, ranges, and NumPy's numbers and paths
taken for what they are. Code that is handed a config trusts it. Imports neither JAX nor tyro.
"""

import dataclasses
import difflib
import functools
import math
import os
import pathlib
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal, TypeVar

__all__ = [
    "MAX_PIECES",
    "PRNG",
    "Binarization",
    "Checked",
    "ClassificationConfig",
    "ClutterDataConfig",
    "DataConfig",
    "DrawConfig",
    "ExperimentConfig",
    "GenerationConfig",
    "GenerationDataConfig",
    "RamConfig",
    "TrainConfig",
    "data_dir",
    "flatten",
    "from_flat",
    "nearest",
    "option",
]

T = TypeVar("T")

Binarization = Literal["static", "dynamic", "threshold", "none"]
Precision = Literal["float32", "bfloat16"]
_LARGEST = (2 - 2**-23) * 2.0**127  # of float32; JAX would make infinity of more
# The implementation of all keys: JAX_DEFAULT_PRNG_IMPL would otherwise change every number of a
# run, and that of an evaluation with its batch size, on which values of "rbg" under vmap depend.
PRNG = "threefry2x32"
MAX_PIECES = 127  # of clutter; with the target, as many as 16 bits can add up


def option(
    default: Any,
    *,
    low: float | None = None,
    above: float | None = None,
    high: float | None = None,
    harmless: bool = False,
    path: bool = False,
) -> Any:
    """A field of a config.

    Args:
      default: its value.
      low: the least number that it takes.
      above: numbers have to be larger than this.
      high: the largest number that it takes.
      harmless: changes no parameter, so that a run may go on with another value.
      path: names a file or folder; `~` is the user's home.
    """
    rules = {"low": low, "above": above, "high": high, "harmless": harmless, "path": path}
    return dataclasses.field(default=default, metadata=rules)


class Checked:
    """Checks the fields of a dataclass by their types and by what `option` says of them.

    Raises:
      ValueError: by `__post_init__`, naming the first field whose value cannot be taken.
    """

    _prefix: ClassVar[str] = ""

    def __post_init__(self):
        hints = typing.get_type_hints(type(self))
        for field in dataclasses.fields(self):  # pyright: ignore[reportArgumentType]
            value = getattr(self, field.name)
            if value is field.default:
                continue
            name = self._prefix + field.name
            if name.startswith("--"):  # of a command, whose fields are known as flags
                name = name.replace("_", "-")
            value = _taken(name, value, hints[field.name])
            _check_range(name, value, field.metadata)
            if field.metadata.get("path"):
                value = _at_home(value)
            object.__setattr__(self, field.name, value)


def _at_home(path: Any) -> Any:
    """A path, or several, with the user's home in place of `~`."""
    if isinstance(path, tuple):
        return tuple(map(_at_home, path))
    return path if path is None else type(path)(os.path.expanduser(path))


def _can_name_a_file(text: str) -> bool:
    """Whether a file can have such a name; all texts of a config are names or paths."""
    try:
        return b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:  # half of a surrogate pair
        return False


def _taken(name: str, value: Any, hint: Any) -> Any:
    """A field's value as its type has it.

    Raises:
      ValueError: if it cannot be that.
    """
    is_config = dataclasses.is_dataclass(value) and not isinstance(value, type)
    if hint is Any or (is_config and name == "model"):  # a custom one may have a custom config
        return value
    is_union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    kinds = typing.get_args(hint) if is_union else (hint,)
    if value is None and type(None) in kinds:
        return None
    value = typing.cast(Any, value)
    kind: Any
    kind, *others = (kind for kind in kinds if kind is not type(None))
    if others or not (isinstance(kind, type) or typing.get_origin(kind) in (tuple, Literal)):
        return value  # of a custom config, whose own business it is
    if typing.get_origin(kind) is tuple:
        if getattr(value, "ndim", None) == 1 and hasattr(value, "tolist"):
            value = value.tolist()  # an array of NumPy or JAX
        if isinstance(value, str | bytes) or not isinstance(value, Sequence):
            raise ValueError(f"{name} must be a sequence, got {_shown(value)}")
        parts = typing.get_args(kind)
        if Ellipsis not in parts and len(value) != len(parts):
            raise ValueError(f"{name} must have {len(parts)} values, got {_shown(value)}")
        hints = parts[:1] * len(value) if Ellipsis in parts else parts
        return tuple(map(functools.partial(_taken, name), value, hints))
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    elif getattr(value, "shape", None) == () and hasattr(value, "item"):
        value = value.item()  # a number of NumPy or JAX
    if typing.get_origin(kind) is Literal:
        choices = typing.get_args(kind)
        if not any(type(value) is type(choice) and value == choice for choice in choices):
            names = list(map(str, choices))
            near = nearest(value, names) if isinstance(value, str) else ""
            raise ValueError(f"{name} must be one of {', '.join(names)}, got {_shown(value)}{near}")
        return value
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            value = float(value)
        except OverflowError:
            raise ValueError(f"{name} must be finite, got {_shown(value)}") from None
    if kind is pathlib.Path and isinstance(value, str):
        value = pathlib.Path(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        names = {int: "a whole number", float: "a number", bool: "True or False", str: "a text"}
        wanted = names.get(kind, f"a {kind.__name__}")
        raise ValueError(f"{name} must be {wanted}, got {_shown(value)}")
    if kind is int and not -(2**63) <= value < 2**63:
        raise ValueError(f"{name} must fit into 64 bits, got {_shown(value)}")
    if kind is float and not math.isfinite(value):
        raise ValueError(f"{name} must be finite, got {value}")
    if kind is float and abs(value) > _LARGEST:
        raise ValueError(f"{name} must fit into a float32, got {value}")
    if value == "":
        raise ValueError(f"{name} must not be empty; leave it out for the default")
    if kind in (str, pathlib.Path) and not _can_name_a_file(str(value)):
        raise ValueError(f"{name} must be a name that a file can have, got {_shown(value)}")
    return value


def _shown(value: Any) -> str:
    """A value in an error's line; some cannot show themselves (whole numbers of 5,000 digits)."""
    try:
        text = repr(value)
    except Exception:
        return f"one of type {type(value).__name__}"
    return text if len(text) <= 200 else f"{text[:200]}..."


def _check_range(name: str, value: Any, rules: Mapping[str, Any]) -> None:
    low, above, high = (rules.get(rule) for rule in ("low", "above", "high"))
    least = "not be negative" if low == 0 else f"be at least {low}"
    larger = "be positive" if above == 0 else f"be larger than {above}"
    for part in value if isinstance(value, tuple) else () if value is None else (value,):
        for holds, must in (
            (low is None or high is None or low <= part <= high, f"lie in {low}..{high}"),
            (low is None or part >= low, least),
            (above is None or part > above, larger),
            (high is None or part <= high, f"be at most {high}"),
        ):
            if not holds:
                raise ValueError(f"{name} must {must}, got {part}")


@dataclasses.dataclass(frozen=True)
class DrawConfig(Checked):
    """Sizes of a DRAW network; the defaults are the MNIST row of Table 3."""

    _prefix = "model."

    num_glimpses: int = option(64, low=1)
    """T, how many glimpses are taken and how often the canvas is written to."""
    hidden_size: int = option(256, low=1)
    """Units of the encoder's and of the decoder's LSTM."""
    latent_size: int = option(100, low=1)
    """Z, latent variables per step."""
    read_size: int | None = option(2, low=1)
    """N of the read window, filters per side; None reads the whole image (Eq. 17)."""
    write_size: int | None = option(5, low=1)
    """N of the write window, filters per side; None writes the whole canvas (Eq. 18)."""
    prior: Literal["standard", "learned"] = "standard"
    """Distribution of a step's latents: N(0, 1), or a normal distribution given h^dec_{t-1}, which
    starts as N(0, 1) (Gregor et al. 2016)."""
    likelihood: Literal["bernoulli", "intensities", "discretized_logistic", "gaussian"] = (
        "bernoulli"
    )
    """Of a pixel, given the canvas. bernoulli: of zeros and ones; intensities: the same
    cross-entropy for values between, the paper's cost for color; discretized_logistic: of 8-bit
    values; gaussian: a density of values in [0, 1]."""
    likelihood_scale: Literal["channel", "pixel", "canvas"] = "channel"
    """Learned scales of discretized_logistic and gaussian: one per channel, one per pixel and
    channel, or drawn with the image, on a canvas of twice the channels."""
    precision: Precision = "float32"
    """Type of the inputs of matrix products; sums, states and losses stay float32."""
    remat: bool = False
    """Recompute steps in the backward pass in blocks of about sqrt(steps): less memory, slower."""
    num_classes: int | None = option(None, low=1)
    """Class-conditional on the data set's labels, of so many classes; None: unconditional, as in
    the paper."""
    condition_size: int | None = option(None, low=1)
    """Conditional on so many features, given with each image, in place of a class."""
    clip_ratio: float | None = option(None, above=0)
    """In training, scale down an image's gradient that is longer than so many times the median of
    its batch; None: none. Over many steps on large images a few would drown the others."""

    def __post_init__(self):
        super().__post_init__()
        if self.likelihood_scale != "channel" and not self.has_scale:
            raise ValueError(
                f"likelihood_scale {self.likelihood_scale} needs a likelihood with a scale, "
                f"got {self.likelihood}"
            )
        if self.num_classes is not None and self.condition_size is not None:
            raise ValueError("model.num_classes and model.condition_size do not go together")

    @property
    def has_scale(self) -> bool:
        """Whether the likelihood has scales to learn."""
        return self.likelihood in ("discretized_logistic", "gaussian")

    @property
    def dtype(self) -> str | None:
        """The type of the inputs of matrix products; None: as they come, float64 under x64."""
        return "bfloat16" if self.precision == "bfloat16" else None


@dataclasses.dataclass(frozen=True)
class RamConfig(Checked):
    """Sizes of a Differentiable RAM; the defaults are Table 3's row for cluttered MNIST."""

    _prefix = "model."

    num_glimpses: int = option(8, low=1)
    """T, how many glimpses are taken."""
    hidden_size: int = option(256, low=1)
    """Units of the LSTM."""
    read_size: int = option(12, low=1)
    """N of the read window, filters per side."""
    num_classes: int = option(10, low=1)
    """How many classes there are."""
    num_scales: int = option(1, low=1)
    """Patches a glimpse has around one center, each twice as wide as the one before; more than the
    paper's 1 is the retina of Mnih et al. (2014)."""
    glimpse_features: int | None = option(None, low=1)
    """Channels of a small convolutional network between glimpse and LSTM; None: none, as the
    paper."""
    last_view: int | None = option(None, low=1)
    """Side of a view of the whole image, shrunk to so many pixels, that the classes are named by
    beside the last hidden vector; None: none, as the paper."""
    precision: Precision = "float32"
    """Type of the inputs of matrix products; sums, states and losses stay float32."""

    @property
    def dtype(self) -> str | None:
        """The type of the inputs of matrix products; None: as they come, float64 under x64."""
        return "bfloat16" if self.precision == "bfloat16" else None


@dataclasses.dataclass(frozen=True)
class DataConfig(Checked):
    """Which images."""

    _prefix = "data."

    name: str | None = None
    """TFDS name of a prepared set of images, e.g. fashion_mnist; None: the experiment's own."""
    dir: str | None = option(None, path=True, harmless=True)
    """Folder of prepared sets; None: $TFDS_DATA_DIR, else TFDS's own, ~/tensorflow_datasets."""
    size: int | None = option(None, low=1)
    """Resize images to size x size pixels; None: as they are."""
    invert: bool = False
    """Swap black and white, for sets of dark ink on a light ground (omniglot)."""


@dataclasses.dataclass(frozen=True)
class GenerationDataConfig(DataConfig):
    """Which images to draw, and in what form."""

    folder: str | None = option(None, path=True, harmless=True)
    """Folder of pictures of your own in place of a named set. It is prepared on the way, and again
    when its files change; --data.size then cuts the middle square out of each."""
    binarization: Binarization = "static"
    """static: drawn once (TFDS's binarized_mnist for MNIST); dynamic: anew each time a batch is
    made; threshold: at 0.5; none: intensities in [0, 1]."""
    train_on_validation: bool = False
    """Train on the validation images as well, once all choices have been made without them. What is
    said of them then says nothing of new images."""
    crop: int | None = option(None, low=1)
    """Side in pixels of the square that the model sees: a random place in training, the middle
    elsewhere; None: whole images."""
    pair_size: int | None = option(None, low=1)
    """Put each image and another at random places on a black square of so many pixels, as in
    two-digit MNIST; None: images alone."""

    def __post_init__(self):
        super().__post_init__()
        if self.name is not None and self.folder is not None:
            raise ValueError(
                f"data.name is {self.name} and data.folder {self.folder}; give one of them"
            )
        if self.crop is not None and self.pair_size is not None:
            raise ValueError("data.crop and data.pair_size do not go together; give one of them")


@dataclasses.dataclass(frozen=True)
class ClutterDataConfig(DataConfig):
    """Which digits to classify, and in what clutter."""

    clutter_size: int = option(100, low=1)
    """Side of the cluttered image in pixels."""
    pieces: int = option(8, low=0, high=MAX_PIECES)
    """Pieces of other digits in an image, 8x8 pixels each."""


@dataclasses.dataclass(frozen=True)
class TrainConfig(Checked):
    """Adam with warm-up, a constant rate, and a linear decay to zero at the end.

    Until the decay begins nothing depends on how many steps are to come, so a run may be given
    more of them.
    """

    _prefix = "train."

    steps: int = option(150_000, low=1, high=2**31 - 1)
    """Training steps in all."""
    batch_size: int = option(100, low=1)
    """Images per step, over all devices and hosts together."""
    learning_rate: float = option(1e-3, above=0)
    """Adam's rate after warm-up."""
    warmup_steps: int = option(200, low=0, high=2**31 - 1)
    """Steps over which the rate grows from zero."""
    decay_fraction: float = option(0.3, low=0, high=1)
    """Share of the steps, at the end, over which the rate falls linearly to zero."""
    clip_norm: float = option(5.0, above=0)
    """Largest global norm of the gradient; a longer one is scaled down to it."""
    weight_decay: float = option(0.0, low=0)
    """Decoupled weight decay (AdamW), scaled by the learning rate."""
    ema_decay: float = option(0.9995, low=0, high=1)
    """Decay per step of the exponential moving average of the parameters, which is evaluated."""
    seed: int = option(0, low=0, high=2**31 - 1)
    """Seeds initial parameters, noise and the order of the data."""
    log_every: int = option(100, low=1, harmless=True)
    """Steps between two lines of metrics."""
    eval_every: int = option(2_000, low=1, harmless=True)
    """Steps between two evaluations on the validation split."""
    checkpoint_every: int = option(1_000, low=1, harmless=True)
    """Steps between two checkpoints."""
    keep_checkpoints: int = option(3, low=1, harmless=True)
    """How many of the newest checkpoints are kept, beside the best."""
    max_skipped: int = option(20, low=1, harmless=True)
    """Stop after so many steps in a row without a finite loss and gradient."""

    @property
    def decay_steps(self) -> int:
        """How many steps at the end have a falling rate."""
        return round(self.decay_fraction * self.steps)

    @property
    def fixed_from(self) -> int:
        """The step from which on the number of steps to come matters; until then it may change."""
        return self.steps - self.decay_steps


@dataclasses.dataclass(frozen=True)
class ExperimentConfig(Checked):
    """A run of an experiment, which adds its model."""

    workdir: str = option("runs/experiment", harmless=True, path=True)
    """The run's folder; a run that was interrupted goes on from there."""
    mode: Literal["train", "evaluate", "draw"] = option("train", harmless=True)
    """train: train (or go on), evaluate, draw. evaluate, draw: do so again from the best checkpoint
    of a run; its folder says how it was trained, and flags cannot say otherwise."""
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    model: Any = None
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    init_from: str | None = option(None, path=True)
    """A pretrained model's name or folder, or a run's folder, whose parameters training starts
    from; None: fresh ones. evaluate, draw: those of workdir's run, or, if there is none, these."""
    eval_batch_size: int = option(200, low=1, harmless=True)
    """Images per batch in evaluation; changes no figure beyond rounding."""


@dataclasses.dataclass(frozen=True)
class GenerationConfig(ExperimentConfig):
    """A run of a generation experiment."""

    data: GenerationDataConfig = dataclasses.field(default_factory=GenerationDataConfig)
    model: DrawConfig = dataclasses.field(default_factory=DrawConfig)
    importance_samples: int = option(0, low=0, harmless=True)
    """K of the importance-weighted bound on the test set; 0 leaves it out."""
    importance_images: int | None = option(None, low=2, harmless=True)
    """On how many test images it is estimated, the first ones; None: all of them."""
    samples: int = option(100, low=1, harmless=True)
    """How many images to generate for the figures."""

    def __post_init__(self):
        super().__post_init__()
        if self.importance_images is not None and not self.importance_samples:
            raise ValueError("importance_images needs importance_samples, how many for each image")
        likelihood = getattr(self.model, "likelihood", None)
        binary = self.data.binarization != "none"
        if likelihood == "bernoulli" and not binary:
            raise ValueError(
                "model.likelihood bernoulli is of zeros and ones: give data.binarization static, "
                "dynamic or threshold, or a likelihood intensities, discretized_logistic or "
                "gaussian"
            )
        if likelihood not in (None, "bernoulli") and binary:
            raise ValueError(f"model.likelihood {likelihood} needs data.binarization none")


@dataclasses.dataclass(frozen=True)
class ClassificationConfig(ExperimentConfig):
    """A run of the cluttered-digit experiment."""

    data: ClutterDataConfig = dataclasses.field(default_factory=ClutterDataConfig)
    model: RamConfig = dataclasses.field(default_factory=RamConfig)
    eval_batch_size: int = option(500, low=1, harmless=True)
    """Images per batch in evaluation; changes no figure beyond rounding."""


def data_dir(named: str | None = None) -> pathlib.Path:
    """The folder in which prepared sets are looked for: `named`, or the default.

    Raises:
      ValueError: if it would be in the user's home, and there is none.
    """
    folder = named or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    expanded = os.path.expanduser(folder)
    if expanded.startswith("~"):
        raise ValueError("there is no home folder; name one for data sets in TFDS_DATA_DIR")
    return pathlib.Path(expanded)


def leaves(config: Any, prefix: str = "") -> Iterator[tuple[str, Any, dataclasses.Field]]:
    """Yields dotted name, value and `dataclasses.Field` of a nested dataclass's fields."""
    for field in dataclasses.fields(config):
        name, value = prefix + field.name, getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from leaves(value, f"{name}.")
        else:
            yield name, value, field


def flatten(config: Any) -> dict[str, Any]:
    """The fields of a nested dataclass by dotted names, `{"train.steps": 100}`; tuples as lists."""
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value, *_ in leaves(config)
    }


def from_flat(like: T, flat: Mapping[str, Any]) -> T:
    """A config with the values of `flatten`'s form in place of its own, where there are some.

    Args:
      like: a config.
      flat: values by dotted names.

    Raises:
      ValueError: if a name is none of its fields, or a value cannot be used.
    """
    config: Any = like
    known = flatten(config)
    for name in flat:
        if name not in known:
            raise ValueError(f"there is no field {name}{nearest(name, list(known))}")
    changes: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            prefix = f"{field.name}."
            inner = {n.removeprefix(prefix): flat[n] for n in flat if n.startswith(prefix)}
            changes[field.name] = from_flat(value, inner)
        elif field.name in flat:
            changes[field.name] = flat[field.name]
    return dataclasses.replace(config, **changes)


def nearest(name: str, names: Sequence[str]) -> str:
    """`; did you mean ...?` with the nearest of some names, or nothing."""
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else ""
