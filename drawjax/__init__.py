"""DRAW (Gregor et al. 2015) in JAX: a recurrent network that draws images with attention.

`import drawjax.attention` is the glimpse operation on its own and loads nothing but JAX.
"""

from typing import Any

__all__ = ["load_pretrained"]


def load_pretrained(name: str) -> Any:
    """A trained model that comes with the package; see `drawjax.pretrained.load`."""
    from drawjax import pretrained  # loads Flax, which the glimpse operation does without

    return pretrained.load(name)
