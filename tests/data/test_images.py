"""Images of every kind that sellers send, and damaged ones."""

import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageOps

from rakuten.data import images
from rakuten.data.image_decoding import MAX_PNG_CHUNKS, BadImageError, decode, open_image, unusual_properties
from rakuten.data.images import ImageCheck, ImageFiles, check_image, check_image_names, check_images, image_paths
from rakuten.errors import UserError
from rakuten.files import parse_path

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


def odd_exif(*tags: tuple[int, int, bytes]) -> bytes:
    """EXIF data with the orientation 6 and other tags of one value each: their number, type and value."""
    directory, values = b"", b""
    entries = [(0x0112, 3, b"\6\0"), *tags]
    for tag, kind, value in sorted(entries):
        offset = 8 + 2 + 12 * len(entries) + 4 + len(values)
        if len(value) > 4:
            values, value = values + value, struct.pack("<I", offset)
        directory += struct.pack("<HHI", tag, kind, 1) + value.ljust(4, b"\0")
    return b"Exif\0\0II" + struct.pack("<HIH", 42, 8, len(entries)) + directory + struct.pack("<I", 0) + values


def png_chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png_with(*chunks: bytes) -> bytes:
    """A PNG with further chunks after its header, and at its end."""
    data = saved(red(), "PNG")
    return b"".join((data[:33], *chunks, data[33:-12], *chunks, data[-12:]))


def bomb() -> bytes:
    """A PNG of 20,000 x 20,000 pixels in a few hundred bytes of header and an empty body."""
    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    chunks = {b"IHDR": header, b"IDAT": zlib.compress(b"\0" * 1000), b"IEND": b""}
    body = b"".join(png_chunk(*item) for item in chunks.items())
    return b"\x89PNG\r\n\x1a\n" + body


def many_scans() -> bytes:
    """A progressive JPEG whose last scan stands in it sixty times."""
    data = saved(red(), progressive=True)
    at = data.rindex(b"\xff\xda")
    return data[:at] + 60 * data[at:-2] + data[-2:]


def animated() -> bytes:
    return saved(red(), "GIF", save_all=True, append_images=[Image.new("RGB", (60, 40), "blue")])


def deep() -> bytes:
    values = np.linspace(0, 65535, 60 * 40).reshape(40, 60)
    return saved(Image.fromarray(values.astype(np.uint16)), "PNG")


USABLE: dict[str, tuple[Callable[[], bytes], tuple[str, ...]]] = {
    "plain": (lambda: saved(red()), ()),
    "CMYK": (lambda: saved(red("CMYK")), ("CMYK",)),
    "grayscale": (lambda: saved(red("L")), ("grayscale",)),
    "palette": (lambda: saved(red("P"), "PNG"), ("palette", "not a JPEG")),
    "16-bit": (deep, ("16-bit", "not a JPEG")),
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
    "TIFF": (lambda: saved(red(), "TIFF"), "not an image"),
    "BMP": (lambda: saved(red(), "BMP"), "not an image"),
    "large PNG": (lambda: saved(Image.new("1", (4001, 4000)), "PNG"), "too large"),
    "large JPEG": (lambda: saved(Image.new("L", (7100, 7100))), "too large"),
    "many scans": (many_scans, "too large"),
    "PostScript": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
}


ODD_EXIF = {
    "negative over zero": (0x011A, 10, struct.pack("<ii", -1, 0)),
    "one over zero": (0x011A, 5, struct.pack("<II", 1, 0)),
    "NaN": (0x011A, 12, struct.pack("<d", float("nan"))),
    "negative": (0x0128, 8, struct.pack("<h", -1)),
    "a time that is a number": (0x0132, 5, struct.pack("<II", 1, 2)),
}
ZEROS = zlib.compress(bytes(2_000_000))
ODD_PNG_CHUNKS = {
    "colour profile": png_chunk(b"iCCP", b"name\0\0" + ZEROS),
    "compressed text": png_chunk(b"zTXt", b"name\0\0" + ZEROS),
    "text": png_chunk(b"tEXt", b"name\0" + bytes(2_000_000)),
    "international text": png_chunk(b"iTXt", b"name\0\1\0\0\0" + ZEROS),
    "unknown compression": png_chunk(b"zTXt", b"name\0\1" + ZEROS),
    "wrong checksum": png_chunk(b"tEXt", b"name\0text")[:-1] + b"?",
    "resolution cut off": png_chunk(b"pHYs", b""),
}


