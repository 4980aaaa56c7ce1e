"""What is drawn from which key: one stream for each purpose, split once from a run's seed."""

from typing import NamedTuple

import jax

__all__ = ["Streams", "streams"]


class Streams(NamedTuple):
    """PRNG keys of a run, by purpose. The order of the data comes from the seed itself."""

    params: jax.Array  #: initial parameters
    noise: jax.Array  #: training; folded with the step
    evaluation: jax.Array  #: folded with the number of an image; the recipes take that of seed 0
    figures: jax.Array  #: samples that are shown


def streams(seed: int | jax.Array) -> Streams:
    """The keys of the run with this seed; the seed may be traced."""
    return Streams(*jax.random.split(jax.random.key(seed), len(Streams._fields)))
