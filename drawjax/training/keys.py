"""What is drawn from which key: one stream for each purpose, split once from a run's seed."""

from typing import NamedTuple

import jax

__all__ = ["IMPLEMENTATION", "Streams", "streams"]

# Named, since JAX_DEFAULT_PRNG_IMPL would otherwise change every number of a run, and that of an
# evaluation with its batch size. The values of "rbg" under vmap depend on the batch.
IMPLEMENTATION = "threefry2x32"


class Streams(NamedTuple):
    """PRNG keys of a run, by purpose. The order of the data comes from the seed itself."""

    params: jax.Array  #: initial parameters
    noise: jax.Array  #: training; folded with the step
    evaluation: jax.Array  #: folded with the number of an image; experiments take that of seed 0
    figures: jax.Array  #: samples that are shown


def streams(seed: int | jax.Array) -> Streams:
    """The keys of the run with this seed; the seed may be traced."""
    key = jax.random.key(seed, impl=IMPLEMENTATION)
    return Streams(*jax.random.split(key, len(Streams._fields)))
