"""Any images: a folder, `--data.folder pictures`, or a prepared set, `--data.name`.

Not in the paper. It looks at the images first, and says what they are and what it chose for them:
gray or color, black and white or intensities with their likelihood, sizes and steps. Every flag
still replaces a choice; `--help` lists them with the values for 28x28 gray images.
"""

import contextlib
import dataclasses
import logging
from collections.abc import Sequence
from typing import NoReturn

import numpy as np

from drawjax import cli, data
from drawjax.config import DrawConfig, GenerationConfig, GenerationDataConfig, TrainConfig
from drawjax.data import ImageSet

_LOOKED_AT = 500  # images
_SIDE, _LARGEST = 32, 64  # pixels: what is cut out of pictures that are larger, or of several sizes

_FORM = {f"data.{name}" for name in ("name", "folder", "size", "crop", "pair_size")}  # fitted to

_log = logging.getLogger(__name__)


PRESETS = {
    "images": GenerationConfig(
        workdir="runs/image_generation",
        data=GenerationDataConfig(binarization="none"),
        model=DrawConfig(
            num_glimpses=24, hidden_size=200, latent_size=24, read_size=5, write_size=5,
            likelihood="discretized_logistic",
        ),
        train=TrainConfig(
            steps=2_500, batch_size=64, learning_rate=2e-3, decay_fraction=0.5, ema_decay=0.995,
            eval_every=500,
        ),
    ),
}  # fmt: skip
_PLAIN = PRESETS["images"]
_SHARP = dataclasses.replace(  # of black and white
    _PLAIN,
    data=dataclasses.replace(_PLAIN.data, binarization="dynamic"),
    model=dataclasses.replace(_PLAIN.model, likelihood="bernoulli"),
)


def fitted(
    images: ImageSet, config: GenerationConfig, *, sharp: bool | None = None
) -> GenerationConfig:
    """A config whose model, likelihood, batch and steps suit a set of images.

    Args:
      images: the set.
      config: what is replaced where something else suits the set better.
      sharp: whether to take the images as black and white; None: as they look.
    """
    height, width, channels = data.seen_shape(config.data, images)
    side, count = max(height, width), len(images.train)
    if sharp is None:
        sharp = channels == 1 and _is_black_and_white(images)
    window = 5 if side <= 32 else 8 if side <= 48 else 12
    model = dataclasses.replace(
        config.model,
        latent_size=24 if channels == 1 else 48,
        read_size=min(window, side),
        write_size=min(window, side),
        likelihood="bernoulli" if sharp else "discretized_logistic",
    )
    if side > 32:
        model = dataclasses.replace(model, num_glimpses=32, hidden_size=300)
    batch = min(config.train.batch_size, max(1, count // 2))
    train = dataclasses.replace(config.train, batch_size=batch)
    _log.info(
        "%s: %s training images of %dx%d in %s, %s; likelihood %s, %d steps of %d images, %d "
        "glimpses of %dx%d; flags replace each choice",
        images.name, f"{count:,}", width, height, "gray" if channels == 1 else "color",
        "black and white, binarized by intensity" if sharp else "intensities as they are",
        model.likelihood, train.steps, batch, model.num_glimpses, model.read_size, model.write_size,
    )  # fmt: skip
    form = dataclasses.replace(config.data, binarization="dynamic" if sharp else "none")
    return dataclasses.replace(config, data=form, model=model, train=train)


def run(argv: Sequence[str] | None = None) -> NoReturn:
    """The command line; ends the process."""
    cli.main(lambda: _presets(argv), description=__doc__, argv=argv)


def _presets(argv: Sequence[str] | None) -> dict[str, GenerationConfig]:
    """`PRESETS`, fitted to the images that flags name."""
    (config, options), sharp = _asked(argv)
    if config.mode != "train":  # the run's folder says how it was trained
        return {"images": _SHARP} if sharp else PRESETS
    if config.data.name is None and config.data.folder is None:
        raise ValueError("which images? give --data.folder FOLDER or --data.name SET")
    if swept := _FORM & options.swept:
        raise ValueError(
            f"--sweep {min(swept)}: a model is fitted to one form of the images; start a run for "
            "each value"
        )
    size = config.data.size or _size(config.data.folder, config.data.crop)
    form = dataclasses.replace(config.data, size=size, binarization="none")
    base = dataclasses.replace(_PLAIN, data=form)
    return {"images": fitted(data.load(None, form), base, sharp=sharp)}


def _asked(
    argv: Sequence[str] | None,
) -> tuple[tuple[GenerationConfig, cli.Options], bool | None]:
    """What flags say, and whether the images are to be black and white; None: as they look."""
    how = {"description": __doc__, "options": cli.Options()}
    if not {"data.binarization", "model.likelihood"} & cli.given(argv):
        return cli.parse(PRESETS, argv, **how), None
    with contextlib.suppress(ValueError):
        return cli.parse(PRESETS, argv, **how, raises=True), False
    return cli.parse({"images": _SHARP}, argv, **how), True


def _size(folder: str | None, crop: int | None = None) -> int | None:
    """What a folder's pictures have to be cut and shrunk to; None: nothing, or pieces do."""
    if folder is None:
        return None
    from drawjax.data.picture_folder import (
        picture_sizes,  # imports TFDS, which `--help` need not wait for
    )

    sizes = picture_sizes(folder)
    (width, height) = max(sizes, default=(0, 0))
    if len(sizes) < 2 and (crop is not None or max(width, height) <= _LARGEST):
        return None
    side = max(_SIDE, crop or 0)
    _log.info(
        "%s pictures of %s: the middle square of each, %d x %d pixels (--data.size)",
        folder, f"{width} x {height}" if len(sizes) == 1 else "several sizes", side, side,
    )  # fmt: skip
    return side


def _is_black_and_white(images: ImageSet) -> bool:
    """Whether nearly all pixels are near black or white, as of scanned letters or MNIST."""
    batch, _ = next(data.eval_batches(images.train, batch_size=min(_LOOKED_AT, len(images.train))))
    pixels = np.asarray(batch["image"])
    return float(np.mean((pixels < 32) | (pixels > 223))) > 0.85


if __name__ == "__main__":
    run()
