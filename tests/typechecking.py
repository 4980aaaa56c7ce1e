"""Checks of annotated shapes at run time."""

from beartype import beartype


def check(function):
    """Checks calls of a function; `tests/conftest.py` puts it on those of the maths.

    Dataclasses are left out: JAX fills them with shapes, tracers and whole trees as well.
    """
    is_dataclass = function.__qualname__.endswith("__init__") or function.__name__.startswith("__")
    return function if is_dataclass else beartype(function)
