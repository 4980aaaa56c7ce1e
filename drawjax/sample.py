"""Draws with a pretrained model: `python -m drawjax.sample --model mnist --num 64`."""

import argparse
import pathlib
import sys
from collections.abc import Sequence

import jax
import numpy as np

from drawjax import figures, pretrained
from drawjax.modules import Draw
from drawjax.pipes import readers_may_leave

__all__ = ["main"]


@readers_may_leave()
def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m drawjax.sample",
        description="Draws a grid of images with a pretrained model. Needs no data set.",
    )
    parser.add_argument("--model", default="mnist", help="a pretrained model (default: mnist)")
    parser.add_argument("--num", type=int, default=64, help="how many images (default: 64)")
    parser.add_argument("--seed", type=int, default=0, help="of the noise (default: 0)")
    parser.add_argument("--out", default="samples.png", help="PNG to write (default: samples.png)")
    parser.add_argument("--gif", help="also write the drawing, step by step, as a GIF")
    arguments = parser.parse_args(argv)
    try:
        model = pretrained.load(arguments.model)
        if not isinstance(model, Draw):
            raise ValueError(f"{arguments.model} names classes; it draws nothing")
        output = model.generate(arguments.num, key=jax.random.key(arguments.seed))
        means = np.asarray(jax.nn.sigmoid(output.canvases))
        figures.save_grid(pathlib.Path(arguments.out), means[-1])
        if arguments.gif:
            windows = jax.tree.map(np.asarray, output.write_windows)
            size = model.config.write_size
            figures.save_animation(pathlib.Path(arguments.gif), means, windows, patch_size=size)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(arguments.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
