"""Pictures as sellers send them: found by name, decoded to RGB. What is wrong with one is a word, never a crash."""

import io
import os
import re
import warnings
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from PIL import Image, ImageOps

from rakuten.cli import progress
from rakuten.compute import parallel_map
from rakuten.data.schema import image_name
from rakuten.files import is_local

# Formats that sellers use and Pillow reads by itself; EPS, say, would start another program.
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF")
MAX_PIXELS = 50_000_000  # a phone's largest photograph; decoded it takes 150 MB
MAX_BYTES = 100_000_000
TINY_SIDE = 16  # pixels: a side below it is a placeholder rather than a picture
ORIENTATION_TAG = 0x0112  # EXIF tag
CHUNK_FILES = 500  # files per task
NAME_PATTERN = re.compile(r"image_(0|[1-9][0-9]{0,17})_product_(0|[1-9][0-9]{0,17})\.jpg")


class BadImageError(Exception):
    """A picture that cannot be used; the message is one of a few words that are counted."""


class ImageCheck(NamedTuple):
    """What is known of a picture file: why it cannot be used ("" if it can), and what is unusual about it."""

    error: str
    unusual: tuple[str, ...]


class ImageFiles(Mapping[str, Path]):
    """Every file under a folder by its name, that of the first folder where two share one.

    There may be millions, so each takes 20 bytes of memory. That holds for names as `catalog.picture_name`
    makes them; others are kept as they are.
    """

    def __init__(self, folder: Path) -> None:
        ids, place, self._folders = array("q"), array("i"), []
        self._others: dict[str, Path] = {}
        for at, (where, names) in enumerate(_walk(folder)):
            self._folders.append(where)
            for name in names:
                if known := NAME_PATTERN.fullmatch(name):
                    ids.extend((int(known[1]), int(known[2])))
                    place.append(at)
                else:
                    self._others.setdefault(name, where / name)
        pairs, folders = np.array(ids, dtype=np.int64).reshape(-1, 2), np.array(place, dtype=np.int32)
        order = np.lexsort((folders, pairs[:, 1], pairs[:, 0]))
        pairs, folders = pairs[order], folders[order]
        # The first folder in path order has it, where two hold files of one name.
        first = np.append(True, (np.diff(pairs, axis=0) != 0).any(axis=1))[: len(pairs)]
        self._others = dict(sorted(self._others.items()))
        self._other_places = {name: at for at, name in enumerate(self._others)}
        self._imageid, self._productid, self._place = pairs[first, 0], pairs[first, 1], folders[first]

    def __getitem__(self, name: str) -> Path:
        at = self.position(name)
        return self._folders[self._place[at]] / name if at < len(self._place) else self._others[name]

    def __iter__(self) -> Iterator[str]:
        for image, product in zip(self._imageid, self._productid, strict=True):
            yield image_name(image, product)
        yield from self._others

    def __len__(self) -> int:
        return len(self._imageid) + len(self._others)

    def position(self, name: str) -> int:
        """The place of a name in the order of iteration."""
        known = NAME_PATTERN.fullmatch(name)
        if not known:
            return len(self._imageid) + self._other_places[name]
        image, product = int(known[1]), int(known[2])
        start, end = (int(np.searchsorted(self._imageid, image, side)) for side in ("left", "right"))
        at = start + int(np.searchsorted(self._productid[start:end], product))
        if at == end or self._productid[at] != product:
            raise KeyError(name)
        return at


def _walk(folder: Path) -> Iterator[tuple[Path, Iterable[str]]]:
    """Every folder below a folder, itself first, in path order, and the names of its files."""
    if not is_local(folder):  # on a store that fsspec knows
        for where, folders, files in folder.fs.walk(folder.path):  # type: ignore[attr-defined]
            folders.sort()
            yield folder.joinpath(where.removeprefix(folder.path).lstrip("/")), files  # type: ignore[attr-defined]
        return
    try:
        entries = os.scandir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return
    below: list[str] = []

    def names() -> Iterator[str]:
        with entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    below.append(entry.name)
                else:
                    yield entry.name

    yield folder, names()
    for name in sorted(below):
        yield from _walk(folder / name)


def image_paths(products: pd.DataFrame, files: Mapping[str, Path]) -> list[Path | None]:
    """The image of each product; None where it has none that can be used.

    Args:
        products: imageid, productid, has_image; all str.
        files: image files by name.
    """
    names = (image_name(*ids) for ids in zip(products["imageid"], products["productid"], strict=True))
    usable = products["has_image"] == "True"
    return [files.get(name) if has_image else None for name, has_image in zip(names, usable, strict=True)]


