"""A model's card, README.md: what it is, how to load it, how good it is, where it comes from."""

import json
import re
from collections.abc import Mapping
from typing import Any

_CARD = """---
{head}
---

# {title}

A recurrent network with attention (Gregor et al., 2015) for the JAX library drawjax, on images
of {shape}. Test: {figure}.

```python
import drawjax

model = drawjax.load_pretrained("OWNER/NAME")  # as a hub calls it; or this file's folder
```

Where it comes from:

```json
{provenance}
```
"""


def card(known: Mapping[str, Any]) -> str:
    """The text for a model of this config.json; its head is what hubs read."""
    provenance, found = known["provenance"], _measured(known)
    title, task = {
        "draw": ("DRAW", "unconditional-image-generation"),
        "ram": ("Differentiable RAM", "image-classification"),
    }[known["kind"]]
    head: dict[str, Any] = {
        "library_name": "drawjax",
        "pipeline_tag": task,
        "tags": ["jax", "draw"],
    }
    data, license = str(provenance.get("data")), provenance.get("license")
    if license:
        head["license"] = license
    if "data" in provenance and re.fullmatch(r"[\w.-]+(/[\w.-]+)?", data):  # as hubs name sets
        head["datasets"] = [data]
        if found:
            metric = {"type": found[3].replace(" ", "_"), "value": found[0]}
            result = {"task": {"type": task}, "dataset": {"type": data, "name": data}}
            head["model-index"] = [{"name": title, "results": [{**result, "metrics": [metric]}]}]
    return _CARD.format(
        head="\n".join(f"{name}: {json.dumps(value)}" for name, value in head.items()),  # is YAML
        title=title,
        shape=" x ".join(map(str, known["image_shape"])),
        figure=figure(known),
        provenance=json.dumps(provenance, indent=2),
    )


def figure(known: Mapping[str, Any]) -> str:
    """What a description of a model says of the test set, with its standard error."""
    if (found := _measured(known)) is None:
        return "not measured"
    value, error, digits, unit = found
    return f"{value:,.{digits}f} +- {error:.{digits}f} {unit}"


def _measured(known: Mapping[str, Any]) -> tuple[float, float, int, str] | None:
    provenance = known["provenance"]
    # Of the paper's own binarization, where a model was trained on others and tested on both.
    test = provenance.get("fixed_test", provenance.get("test"))
    for name, of_error, digits, unit in (
        ("error", "standard_error", 2, "% wrong"),
        ("bits_per_dimension", "bits_per_dimension_standard_error", 3, "bits per dimension"),
        ("loss", "standard_error", 2, "nats"),
    ):
        value, error = (test.get(name), test.get(of_error)) if isinstance(test, dict) else (0, None)
        # The error of a single image, and a loss that is not finite, are null.
        if isinstance(value, int | float) and isinstance(error, int | float):
            return value, error, digits, unit
    return None
