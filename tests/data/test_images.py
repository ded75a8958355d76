"""Every kind of picture that sellers and accidents produce."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rakuten.data import images
from rakuten.data.images import BadImageError, ImageCheck, ImageFiles, check_image, check_images, decode

RED = (200, 30, 30)


def saved(image: Image.Image, kind: str = "JPEG", **more: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **more)
    return stream.getvalue()


def red(mode: str = "RGB", size: tuple[int, int] = (60, 40)) -> Image.Image:
    return Image.new("RGB", size, RED).convert(mode)


def rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return saved(red(), exif=exif)


def bomb() -> bytes:
    """A PNG of 20,000 x 20,000 pixels in a few hundred bytes of header and an empty body."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def animated() -> bytes:
    return saved(red(), "GIF", save_all=True, append_images=[Image.new("RGB", (60, 40), "blue")])


def deep(kind: str) -> bytes:
    values = np.linspace(0, 65535, 60 * 40).reshape(40, 60)
    if kind == "float":
        return saved(Image.fromarray(values.astype(np.float32)), "TIFF")
    return saved(Image.fromarray(values.astype(np.uint16)), "PNG")


USABLE: dict[str, tuple[Callable[[], bytes], tuple[str, ...]]] = {
    "plain": (lambda: saved(red()), ()),
    "CMYK": (lambda: saved(red("CMYK")), ("CMYK",)),
    "grayscale": (lambda: saved(red("L")), ("grayscale",)),
    "palette": (lambda: saved(red("P"), "PNG"), ("palette", "not a JPEG")),
    "16-bit": (lambda: deep("16"), ("16-bit", "not a JPEG")),
    "float": (lambda: deep("float"), ("16-bit", "not a JPEG")),
    "transparent": (lambda: saved(red("RGBA"), "PNG"), ("transparent", "not a JPEG")),
    "animated": (animated, ("palette", "animated", "not a JPEG")),
    "rotated": (rotated, ("rotated by EXIF",)),
    "1x1": (lambda: saved(red(size=(1, 1))), ("tiny",)),
    "webp": (lambda: saved(red(), "WEBP"), ("not a JPEG",)),
    "broken EXIF": (lambda: saved(red(), exif=b"Exif\0\0MM\0*\0\0\0\xff"), ()),
}
BAD: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "empty"),
    "text": (lambda: b"<html>404</html>", "not an image"),
    "truncated JPEG": (lambda: saved(red(size=(500, 500)), quality=95)[:-900], "truncated"),
    "truncated PNG": (lambda: saved(Image.effect_noise((90, 90), 50), "PNG")[:3000], "truncated"),
    "header only": (lambda: saved(red())[:20], "not an image"),
    "bomb": (bomb, "too large"),
    "PostScript": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
}


@pytest.mark.parametrize("name", USABLE)
def test_an_unusual_picture_is_used_and_named(name: str, tmp_path: Path) -> None:
    make, unusual = USABLE[name]
    (tmp_path / "a.jpg").write_bytes(make())
    assert check_image(tmp_path / "a.jpg") == ImageCheck("", unusual)
    image = decode(make())
    assert image.mode == "RGB"
    assert image.size == {"rotated": (40, 60), "1x1": (1, 1)}.get(name, (60, 40))
    if name in ("CMYK", "palette", "transparent", "animated", "rotated", "webp"):
        assert np.abs(np.asarray(image)[20, 20].astype(int) - RED).max() < 40


@pytest.mark.parametrize("name", BAD)
def test_a_bad_picture_is_named_and_never_a_crash(name: str, tmp_path: Path) -> None:
    make, why = BAD[name]
    (tmp_path / "a.jpg").write_bytes(make())
    assert check_image(tmp_path / "a.jpg") == ImageCheck(why, ())
    with pytest.raises(BadImageError, match=f"^{why}$"):
        decode(make())


def test_what_shines_through_is_white_and_sixteen_bits_keep_their_order() -> None:
    clear = decode(saved(Image.new("RGBA", (9, 9), (0, 0, 0, 0)), "PNG"))
    assert (np.asarray(clear) == 255).all()
    for kind in ("16", "float"):
        gray = np.asarray(decode(deep(kind)))[..., 0].astype(int).ravel()
        assert gray[0] == 0
        assert gray[-1] == 255
        assert (np.diff(gray) >= 0).all()


def test_a_large_jpeg_is_decoded_small_enough() -> None:
    data = saved(red(size=(2000, 1600)))
    assert decode(data, at_least=300).size == (500, 400)
    assert decode(data).size == (2000, 1600)


def test_random_damage_is_never_a_crash() -> None:
    rng = np.random.default_rng(0)
    whole = [make() for make, _ in USABLE.values()]
    for _ in range(400):
        data = bytearray(whole[rng.integers(len(whole))])
        for place in rng.integers(0, len(data), 8):
            data[place] = rng.integers(256)
        try:
            assert decode(bytes(data)).mode == "RGB"
        except BadImageError as error:
            assert str(error) in ("not an image", "truncated", "broken", "too large")


def test_files_are_found_and_inspected_on_all_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, data in (("b/x.jpg", saved(red())), ("a/x.jpg", b""), ("a/y.jpg", b"no"), ("z.jpg", saved(red("L")))):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    found = ImageFiles(tmp_path)
    assert found == {"x.jpg": tmp_path / "a/x.jpg", "y.jpg": tmp_path / "a/y.jpg", "z.jpg": tmp_path / "z.jpg"}
    monkeypatch.setattr(images, "BATCH", 2)
    assert check_images(found) == {"x.jpg": "empty", "y.jpg": "not an image", "z.jpg": ""}
    assert check_images(found).bad() == {"empty": 1, "not an image": 1}
    assert check_images(found).unusual == {"grayscale": 1}
    assert ImageFiles(tmp_path / "none") == {}
    assert check_image(tmp_path / "none.jpg").bad == "unreadable"


def test_pictures_are_found_by_name_whatever_the_name(tmp_path: Path) -> None:
    names = {"image_7_product_12.jpg": "b", "image_7_product_3.jpg": "a", "image_0_product_0.jpg": "a",
             "image_007_product_1.jpg": "a", "image_7_product_x.jpg": "b", "photo.png": "b"}  # fmt: skip
    for name, folder in names.items():
        (tmp_path / folder / "deep").mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / "deep" / name).touch()
    (tmp_path / "b" / "image_7_product_3.jpg").touch()  # another of that name, in a later folder
    found = ImageFiles(tmp_path)
    assert len(found) == len(names)
    assert dict(found) == {name: tmp_path / folder / "deep" / name for name, folder in names.items()}
    assert list(found) == [
        "image_0_product_0.jpg", "image_7_product_3.jpg", "image_7_product_12.jpg",
        "image_007_product_1.jpg", "image_7_product_x.jpg", "photo.png",
    ]  # fmt: skip
    for absent in ("image_7_product_4.jpg", "image_8_product_3.jpg", "image_007_product_12.jpg", "none", ""):
        assert absent not in found
    assert [found.position(name) for name in found] == list(range(len(found)))


def test_a_file_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.jpg").write_bytes(saved(red()))
    monkeypatch.setattr(images, "MAX_BYTES", 100)
    assert check_image(tmp_path / "a.jpg").bad == "too large"
