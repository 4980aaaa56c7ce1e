"""`drawjax models`: the models that come with the package, and how good they are."""

import dataclasses
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
    test = known["provenance"].get("test") or {}
    for name, of_error, digits, unit in (
        ("error", "standard_error", 2, "% wrong"),
        ("bits_per_dimension", "bits_per_dimension_standard_error", 3, "bits per dimension"),
        ("loss", "standard_error", 2, "nats"),
    ):
        value, error = test.get(name), test.get(of_error)
        # The error of a single image, and a loss that is not finite, are null.
        if value is not None and error is not None:
            return f"{value:,.{digits}f} +- {error:.{digits}f} {unit}"
    return "not measured"


if __name__ == "__main__":
    cli.command(list_models, ListingConfig(), description=DESCRIPTION)
