import io
import random
from pathlib import Path

import pytest
from PIL import Image

from rakuten.data import synthetic_images
from rakuten.data.synthetic_images import SHAPES, draw_file, draw_image


def draw(rank: int, seed: int) -> bytes:
    return draw_image(rank, random.Random(seed))


def decoded(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def test_same_rank_and_seed_give_the_same_bytes(tmp_path: Path) -> None:
    assert draw(4, 1) == draw(4, 1)
    assert draw(4, 1) != draw(4, 2)
    draw_file((tmp_path / "a.jpg", 4, "seed"))
    assert (tmp_path / "a.jpg").read_bytes() == draw_image(4, random.Random("seed"))


def test_images_are_rgb_jpegs_of_500_by_500_pixels() -> None:
    for rank in range(len(SHAPES)):
        image = decoded(draw(rank, rank))
        assert (image.format, image.size, image.mode) == ("JPEG", (500, 500), "RGB")


def test_informative_images_differ_for_all_27_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic_images, "INFORMATIVE_SHARE", 1.0)
    assert len({draw(rank, 1) for rank in range(27)}) == 27


def test_some_images_do_not_show_the_class() -> None:
    # Ranks 0 and 9 have the same shape in different colours.
    n_same = sum(draw(0, seed) == draw(9, seed) for seed in range(60))
    assert 5 < n_same < 35


def test_most_images_have_a_white_border() -> None:
    n_white = sum(decoded(draw(0, seed)).getpixel((0, 0)) == (255, 255, 255) for seed in range(40))
    assert 20 < n_white < 40
