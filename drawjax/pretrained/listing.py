"""`drawjax models`: the models that come with the package, and how good they are."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from drawjax import cli, pretrained

__all__ = ["ListingConfig", "figure", "list_models"]


@dataclasses.dataclass(frozen=True)
class ListingConfig:
    """What to list: all there are."""


DESCRIPTION = "Lists the models that come with the package: what they draw or name, how well."


def list_models(config: ListingConfig) -> None:
    """Prints a line a model."""
    del config
    rows = [("model", "images", "trained on", "test")]
    for name in pretrained.available():
        known = pretrained.describe(name)
        shape = "x".join(map(str, known["image_shape"]))
        rows.append((name, shape, str(known["provenance"].get("data", "")), figure(known)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print(
            "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        )


def figure(known: Mapping[str, Any]) -> str:
    """What a description of a model says of the test set, with its standard error."""
    test = known["provenance"].get("test")
    if not test:
        return "not measured"
    if "error" in test:
        return f"{test['error']:.2f} +- {test['standard_error']:.2f} % wrong"
    if "bits_per_dimension" in test:
        error = test["bits_per_dimension_standard_error"]
        return f"{test['bits_per_dimension']:.3f} +- {error:.3f} bits per dimension"
    digits = 2 if math.isfinite(test["loss"]) else 0
    return f"{test['loss']:,.{digits}f} +- {test['standard_error']:.2f} nats"


if __name__ == "__main__":
    cli.command(list_models, ListingConfig(), description=DESCRIPTION)
