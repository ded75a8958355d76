"""Pictures of the sample catalogue: they tell something about the class, but not everything."""

import colorsys
import io
import math
import random
from pathlib import Path

from PIL import Image, ImageDraw

IMAGE_SIDE = 500  # pixels, both ways, as in the challenge
SHAPES, PALETTES = 9, 3  # 27 signatures, one per class
INFORMATIVE_SHARE = 0.72  # how often shape, and independently colour, is the class's own
FULL_FRAME_SHARE = 0.09  # the share of real pictures without a white border


ImageJob = tuple[Path, int, str]  # file, rank of the class, seed


def draw_file(job: ImageJob) -> None:
    """Draw a picture and write it."""
    path, rank, seed = job
    path.write_bytes(draw_image(rank, random.Random(seed)))


def draw_image(rank: int, rng: random.Random) -> bytes:
    """A JPEG of 500x500 pixels for the class of this rank (0-26); same rank and rng, same bytes."""
    shape = rank % SHAPES if rng.random() < INFORMATIVE_SHARE else rng.randrange(SHAPES)
    palette = rank // SHAPES % PALETTES if rng.random() < INFORMATIVE_SHARE else rng.randrange(PALETTES)
    full = rng.random() < FULL_FRAME_SHARE
    image = Image.new(
        "RGB", (IMAGE_SIDE, IMAGE_SIDE), _jittered_colour(rng, None, light=True) if full else (255, 255, 255)
    )
    canvas = ImageDraw.Draw(image)
    side = rng.uniform(0.55, 0.98) * IMAGE_SIDE
    left, top = (rng.uniform(0, IMAGE_SIDE - side) for _ in range(2))
    if rng.random() < 0.4:
        canvas.rectangle(
            (left, top, left + side, top + side * rng.uniform(0.6, 1)), _jittered_colour(rng, None, light=True)
        )
    for _ in range(rng.randint(0, 6)):
        _clutter(canvas, rng, left, top, side)
    copies = rng.choice((1, 1, 2, 4))
    grid = math.isqrt(copies - 1) + 1
    cell = side / grid
    for place in range(copies):
        x, y = left + place % grid * cell, top + place // grid * cell
        radius = cell * rng.uniform(0.3, 0.48)
        _shape(
            canvas, shape, x + cell / 2, y + cell / 2, radius, rng.uniform(-0.4, 0.4), _jittered_colour(rng, palette)
        )
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=80)
    return stream.getvalue()


def _jittered_colour(rng: random.Random, palette: int | None, light: bool = False) -> tuple[int, int, int]:
    hue = rng.random() if palette is None else palette / PALETTES + rng.gauss(0, 0.07)
    value = rng.uniform(0.88, 0.97) if light else rng.uniform(0.35, 0.9)
    saturation = rng.uniform(0.03, 0.2) if light else rng.uniform(0.4, 0.95)
    red, green, blue = colorsys.hsv_to_rgb(hue % 1, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)


def _clutter(canvas: ImageDraw.ImageDraw, rng: random.Random, left: float, top: float, side: float) -> None:
    x, y, dx, dy = (rng.uniform(0, side) for _ in range(4))
    colour = _jittered_colour(rng, None)
    if rng.random() < 0.5:
        canvas.line((left + x, top + y, left + dx, top + dy), colour, rng.randint(1, 9))
    else:
        size = side * rng.uniform(0.03, 0.12)
        canvas.ellipse((left + x - size, top + y - size, left + x, top + y), colour)


def _shape(
    canvas: ImageDraw.ImageDraw,
    kind: int,
    x: float,
    y: float,
    radius: float,
    turn: float,
    colour: tuple[int, int, int],
) -> None:
    def polygon(corners: int, inner: float = 1.0, stretch: float = 1.0) -> list[tuple[float, float]]:
        points = []
        for corner in range(corners):
            angle = turn + 2 * math.pi * corner / corners
            reach = radius * (inner if corner % 2 else 1.0)
            points.append((x + reach * math.cos(angle), y + reach * stretch * math.sin(angle)))
        return points

    box = (x - radius, y - radius, x + radius, y + radius)
    if kind == 0:
        canvas.ellipse(box, colour)
    elif kind == 1:
        canvas.ellipse(box, None, colour, max(3, round(radius / 4)))
    elif kind == 2:
        canvas.polygon(polygon(3), colour)
    elif kind == 3:
        canvas.polygon(polygon(4), colour)
    elif kind == 4:
        canvas.polygon(polygon(6), colour)
    elif kind == 5:
        canvas.polygon(polygon(10, inner=0.45), colour)
    elif kind == 6:
        canvas.polygon(polygon(8, inner=0.25), colour)
    elif kind == 7:
        canvas.polygon(polygon(4, stretch=0.35), colour)
    else:
        width = max(3, round(radius / 3))
        canvas.line((x - radius, y - radius, x + radius, y + radius), colour, width)
        canvas.line((x - radius, y + radius, x + radius, y - radius), colour, width)