def decode(data: bytes, min_side: int | None = None) -> Image.Image:
    """RGB picture, upright, on white where it was transparent, the first frame where it moves.

    Args:
        data: the file's bytes.
        min_side: pixels that are enough in each direction; a larger JPEG is then decoded at a half, a
            quarter or an eighth of its size, which is faster.

    Raises:
        BadPictureError: empty, not an image, too large, truncated or broken.
    """
    try:
        image = _open(data)
        if min_side is not None:
            image.draft("RGB", (min_side, min_side))
        return _to_rgb(_upright(image))
    except BadImageError:
        raise
    except Exception as error:  # Pillow's decoders raise whatever a broken file leads them into
        raise BadImageError("truncated" if "truncated" in str(error).lower() else "broken") from error


def check_image(path: Path) -> ImageCheck:
    """Decode a picture file to know whether it can be used."""
    try:
        data = read_image_bytes(path)
        image = _open(data)
        unusual = tuple(_unusual_properties(image))
        decode(data, min_side=1)  # a JPEG's whole stream is still read
    except BadImageError as error:
        return ImageCheck(str(error), ())
    return ImageCheck("", unusual)


def read_image_bytes(path: Path) -> bytes:
    """The file's bytes.

    Raises:
        BadPictureError: it cannot be read, or is larger than any picture should be.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise BadImageError("too large")
        return path.read_bytes()
    except OSError as error:
        raise BadImageError("unreadable") from error


class ImageChecks(Mapping[str, str]):
    """What is wrong with each file of a picture folder, by its name, "" where nothing is; a byte each."""

    def __init__(self, files: ImageFiles, found: Iterable[ImageCheck]) -> None:
        self._files = files
        self._words = [""]
        self.unusual = Counter[str]()
        self._bad = np.zeros(len(files), dtype=np.uint8)
        for at, (bad, unusual) in enumerate(found):
            if bad not in self._words:
                self._words.append(bad)
            self._bad[at] = self._words.index(bad)
            self.unusual.update(unusual)

    def __getitem__(self, name: str) -> str:
        return self._words[int(self._bad[self._files.position(name)])]

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

    def errors(self) -> dict[str, int]:
        """How many files are wrong in each way."""
        many = np.bincount(self._bad, minlength=len(self._words)).tolist()
        return dict(sorted(zip(self._words[1:], many[1:], strict=True)))


def check_images(files: ImageFiles) -> ImageChecks:
    """Inspect every file, on all cores."""
    return ImageChecks(
        files, progress(parallel_map(check_image, files.values(), CHUNK_FILES), len(files), "checking pictures")
    )


def count_words(words: Sequence[str]) -> dict[str, int]:
    """How often each word stands, "" left out, in alphabetical order."""
    return dict(sorted(Counter(word for word in words if word).items()))


def _open(data: bytes) -> Image.Image:
    if not data:
        raise BadImageError("empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            warnings.simplefilter("ignore", UserWarning)  # odd metadata is no reason to refuse a picture
            image = Image.open(io.BytesIO(data), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadImageError("too large") from error
    except Exception as error:
        raise BadImageError("not an image") from error
    if image.width * image.height > MAX_PIXELS:
        raise BadImageError("too large")
    return image


def _unusual_properties(image: Image.Image) -> list[str]:
    found = {
        "CMYK": image.mode == "CMYK",
        "grayscale": image.mode in ("1", "L", "LA"),
        "palette": image.mode == "P",
        "16-bit": image.mode.startswith(("I", "F")),
        "transparent": image.mode in ("LA", "RGBA", "PA") or "transparency" in image.info,
        "animated": getattr(image, "is_animated", False) and image.format != "MPO",
        "rotated by EXIF": _orientation(image) > 1,
        "tiny": min(image.size) < TINY_SIDE,
        "not a JPEG": image.format not in ("JPEG", "MPO"),
    }
    return [name for name, there in found.items() if there]


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ORIENTATION_TAG, 1))
    except Exception:  # broken EXIF says nothing about the picture
        return 1


def _upright(image: Image.Image) -> Image.Image:
    return ImageOps.exif_transpose(image) if _orientation(image) > 1 else image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        image = _to_8_bit(image)
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _to_8_bit(image: Image.Image) -> Image.Image:
    """Sixteen bits lose the lower eight; other ranges (32-bit, float) are stretched over 0 to 255."""
    values = np.nan_to_num(np.asarray(image).astype(np.float64))
    low, high = (0.0, 65535.0) if image.mode.startswith("I;16") else (float(values.min()), float(values.max()))
    return Image.fromarray(((values - low) * 255 / max(high - low, 1)).clip(0, 255).astype(np.uint8))
