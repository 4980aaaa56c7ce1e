"""SVHN full numbers, cropped as Goodfellow et al. (2013) do: the set of Sec. 4.4.

`python -m drawjax.data.prepare svhn_numbers` downloads the archives (2.6 GB) and writes the set,
or takes archives that were fetched by hand from `--manual-dir`. TensorFlow is not needed. SVHN
(Netzer et al. 2011) is for non-commercial use only.

Crop: the smallest box around all digits, made 30 % wider and 30 % higher about its center (15 % on
each side), rounded to whole pixels, cut off at the image's edges, and resized to 64x64 pixels with
PIL's bilinear filter, which averages when it shrinks.

Splits: test is test.tar.gz. The numbers of train.tar.gz (33,402) and extra.tar.gz (202,353), but
for the one with six digits, are 235,754, which is what Gregor et al. report together: 231,053 for
training and 4,701 for validation. Which ones they held out is not published; Goodfellow et al. go
back to Sermanet et al. (2012), who take two thirds of the validation set from train and one third
from extra. So do we: 3,134 of train's 33,401 and 1,567 of extra's 202,353, the ones whose names
("train/1.png") have the smallest MD5 sums. Of archives with other numbers of images the same shares
are held out, and at least one. Without extra.tar.gz that leaves 30,267 for training and 3,134 for
validation.
"""

import collections
import hashlib
import io
import logging
import pathlib
import urllib.request
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image, UnidentifiedImageError

from drawjax.data.svhn_archive import Number, read_images, read_numbers

__all__ = ["SIZE", "SvhnNumbers", "crop", "held_out"]

SIZE = 64  # pixels, the side of an image

_MOST_DIGITS = 5
_GROWTH = 0.3
_HELD_OUT = {"train": (3_134, 33_401), "extra": (1_567, 202_353)}  # of how many

_log = logging.getLogger(__name__)


def crop(image: Image.Image, boxes: np.ndarray) -> Image.Image | None:
    """Cuts a house number out of its image.

    Args:
      image: of any size and mode.
      boxes: `[digits, 4]`, left, top, width and height of at least one digit, in pixels from the
        image's corner. They may reach outside the image.

    Returns:
      The number, 64x64 pixels in color; None if the digits lie outside the image.
    """
    first, last = boxes[:, :2].min(axis=0), (boxes[:, :2] + boxes[:, 2:]).max(axis=0)
    if not np.all(np.minimum(last, image.size) > np.maximum(first, 0)):  # nor if one is NaN
        return None
    margin = (last - first) * _GROWTH / 2
    start = np.maximum(np.rint(first - margin), 0)
    stop = np.minimum(np.rint(last + margin), image.size)
    if not np.all(stop > start):  # less than half a pixel
        return None
    cut = image.crop((*start.astype(int), *stop.astype(int))).convert("RGB")
    return cut.resize((SIZE, SIZE), Image.Resampling.BILINEAR)


def held_out(archive: str, names: Iterable[str]) -> set[str]:
    """The images of an archive that are for validation, by the rule at the head of this file.

    Args:
      archive: `train` or `extra`.
      names: file names of the images to choose from.
    """
    by_hash = sorted(names, key=lambda name: hashlib.md5(f"{archive}/{name}".encode()).digest())
    part, whole = _HELD_OUT[archive]
    return set(by_hash[: max(1, round(len(by_hash) * part / whole))])


