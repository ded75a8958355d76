"""Image files to RGB, within a budget of pixels: what would take too long or too much memory is not decoded.

What makes an image unusable ("missing", "truncated", ...) is reported as a short text, which is counted per table.
"""

import io
import struct
import warnings

import numpy as np
from PIL import Image

# Formats that sellers send. Others are not even opened: the header of a TIFF can take seconds, and for EPS Pillow would
# start another program.
JPEG_FORMATS = ("JPEG", "MPO")
FORMATS = ("JPEG", "PNG", "GIF", "WEBP")
# The largest photographs of phones, as JPEG, which is decoded at up to an eighth of its size. Other formats must be
# decoded whole: 16 million pixels with transparency take 64 MB, three times.
MAX_PIXELS = {True: 50_000_000, False: 16_000_000}  # by whether it is a JPEG
MAX_SCANS = 50  # of a JPEG; encoders make about ten
CHEAP_PIXELS = 6_000_000  # times scans: so many take less than 100 ms
CHEAP_BYTES = 600_000  # Pillow reads a file chunk by chunk, of which each has twelve bytes at least
MAX_JPEG_SEGMENTS = 64  # before the first scan
JPEG_SCAN = 0xFFDA  # marker of the beginning of a scan
JPEG_FRAMES = {0xFFC0, 0xFFC1, 0xFFC2}  # markers of the segment with the size: baseline, extended, progressive
TINY_SIDE = 16  # pixels: an image with a shorter side is probably a placeholder
PNG_START = b"\x89PNG\r\n\x1a\n"
MAX_PNG_CHUNKS = 20_000  # that are looked at one by one; encoders make one for every 8 kB or more
PNG_CHUNKS_KEPT = (b"tRNS", b"eXIf")  # of those that a decoder may skip: the ones that change the pixels
ORIENTATION_TAG = 0x0112  # EXIF tag
TRANSPOSE_BY_ORIENTATION = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SIXTEEN_TO_EIGHT_BITS = (np.arange(65_536) * 255 // 65_535).astype(np.uint8)


class BadImageError(Exception):
    """An image cannot be used. The message is one of a few short texts, so that errors can be counted by message."""


def decode(data: bytes, min_side: int | None = None) -> Image.Image:
    """Decode an image to RGB: rotated as its EXIF tag says, on a white background, the first frame of an animation.

    Args:
        data: the file's bytes.
        min_side: pixels that suffice in each direction; a larger JPEG is then decoded at 1/2, 1/4 or 1/8 of its
            size, which is faster.

    Raises:
        BadImageError: empty, not an image, too large, truncated or broken.
    """
    try:
        image = open_image(data)
        if min_side is not None:
            image.draft("RGB", (min_side, min_side))
        return _to_rgb(_apply_orientation(image))
    except BadImageError:
        raise
    except MemoryError as error:
        raise BadImageError("too large") from error
    except Exception as error:  # a broken file can make Pillow's decoders raise any exception
        raise BadImageError("truncated" if "truncated" in str(error).lower() else "broken") from error


def costs_little(data: bytes) -> bool:
    """Whether decoding an image file surely takes milliseconds, judged by its header, without Pillow."""
    if len(data) > CHEAP_BYTES:
        return False
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        width, height = struct.unpack(">II", data[16:24].ljust(8, b"\xff"))
        return bool(width * height <= CHEAP_PIXELS)
    if data[:2] == b"\xff\xd8":
        return _jpeg_pixels(data) * max(1, data.count(JPEG_SCAN.to_bytes(2))) <= CHEAP_PIXELS
    return False


def _jpeg_pixels(data: bytes) -> int:
    """Width times height of a JPEG, from the segments before its first scan; more than any limit if they do not say."""
    at, n_pixels = 2, 2**40
    for _ in range(MAX_JPEG_SEGMENTS):
        marker, length, _, height, width = struct.unpack(">HHBHH", data[at : at + 9].ljust(9, b"\xff"))
        if marker == JPEG_SCAN:
            return n_pixels
        if marker in JPEG_FRAMES:
            n_pixels = int(width * height)
        at += 2 + length
    return 2**40


def open_image(data: bytes) -> Image.Image:
    """Read an image's header, without decoding its pixels.

    Raises:
        BadImageError: empty, not an image, or more to decode than MAX_PIXELS allows.
    """
    try:
        return _open(data)
    except BadImageError:
        essential = _essential_png_chunks(data)
        if essential is None:
            raise
    return _open(essential)


def _essential_png_chunks(data: bytes) -> bytes | None:
    """A PNG file with only the chunks that its pixels depend on; None if it has no others, or is no PNG.

    Pillow refuses the whole image if a colour profile or a text in it is large, or has a wrong checksum.
    """
    if not data.startswith(PNG_START):
        return None
    view, at = memoryview(data), len(PNG_START)
    kept = [view[:at]]
    for _ in range(MAX_PNG_CHUNKS):
        length, name = struct.unpack(">I4s", data[at : at + 8].ljust(8, b"\0"))
        end = at + 12 + length
        if not name[:1].islower() or name in PNG_CHUNKS_KEPT:  # lower case: a decoder may skip it
            kept.append(view[at:end])
        at = end
        if at >= len(data):
            break
    is_shorter = at >= len(data) and sum(map(len, kept)) < len(data)
    return b"".join(kept) if is_shorter else None


def _open(data: bytes) -> Image.Image:
    if not data:
        raise BadImageError("empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            warnings.simplefilter("ignore", UserWarning)  # odd metadata does not make an image unusable
            image = Image.open(io.BytesIO(data), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadImageError("too large") from error
    except Exception as error:
        raise BadImageError("not an image") from error
    is_jpeg = image.format in JPEG_FORMATS
    # Each scan of a progressive JPEG goes over all pixels; in its data, these two bytes mean nothing else.
    n_scans = data.count(JPEG_SCAN.to_bytes(2)) if is_jpeg else 1
    if image.width * image.height > MAX_PIXELS[is_jpeg] or n_scans > MAX_SCANS:
        raise BadImageError("too large")
    return image


def unusual_properties(image: Image.Image) -> list[str]:
    """What is counted about an image and changes nothing, such as "CMYK"."""
    has_property = {
        "CMYK": image.mode == "CMYK",
        "grayscale": image.mode in ("1", "L", "LA"),
        "palette": image.mode == "P",
        "16-bit": image.mode.startswith("I;16"),
        "transparent": image.mode in ("LA", "RGBA", "PA") or "transparency" in image.info,
        "animated": getattr(image, "is_animated", False) and image.format != "MPO",
        "rotated by EXIF": _orientation(image) in TRANSPOSE_BY_ORIENTATION,
        "tiny": min(image.size) < TINY_SIDE,
        "not a JPEG": image.format not in JPEG_FORMATS,
    }
    return [name for name, present in has_property.items() if present]


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation; 1 (upright) if there is none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            return int(image.getexif().get(ORIENTATION_TAG, 1))
    except Exception:  # an image with broken EXIF may still be usable
        return 1


def _apply_orientation(image: Image.Image) -> Image.Image:
    # Not ImageOps.exif_transpose: it writes all EXIF tags anew, and fails if one has an odd value.
    method = TRANSPOSE_BY_ORIENTATION.get(_orientation(image))
    return image if method is None else image.transpose(method)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        image = Image.fromarray(SIXTEEN_TO_EIGHT_BITS[np.asarray(image).astype(np.uint16)])
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")