@pytest.mark.parametrize("orientation", range(10))
def test_an_image_is_turned_as_its_orientation_says(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    noise = Image.effect_noise((7, 5), 99).convert("RGB")
    data = saved(noise, "PNG", exif=exif)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert np.array_equal(decode(data), expected)
    assert ("rotated by EXIF" in unusual_properties(open_image(data))) == (2 <= orientation <= 8)


@pytest.mark.parametrize("name", ODD_EXIF)
def test_other_exif_tags_do_not_matter(name: str, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(saved(red(), exif=odd_exif(ODD_EXIF[name])))
    assert check_image(tmp_path / "a.jpg") == ImageCheck("", ("rotated by EXIF",))
    assert decode((tmp_path / "a.jpg").read_bytes()).size == (40, 60)


@pytest.mark.parametrize("name", ODD_PNG_CHUNKS)
def test_profiles_and_texts_of_a_png_do_not_matter(name: str, tmp_path: Path) -> None:
    orientation = png_chunk(b"eXIf", odd_exif()[6:])
    (tmp_path / "a.jpg").write_bytes(png_with(ODD_PNG_CHUNKS[name], orientation))
    assert check_image(tmp_path / "a.jpg") == ImageCheck("", ("rotated by EXIF", "not a JPEG"))
    image = decode((tmp_path / "a.jpg").read_bytes())
    assert image.size == (40, 60)
    assert (np.asarray(image) == RED).all()


def test_transparency_is_kept_in_a_png_with_a_large_profile() -> None:
    data = saved(red("P"), "PNG", transparency=bytes(256))
    image = decode(data[:33] + ODD_PNG_CHUNKS["colour profile"] + data[33:])
    assert (np.asarray(image) == 255).all()


def test_only_so_many_chunks_of_a_png_are_looked_at() -> None:
    empty, profile = png_chunk(b"prVt", b""), ODD_PNG_CHUNKS["colour profile"]
    few, many = (png_with(profile, empty * n) for n in (MAX_PNG_CHUNKS // 2 - 10, 50_000))
    assert decode(few).size == (60, 40)
    with pytest.raises(BadImageError, match="not an image"):
        decode(many)


@pytest.mark.parametrize("name", USABLE)
def test_an_unusual_image_is_usable_and_its_properties_are_named(name: str, tmp_path: Path) -> None:
    make, unusual = USABLE[name]
    (tmp_path / "a.jpg").write_bytes(make())
    assert check_image(tmp_path / "a.jpg") == ImageCheck("", unusual)
    image = decode(make())
    assert image.mode == "RGB"
    assert image.size == {"rotated": (40, 60), "1x1": (1, 1)}.get(name, (60, 40))
    if name in ("CMYK", "palette", "transparent", "animated", "rotated", "webp"):
        assert np.abs(np.asarray(image)[20, 20].astype(int) - RED).max() < 40


@pytest.mark.parametrize("name", BAD)
def test_an_unusable_image_has_an_error(name: str, tmp_path: Path) -> None:
    make, error = BAD[name]
    (tmp_path / "a.jpg").write_bytes(make())
    assert check_image(tmp_path / "a.jpg") == ImageCheck(error, ())
    with pytest.raises(BadImageError, match=f"^{error}$"):
        decode(make())


def test_transparent_pixels_become_white() -> None:
    image = decode(saved(Image.new("RGBA", (9, 9), (0, 0, 0, 0)), "PNG"))
    assert (np.asarray(image) == 255).all()


def test_deep_pixels_are_scaled_to_8_bits_in_their_order() -> None:
    gray = np.asarray(decode(deep()))[..., 0].astype(int).ravel()
    assert gray[0] == 0
    assert gray[-1] == 255
    assert (np.diff(gray) >= 0).all()


def test_the_largest_images_are_decoded() -> None:
    assert decode(saved(Image.new("1", (4000, 4000)), "PNG"), min_side=9).size == (4000, 4000)
    assert min(decode(saved(Image.new("L", (7000, 7000))), min_side=9).size) < 900


def test_a_large_jpeg_is_decoded_small_enough() -> None:
    data = saved(red(size=(2000, 1600)))
    assert decode(data, min_side=300).size == (500, 400)
    assert decode(data).size == (2000, 1600)


def test_random_damage_raises_nothing_but_bad_image_errors() -> None:
    rng = np.random.default_rng(0)
    intact = [make() for make, _ in USABLE.values()]
    for _ in range(400):
        data = bytearray(intact[rng.integers(len(intact))])
        for position in rng.integers(0, len(data), 8):
            data[position] = rng.integers(256)
        try:
            assert decode(bytes(data)).mode == "RGB"
        except BadImageError as error:
            assert str(error) in ("not an image", "truncated", "broken", "too large")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, data in (("b/x.jpg", saved(red())), ("a/x.jpg", b""), ("a/y.jpg", b"no"), ("z.jpg", saved(red("L")))):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    return tmp_path


def test_of_files_with_one_name_the_first_in_path_order_is_taken(folder: Path) -> None:
    assert ImageFiles(folder) == {"x.jpg": folder / "a/x.jpg", "y.jpg": folder / "a/y.jpg", "z.jpg": folder / "z.jpg"}


def test_files_are_checked_in_parallel(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "CHUNK_FILES", 2)
    checks = check_images(ImageFiles(folder))
    assert checks == {"x.jpg": "empty", "y.jpg": "not an image", "z.jpg": ""}
    assert checks.count_errors() == {"empty": 1, "not an image": 1}
    assert checks.unusual == {"grayscale": 1}


def test_a_missing_folder_has_no_images(tmp_path: Path) -> None:
    assert ImageFiles(tmp_path / "none") == {}
    assert check_images(ImageFiles(tmp_path / "none")).count_errors() == {}


def test_a_missing_file_is_unreadable(tmp_path: Path) -> None:
    assert check_image(tmp_path / "none.jpg").error == "unreadable"


def test_files_are_found_by_names_of_any_form(tmp_path: Path) -> None:
    folder_by_name = {"image_7_product_12.jpg": "b", "image_7_product_3.jpg": "a", "image_0_product_0.jpg": "a",
                      "image_007_product_1.jpg": "a", "image_7_product_x.jpg": "b", "photo.png": "b"}  # fmt: skip
    for name, folder in folder_by_name.items():
        (tmp_path / folder / "deep").mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / "deep" / name).touch()
    (tmp_path / "b" / "image_7_product_3.jpg").touch()  # the same name in a later folder
    files = ImageFiles(tmp_path)
    assert len(files) == len(folder_by_name)
    assert dict(files) == {name: tmp_path / folder / "deep" / name for name, folder in folder_by_name.items()}
    assert list(files) == [
        "image_0_product_0.jpg", "image_7_product_3.jpg", "image_7_product_12.jpg",
        "image_007_product_1.jpg", "image_7_product_x.jpg", "photo.png",
    ]  # fmt: skip
    for absent in ("image_7_product_4.jpg", "image_8_product_3.jpg", "image_007_product_12.jpg", "none", ""):
        assert absent not in files
    assert [files.position(name) for name in files] == list(range(len(files)))


def test_links_to_folders_are_followed_once(tmp_path: Path) -> None:
    nas, folder = tmp_path / "nas", tmp_path / "images"
    (nas / "deep").mkdir(parents=True)
    folder.mkdir()
    for path in (nas / "a.jpg", nas / "deep" / "b.jpg", folder / "c.jpg"):
        path.touch()
    for link, target in {
        folder / "image_train": nas, folder / "again": nas / "deep", folder / "itself": folder / "itself",
        folder / "nowhere": tmp_path / "none", nas / "deep" / "above": folder, nas / "circle": nas,
    }.items():  # fmt: skip
        link.symlink_to(target)
    files = ImageFiles(folder)
    found = {"a.jpg": "image_train/a.jpg", "b.jpg": "again/b.jpg", "c.jpg": "c.jpg"}
    dead = {"itself": "itself", "nowhere": "nowhere"}
    assert dict(files) == {name: folder / path for name, path in (found | dead).items()}
    assert files.linked_folders == [folder / "again", folder / "image_train"]
    assert check_images(files).count_errors() == {"empty": 3, "unreadable": 2}


def test_a_folder_that_is_itself_a_link_is_read(tmp_path: Path) -> None:
    (tmp_path / "nas").mkdir()
    (tmp_path / "nas" / "a.jpg").touch()
    (tmp_path / "images").symlink_to(tmp_path / "nas")
    files = ImageFiles(tmp_path / "images")
    assert dict(files) == {"a.jpg": tmp_path / "images" / "a.jpg"}
    assert files.linked_folders == []


PRODUCTS = pd.DataFrame({"productid": ["", "456", "4"], "imageid": ["", "123", "1"]})
UNNAMED = {  # files -> what the error says about them
    ("photo_1.jpg", ".hidden"): (
        "no file is the image of a product: found 'photo_1.jpg', expected names such as 'image_123_product_456.jpg'; "
        "rename the files, or do without"
    ),
    ("image_123_product_456.JPG",): "found 'image_123_product_456.JPG'",
    ("image_7_product_8.jpg", "Thumbs.db"): "found 'image_7_product_8.jpg'",
    ("image_4_product_1.jpg",): (
        "found 'image_4_product_1.jpg', expected names such as 'image_123_product_456.jpg'; "
        "productid and imageid are swapped in one of them"
    ),
}


@pytest.mark.parametrize("names", UNNAMED)
def test_files_of_which_none_is_the_image_of_a_product_are_an_error(names: tuple[str, ...], tmp_path: Path) -> None:
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(UserError) as error:
        check_image_names(ImageFiles(tmp_path), [PRODUCTS[:1], PRODUCTS[1:]], "do without")
    assert str(error.value).startswith(f"{tmp_path}: ")
    assert UNNAMED[names] in str(error.value)
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "image_1_product_4.jpg").touch()
    check_image_names(ImageFiles(tmp_path), [PRODUCTS[:1], PRODUCTS[1:]], "do without")


def test_a_folder_of_images_that_leads_nowhere_is_named(tmp_path: Path) -> None:
    (tmp_path / "image_train").symlink_to(tmp_path / "nas")
    with pytest.raises(UserError, match=r"found 'image_train' \(a link that leads nowhere\)"):
        check_image_names(ImageFiles(tmp_path), [PRODUCTS], "do without")


def test_no_images_or_no_products_are_no_error(tmp_path: Path) -> None:
    (tmp_path / ".gitkeep").touch()
    check_image_names(ImageFiles(tmp_path), [PRODUCTS], "")
    (tmp_path / "photo_1.jpg").touch()
    check_image_names(ImageFiles(tmp_path), [], "")


def test_a_folder_of_a_store_is_read_like_a_local_one(tmp_path: Path) -> None:
    folder = parse_path(f"memory://{tmp_path.name}/images")
    for name, data in (("deep", saved(red())), ("b", b"no")):  # not in path order
        (folder / name).mkdir(parents=True)
        (folder / name / "image_1_product_2.jpg").write_bytes(data)
    (folder / "a.jpg").write_bytes(b"")
    files = ImageFiles(folder)
    assert list(files) == ["image_1_product_2.jpg", "a.jpg"]
    assert files["image_1_product_2.jpg"].read_bytes() == b"no"
    assert check_images(files) == {"image_1_product_2.jpg": "not an image", "a.jpg": "empty"}


def test_a_product_has_the_path_of_its_image_if_it_can_be_used(tmp_path: Path) -> None:
    products = pd.DataFrame({
        "productid": ["2", "2", "3"], "imageid": ["1", "1", "1"], "has_image": ["True", "False", "True"],
    })  # fmt: skip
    path = tmp_path / "image_1_product_2.jpg"
    assert image_paths(products, {path.name: path}) == [path, None, None]


def test_a_file_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.jpg").write_bytes(saved(red()))
    monkeypatch.setattr(images, "MAX_BYTES", 100)
    assert check_image(tmp_path / "a.jpg").error == "too large"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with names")
def test_what_is_no_file_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")  # nobody ever writes to it
    (tmp_path / "endless.jpg").symlink_to("/dev/zero")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "image.jpg").write_bytes(saved(red()))
    (tmp_path / "link.jpg").symlink_to("image.jpg")
    errors = {path.name: check_image(path).error for path in tmp_path.iterdir()}
    refused = dict.fromkeys(("pipe.jpg", "endless.jpg", "folder.jpg"), "not a file")
    assert errors == {"image.jpg": "", "link.jpg": "", **refused}


def test_no_more_of_a_file_is_read_than_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_BYTES", 10)
    for size, error in ((10, "not an image"), (11, "too large")):
        (tmp_path / "a.jpg").write_bytes(bytes(size))
        assert check_image(tmp_path / "a.jpg").error == error