class SvhnNumbers(tfds.core.GeneratorBasedBuilder):
    """Builds the TFDS set `svhn_numbers`."""

    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = "train.tar.gz, test.tar.gz and, if it is available, extra.tar.gz"
    URL = "http://ufldl.stanford.edu/housenumbers/"

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=__doc__,
            homepage=self.URL,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(SIZE, SIZE, 3), encoding_format="png"),
                    "digits": tfds.features.Sequence(tfds.features.ClassLabel(num_classes=10)),
                    "id": tfds.features.Text(),
                }
            ),
            metadata=tfds.core.MetadataDict(notes=[]),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        archives = self._archives(dl_manager)
        usable = {name: self._usable(name, path) for name, path in archives.items()}
        validation = {
            name: held_out(name, numbers) for name, numbers in usable.items() if name != "test"
        }
        parts: dict[str, list] = {"train": [], "validation": [], "test": []}
        for name, numbers in usable.items():
            chosen = validation.get(name, set())
            rest = {key: number for key, number in numbers.items() if key not in chosen}
            if name == "test":
                parts["test"].append((name, archives[name], rest))
            else:
                held = {key: numbers[key] for key in chosen}
                parts["train"].append((name, archives[name], rest))
                parts["validation"].append((name, archives[name], held))
        return {split: self._generate_examples(split, part) for split, part in parts.items()}

    def _archives(self, dl_manager: tfds.download.DownloadManager) -> dict[str, pathlib.Path]:
        try:
            folder = pathlib.Path(dl_manager.manual_dir)
        except AssertionError:  # there is none, or it is empty
            urls = {name: f"{self.URL}{name}.tar.gz" for name in ("train", "test", "extra")}
            self._check_reachable(urls["train"])
            paths: Any = dl_manager.download(urls)
            # No checksums are published; gzip's own are checked as the archives are read.
            return {name: pathlib.Path(path) for name, path in paths.items()}
        archives = {name: folder / f"{name}.tar.gz" for name in ("train", "test", "extra")}
        for name in ("train", "test"):
            if not archives[name].is_file():
                raise FileNotFoundError(f"there is no {name}.tar.gz in {folder}")
        if not archives["extra"].is_file():
            del archives["extra"]
            self._note("SVHN is prepared without extra.tar.gz, most of its training images.")
        return archives

    def _check_reachable(self, url: str) -> None:
        # TFDS tries again and again for minutes, silently, before it gives up.
        try:
            request = urllib.request.Request(url, method="HEAD")
            urllib.request.urlopen(request, timeout=30).close()
        except OSError as error:
            raise OSError(
                f"cannot download {url} ({error}); fetch {self.MANUAL_DOWNLOAD_INSTRUCTIONS} by "
                "hand and name their folder with --manual-dir"
            ) from error

    def _usable(self, archive: str, path: pathlib.Path) -> dict[str, Number]:
        """The numbers that can be used, as far as can be told without their images."""
        numbers, images = read_numbers(path)
        usable, skipped = {}, collections.defaultdict(list)
        for number in numbers:
            if number.name not in images:
                skipped["not in the archive"].append(number.name)
            elif not number.digits:
                skipped["without digits"].append(number.name)
            elif len(number.digits) > _MOST_DIGITS and archive != "test":
                skipped[f"with more than {_MOST_DIGITS} digits"].append(number.name)
            else:
                usable[number.name] = number
        self._report(archive, skipped)
        if not usable:
            raise ValueError(f"{path} holds no number that can be used")
        return usable

    def _generate_examples(
        self, split: str, parts: list[tuple[str, pathlib.Path, dict[str, Number]]]
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        count = 0
        for archive, path, numbers in parts:
            skipped = collections.defaultdict(list)
            for name, data in read_images(path):
                number = numbers.get(name)
                if number is None:
                    continue
                try:
                    image = crop(Image.open(io.BytesIO(data)), number.boxes)
                except (UnidentifiedImageError, OSError, SyntaxError) as error:  # PIL's, for a PNG
                    skipped["that cannot be decoded"].append(name)
                    _log.debug("%s: %s in %s", error, name, path)
                    continue
                if image is None:
                    skipped["with digits outside the image"].append(name)
                    continue
                png = io.BytesIO()
                image.save(png, "png")
                key = f"{archive}/{name}"
                count += 1
                yield key, {"image": png.getvalue(), "digits": number.digits, "id": key}
            self._report(archive, skipped)
        if not count:
            paths = ", ".join(str(path) for _, path, _ in parts)
            raise ValueError(f"no image of {paths} can be used for {split}")

    def _report(self, archive: str, skipped: dict[str, list[str]]) -> None:
        for reason, names in skipped.items():
            shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
            self._note(f"SVHN, {archive}.tar.gz: left out {len(names):,} {reason} ({shown}).")

    def _note(self, text: str) -> None:
        """Tells the user, and every later reader of the prepared set: see `sources.load`."""
        _log.warning("%s", text)
        metadata: Any = self.info.metadata
        metadata["notes"].append(text)
