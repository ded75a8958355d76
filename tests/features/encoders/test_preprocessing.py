"""Preparation of an image: the crop to its content, and the resize into a square."""

import numpy as np
import pytest
from PIL import Image

from rakuten.features.encoders.preprocessing import content_box, prepare_image


@pytest.fixture
def red_on_white() -> Image.Image:
    """A red rectangle, 400 x 100, on white."""
    image = Image.new("RGB", (500, 500), "white")
    image.paste((200, 0, 0), (100, 200, 500, 300))
    return image


def test_the_content_is_what_is_not_white(red_on_white: Image.Image) -> None:
    assert content_box(red_on_white) == (100, 200, 500, 300)


def test_a_white_image_is_all_content() -> None:
    assert content_box(Image.new("RGB", (500, 300), "white")) == (0, 0, 500, 300)


@pytest.mark.parametrize(("level", "expected"), [(234, (10, 10, 90, 90)), (235, (0, 0, 100, 100))])
def test_almost_white_is_background(level: int, expected: tuple[int, int, int, int]) -> None:
    image = Image.new("RGB", (100, 100), "white")
    image.paste((level, 255, 255), (10, 10, 90, 90))
    assert content_box(image) == expected


def test_a_speck_on_the_background_is_not_content(red_on_white: Image.Image) -> None:
    red_on_white.putpixel((3, 3), (0, 0, 0))
    assert content_box(red_on_white) == (100, 200, 500, 300)


def test_the_aspect_ratio_becomes_its_square_root(red_on_white: Image.Image) -> None:
    pixels = prepare_image(red_on_white, 64)
    assert pixels.shape == (3, 64, 64)
    rows = np.flatnonzero((pixels[1] < 128).any(axis=1))
    columns = np.flatnonzero((pixels[1] < 128).any(axis=0))
    assert (columns[0], columns[-1]) == (0, 63)
    assert (rows[0], rows[-1]) == (16, 47)  # four to one is now two to one, centred


def test_the_frame_is_white_and_channels_come_first(red_on_white: Image.Image) -> None:
    pixels = prepare_image(red_on_white, 64)
    assert pixels.dtype == np.uint8
    assert pixels[:, 0, 0].tolist() == [255, 255, 255]
    assert pixels[:, 32, 32].tolist() == [200, 0, 0]


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (3000, 2)])
def test_images_of_any_size_fit(size: tuple[int, int]) -> None:
    assert prepare_image(Image.new("RGB", size, "black"), 32).shape == (3, 32, 32)
