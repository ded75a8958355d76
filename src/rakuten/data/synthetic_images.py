"""Images of the synthetic catalogue: shape and colour indicate the product's class, but not always."""

import colorsys
import io
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageDraw

Colour = tuple[int, int, int]  # RGB, 0 to 255
ImageJob = tuple[Path, int, str]  # file to write, rank of the class, seed

IMAGE_SIDE = 500  # pixels in both directions, as in the challenge
N_PALETTES = 3  # with 9 shapes: 27 combinations, one per class
INFORMATIVE_SHARE = 0.72  # probability that the shape is that of the class; independently, the same for the colour
FULL_FRAME_SHARE = 0.09  # share of the challenge's images without a white border


class Placement(NamedTuple):
    """Where a shape is drawn."""

    x: float  # of its centre, in pixels
    y: float
    radius: float  # pixels
    angle: float  # radians


def draw_file(job: ImageJob) -> None:
    """Draw an image and write it as JPEG."""
    path, rank, seed = job
    path.write_bytes(draw_image(rank, random.Random(seed)))


def draw_image(rank: int, rng: random.Random) -> bytes:
    """Draw an image of 500 x 500 pixels.

    Args:
        rank: of the class among the 27, 0 to 26.

    Returns:
        A JPEG file. The same rank and state of `rng` give the same bytes.
    """
    draw_shape = SHAPES[rank % len(SHAPES) if rng.random() < INFORMATIVE_SHARE else rng.randrange(len(SHAPES))]
    palette = rank // len(SHAPES) % N_PALETTES if rng.random() < INFORMATIVE_SHARE else rng.randrange(N_PALETTES)
    background = _light_colour(rng) if rng.random() < FULL_FRAME_SHARE else (255, 255, 255)
    image = Image.new("RGB", (IMAGE_SIDE, IMAGE_SIDE), background)
    canvas = ImageDraw.Draw(image)
    side = rng.uniform(0.55, 0.98) * IMAGE_SIDE  # of the square that everything is drawn in
    left, top = (rng.uniform(0, IMAGE_SIDE - side) for _ in range(2))
    if rng.random() < 0.4:
        canvas.rectangle((left, top, left + side, top + side * rng.uniform(0.6, 1)), _light_colour(rng))
    for _ in range(rng.randint(0, 6)):
        _draw_clutter(canvas, rng, left, top, side)
    n_copies = rng.choice((1, 1, 2, 4))
    n_columns = math.isqrt(n_copies - 1) + 1
    cell = side / n_columns
    for i in range(n_copies):
        x, y = left + i % n_columns * cell + cell / 2, top + i // n_columns * cell + cell / 2
        placement = Placement(x, y, radius=cell * rng.uniform(0.3, 0.48), angle=rng.uniform(-0.4, 0.4))
        draw_shape(canvas, placement, _saturated_colour(rng, palette / N_PALETTES + rng.gauss(0, 0.07)))
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=80)
    return stream.getvalue()


def _light_colour(rng: random.Random) -> Colour:
    hue, value, saturation = rng.random(), rng.uniform(0.88, 0.97), rng.uniform(0.03, 0.2)
    return _to_rgb(hue, saturation, value)


def _saturated_colour(rng: random.Random, hue: float) -> Colour:
    value, saturation = rng.uniform(0.35, 0.9), rng.uniform(0.4, 0.95)
    return _to_rgb(hue, saturation, value)


def _to_rgb(hue: float, saturation: float, value: float) -> Colour:
    red, green, blue = colorsys.hsv_to_rgb(hue % 1, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)


def _draw_clutter(canvas: ImageDraw.ImageDraw, rng: random.Random, left: float, top: float, side: float) -> None:
    """Draw a line or a small disc of any colour, which says nothing about the class."""
    x, y, x_end, y_end = (rng.uniform(0, side) for _ in range(4))
    colour = _saturated_colour(rng, rng.random())
    if rng.random() < 0.5:
        canvas.line((left + x, top + y, left + x_end, top + y_end), colour, rng.randint(1, 9))
    else:
        size = side * rng.uniform(0.03, 0.12)
        canvas.ellipse((left + x - size, top + y - size, left + x, top + y), colour)


DrawShape = Callable[[ImageDraw.ImageDraw, Placement, Colour], None]


def _draw_disc(canvas: ImageDraw.ImageDraw, placement: Placement, colour: Colour) -> None:
    canvas.ellipse(_box(placement), colour)


def _draw_ring(canvas: ImageDraw.ImageDraw, placement: Placement, colour: Colour) -> None:
    canvas.ellipse(_box(placement), None, colour, max(3, round(placement.radius / 4)))


def _draw_cross(canvas: ImageDraw.ImageDraw, placement: Placement, colour: Colour) -> None:
    left, top, right, bottom = _box(placement)
    width = max(3, round(placement.radius / 3))
    canvas.line((left, top, right, bottom), colour, width)
    canvas.line((left, bottom, right, top), colour, width)


def _box(placement: Placement) -> tuple[float, float, float, float]:
    return (
        placement.x - placement.radius,
        placement.y - placement.radius,
        placement.x + placement.radius,
        placement.y + placement.radius,
    )


def _polygon(n_corners: int, inner: float = 1.0, stretch: float = 1.0) -> DrawShape:
    """A function that draws a polygon.

    Args:
        inner: distance of every second corner from the centre, in radii; below 1 the polygon is a star.
        stretch: height as a share of the width.
    """

    def draw(canvas: ImageDraw.ImageDraw, placement: Placement, colour: Colour) -> None:
        corners = []
        for corner in range(n_corners):
            angle = placement.angle + 2 * math.pi * corner / n_corners
            distance = placement.radius * (inner if corner % 2 else 1.0)
            corners.append(
                (placement.x + distance * math.cos(angle), placement.y + distance * stretch * math.sin(angle))
            )
        canvas.polygon(corners, colour)

    return draw


SHAPES: tuple[DrawShape, ...] = (
    _draw_disc,
    _draw_ring,
    _polygon(3),
    _polygon(4),
    _polygon(6),
    _polygon(10, inner=0.45),
    _polygon(8, inner=0.25),
    _polygon(4, stretch=0.35),
    _draw_cross,
)
