"""Draws with a pretrained model: `python -m drawjax.sample --model mnist --num 64`."""

import dataclasses
import pathlib

from drawjax import cli
from drawjax.config import PRNG, Checked, option

__all__ = ["SampleConfig", "sample"]


@dataclasses.dataclass(frozen=True)
class SampleConfig(Checked):
    """What to draw."""

    _prefix = "--"

    model: str = "mnist"
    """A model's name, a folder that `drawjax.save_pretrained` wrote, or a run's."""
    num: int = option(64, low=1)
    """How many images."""
    seed: int = option(0, low=0, high=2**31 - 1)
    """Seeds the noise."""
    label: tuple[int, ...] | None = option(None, low=0)
    """Class to draw, or several in one image, of a class-conditional model; None: a row of
    each."""
    out: pathlib.Path | None = option(None, path=True)
    """PNG to write; None: samples_MODEL_SEED.png, with a label samples_MODEL_LABEL_SEED.png."""
    gif: pathlib.Path | None = option(None, path=True)
    """GIF to write too, of the drawing step by step."""

    def __post_init__(self):
        super().__post_init__()
        if self.label == ():
            raise ValueError("--label needs a class; leave it out for a row of each")
        for name, path, suffix in (("out", self.out, ".png"), ("gif", self.gif, ".gif")):
            if path is not None and path.suffix.lower() != suffix:
                raise ValueError(f"--{name} must end in {suffix}, got {str(path)!r}")


_CONFIGS = (pathlib.Path(__file__).parent / "pretrained").glob("*/config.json")
DESCRIPTION = (
    "Draws a grid of images with a trained model. Needs no data set. Models: "
    + ", ".join(sorted(p.parent.name for p in _CONFIGS if not p.parent.name.startswith("ram")))
    + "; `drawjax models` says how good each is."
)


def sample(config: SampleConfig) -> None:
    """Writes what the config asks for.

    Raises:
      ValueError: if there is no such model, or it draws nothing.
      RunError: if it is a run without a checkpoint.
    """
    # Heavy imports, which `--help` need not wait for.
    import jax
    import numpy as np

    from drawjax import figures, pretrained
    from drawjax.modules import Draw

    model = pretrained.load_pretrained(config.model)
    if not isinstance(model, Draw):
        raise ValueError(f"{config.model} is a classifier; it draws nothing")
    classes, condition, columns = model.config.num_classes, None, None
    if config.label is not None:
        condition = np.tile(np.array(config.label), (config.num, 1))
    elif classes is not None:
        condition, columns = figures.class_rows(config.num, classes)
    key = jax.random.key(config.seed, impl=PRNG)
    output = model.generate(config.num, key=key, condition=condition)
    name = pathlib.Path(config.model).expanduser().absolute().name
    parts = ["samples", name, *(config.label or ()), config.seed]
    out = config.out or pathlib.Path("_".join(map(str, parts)) + ".png")
    figures.save_grid(out, np.asarray(output.images), columns=columns)
    if config.gif:
        means = np.asarray(model.likelihood(output.canvases).mean)
        windows = jax.tree.map(np.asarray, output.write_windows)
        size = model.config.write_size
        figures.save_animation(config.gif, means, windows, columns=columns, patch_size=size)
    print(*filter(None, (out, config.gif)), sep="\n")


if __name__ == "__main__":
    cli.command(sample, SampleConfig(), description=DESCRIPTION)
