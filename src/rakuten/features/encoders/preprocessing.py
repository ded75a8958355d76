"""The one preparation of a picture for an encoder: cut to its content, stretched half way to a square.

Shop pictures are an article on a white ground of any width. Cutting the ground away paid most out
of fold. The content's ratio of sides is brought to its square root: stretching it wholly distorts
long articles, and not at all wastes the frame on them. docs/model.md has the figures.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops

WHITE_LEVEL = 235  # a pixel belongs to the ground if all its channels are at least this
MIN_CONTENT_SHARE = 0.005  # a row or column belongs to the content if more than this share of it is not ground


def content_box(picture: Image.Image) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of what is not white ground in an RGB picture; all of it if all is white."""
    red, green, blue = picture.split()
    ink = np.asarray(ImageChops.darker(ImageChops.darker(red, green), blue)) < WHITE_LEVEL
    rows, columns = (np.flatnonzero(ink.mean(axis=axis) > MIN_CONTENT_SHARE) for axis in (1, 0))
    if not len(rows) or not len(columns):
        return 0, 0, picture.width, picture.height
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def prepare_image(picture: Image.Image, size: int) -> NDArray[np.uint8]:
    """The content of an RGB picture as 3 x size x size, 0 to 255, centred on white."""
    box = content_box(picture)
    sides = (box[2] - box[0], box[3] - box[1])
    width, height = (max(1, round(size * (side / max(sides)) ** 0.5)) for side in sides)
    frame = Image.new("RGB", (size, size), "white")
    article = picture.resize((width, height), Image.Resampling.BILINEAR, box=box)
    frame.paste(article, ((size - width) // 2, (size - height) // 2))
    return np.ascontiguousarray(np.asarray(frame).transpose(2, 0, 1))
