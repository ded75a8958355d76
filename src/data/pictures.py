"""Pictures as sellers send them: found by name, decoded to RGB. What is wrong with one is a word, never a crash."""

import io
import os
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from joblib import Parallel, delayed
from PIL import Image, ImageOps

from src.cli import progress

# Formats that sellers use and Pillow reads by itself; EPS, say, would start another program.
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF")
MAX_PIXELS = 50_000_000  # a phone's largest photograph; decoded it takes 150 MB
MAX_BYTES = 100_000_000
TINY = 16  # pixels: a side below it is a placeholder rather than a picture
ORIENTATION = 0x0112  # EXIF tag
BATCH = 500  # files per task


class BadPictureError(Exception):
    """A picture that cannot be used; the message is one of a few words that are counted."""


class Inspection(NamedTuple):
    """What is known of a picture file: why it cannot be used ("" if it can), and what is unusual about it."""

    bad: str
    unusual: tuple[str, ...]


def picture_files(folder: Path) -> dict[str, Path]:
    """Every file under a picture folder by its name, the first in path order where two share one."""
    found = sorted(Path(place, name) for place, _, names in os.walk(folder) for name in names)
    return {path.name: path for path in reversed(found)}


def decode(data: bytes, at_least: int | None = None) -> Image.Image:
    """RGB picture, upright, on white where it was transparent, the first frame where it moves.

    Args:
        data: the file's bytes.
        at_least: pixels that are enough each way; a larger JPEG is then decoded at a half, a
            quarter or an eighth of its size, which is faster.

    Raises:
        BadPictureError: empty, not an image, too large, truncated or broken.
    """
    try:
        image = _open(data)
        if at_least is not None:
            image.draft("RGB", (at_least, at_least))
        return _to_rgb(_upright(image))
    except BadPictureError:
        raise
    except Exception as error:  # Pillow's decoders raise whatever a broken file leads them into
        raise BadPictureError("truncated" if "truncated" in str(error).lower() else "broken") from error


def inspect(path: Path) -> Inspection:
    """Decode a picture file to know whether it can be used."""
    try:
        data = read(path)
        image = _open(data)
        unusual = tuple(_unusual(image))
        decode(data, at_least=1)  # a JPEG's whole stream is still read
    except BadPictureError as error:
        return Inspection(str(error), ())
    return Inspection("", unusual)


def read(path: Path) -> bytes:
    """The file's bytes.

    Raises:
        BadPictureError: it cannot be read, or is larger than any picture should be.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise BadPictureError("too large")
        return path.read_bytes()
    except OSError as error:
        raise BadPictureError("unreadable") from error


def inspect_all(paths: Sequence[Path]) -> dict[str, Inspection]:
    """Inspect the files on all cores; what was found, by file name."""
    starts = range(0, len(paths), BATCH)
    tasks = (delayed(_inspect_batch)(paths[at : at + BATCH]) for at in starts)
    workers = Parallel(n_jobs=-1 if len(starts) > 1 else 1, return_as="generator")
    batches = progress(workers(tasks), len(starts), "checking pictures")
    found = [inspection for batch in batches for inspection in batch]
    return {path.name: inspection for path, inspection in zip(paths, found, strict=True)}


def _inspect_batch(paths: Sequence[Path]) -> list[Inspection]:
    return [inspect(path) for path in paths]


def counts(words: Sequence[str]) -> dict[str, int]:
    """How often each word stands, "" left out, in alphabetical order."""
    return dict(sorted(Counter(word for word in words if word).items()))


def _open(data: bytes) -> Image.Image:
    if not data:
        raise BadPictureError("empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            warnings.simplefilter("ignore", UserWarning)  # odd metadata is no reason to refuse a picture
            image = Image.open(io.BytesIO(data), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadPictureError("too large") from error
    except Exception as error:
        raise BadPictureError("not an image") from error
    if image.width * image.height > MAX_PIXELS:
        raise BadPictureError("too large")
    return image


def _unusual(image: Image.Image) -> list[str]:
    found = {
        "CMYK": image.mode == "CMYK",
        "grayscale": image.mode in ("1", "L", "LA"),
        "palette": image.mode == "P",
        "16-bit": image.mode.startswith(("I", "F")),
        "transparent": image.mode in ("LA", "RGBA", "PA") or "transparency" in image.info,
        "animated": getattr(image, "is_animated", False) and image.format != "MPO",
        "rotated by EXIF": _orientation(image) > 1,
        "tiny": min(image.size) < TINY,
        "not a JPEG": image.format not in ("JPEG", "MPO"),
    }
    return [name for name, there in found.items() if there]


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ORIENTATION, 1))
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
