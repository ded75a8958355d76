"""Preparation of an image for an encoder: decode, crop to the content, resize into a square frame.

Images of shops show an article on a white background with margins of any width; cropping them gave the largest gain in
the out-of-fold score. The aspect ratio of the content is set to its square root: a full stretch to a square distorts
long articles, no stretch leaves most of the frame empty. docs/notebook.md has the scores.
"""

from collections.abc import Collection, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops

from rakuten.data.image_decoding import BadImageError, decode

IMAGE_USED, NO_IMAGE = "used", "none"
WHITE_LEVEL = 235  # a pixel is background if all its channels are at least this
MIN_CONTENT_SHARE = 0.005  # a row or column belongs to the content if more than this share of it is not background


class DecodedImage(NamedTuple):
    """An image as encoders take it."""

    state: str  # IMAGE_USED, or why it cannot be used
    pixels: Mapping[int, NDArray[np.uint8]]  # by height and width: 3 x size x size


def decode_image(data: bytes, sizes: Collection[int]) -> DecodedImage:
    """Decode an image file for encoders of these sizes; without any, only to see whether it can be used."""
    try:
        if not sizes:
            decode(data, min_side=1)
        return DecodedImage(IMAGE_USED, {size: image_pixels(data, size) for size in sizes})
    except BadImageError as error:
        return DecodedImage(str(error), {})


def image_pixels(data: bytes, size: int) -> NDArray[np.uint8]:
    """The pixels of an image file for an encoder: 3 x size x size.

    Raises:
        BadImageError: the bytes are not an image that can be used.
    """
    return prepare_image(decode(data, min_side=2 * size), size)


def content_box(image: Image.Image) -> tuple[int, int, int, int]:
    """Bounding box of what is not white background in an RGB image; the whole image if all of it is white.

    Returns:
        Left, top, right and bottom in pixels, as Pillow counts them: right and bottom are the first outside.
    """
    red, green, blue = image.split()
    is_content = np.asarray(ImageChops.darker(ImageChops.darker(red, green), blue)) < WHITE_LEVEL
    rows, columns = (np.flatnonzero(is_content.mean(axis=axis) > MIN_CONTENT_SHARE) for axis in (1, 0))
    if not len(rows) or not len(columns):
        return 0, 0, image.width, image.height
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def prepare_image(image: Image.Image, size: int) -> NDArray[np.uint8]:
    """The content of an RGB image, resized and centred on white: 3 x size x size, 0 to 255."""
    box = content_box(image)
    sides = (box[2] - box[0], box[3] - box[1])
    width, height = (max(1, round(size * (side / max(sides)) ** 0.5)) for side in sides)
    frame = Image.new("RGB", (size, size), "white")
    content = image.resize((width, height), Image.Resampling.BILINEAR, box=box)
    frame.paste(content, ((size - width) // 2, (size - height) // 2))
    return np.ascontiguousarray(np.asarray(frame).transpose(2, 0, 1))
