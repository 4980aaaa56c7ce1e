"""`drawjax models`: the models that come with the package, and how good they are."""

import dataclasses

from drawjax import cli, pretrained
from drawjax.config import Checked
from drawjax.pretrained.card import figure


@dataclasses.dataclass(frozen=True)
class ListingConfig(Checked):
    """What to list: all there are."""


DESCRIPTION = "Lists the models that come with the package: what they draw or name, how well."


def list_models(config: ListingConfig) -> None:
    """Prints a line per model."""
    del config
    rows = [("model", "images", "trained on", "test")]
    for name in pretrained.available():
        known = pretrained.describe(pretrained.FOLDER / name)
        shape = "x".join(map(str, known["image_shape"]))
        rows.append((name, shape, str(known["provenance"].get("data", "")), figure(known)))
    print(cli.aligned(rows))


if __name__ == "__main__":
    cli.command(list_models, ListingConfig(), description=DESCRIPTION)
