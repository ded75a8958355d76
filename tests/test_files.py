import shutil
from pathlib import Path

import pytest

from rakuten.data.images import ImageFiles
from rakuten.errors import UserError
from rakuten.files import atomic_write, digest, dump_json, is_local, parse_path, scratch_folder


def test_all_files_appear_together(tmp_path: Path) -> None:
    a, b = tmp_path / "new" / "a", tmp_path / "b"
    with atomic_write(a, b) as (part_a, part_b):
        part_a.write_text("a")
        part_b.write_text("b")
        assert not a.exists()
        assert not b.exists()
    assert (a.read_text(), b.read_text()) == ("a", "b")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "b", "new"]


def test_nothing_is_left_of_a_failure(tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.write_text("before")
    with pytest.raises(OSError, match="disk full"), atomic_write(old, tmp_path / "other") as (part, _):
        part.write_text("half")
        raise OSError("disk full")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("old", "before")]


def test_digests_and_json_depend_on_content_alone(tmp_path: Path) -> None:
    dump_json({"b": 1, "a": "é"}, tmp_path / "one")
    dump_json({"a": "é", "b": 1}, tmp_path / "two")
    assert digest(tmp_path / "one") == digest(tmp_path / "two")
    assert (tmp_path / "one").read_bytes() == '{\n  "a": "é",\n  "b": 1\n}\n'.encode()
    assert digest(tmp_path / "one", "md5") != digest(tmp_path / "one")
    with pytest.raises(ValueError, match="JSON compliant"):
        dump_json(float("nan"), tmp_path / "three")


def test_a_folder_made_for_nothing_goes_again(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(ValueError, match="no"), atomic_write(tmp_path / "new" / "a", tmp_path / "there" / "b") as parts:
        parts[0].write_text("half")
        raise ValueError("no")
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_a_scratch_folder_is_empty_alone_and_gone(tmp_path: Path) -> None:
    with scratch_folder(tmp_path / "scratch") as folder:
        (folder / "half").write_text("left by a killed run")
        with pytest.raises(UserError, match="another run is at work"), scratch_folder(tmp_path / "scratch"):
            pass
        shutil.copytree(folder, tmp_path / "left")
    assert not folder.exists()
    shutil.copytree(tmp_path / "left", folder)
    with scratch_folder(tmp_path / "scratch") as folder:
        assert list(folder.iterdir()) == []


def test_a_url_is_a_place_too(tmp_path: Path) -> None:
    assert parse_path(str(tmp_path)) == tmp_path
    assert is_local(parse_path("data/raw"))
    there = parse_path(f"memory://{tmp_path.name}/folder")
    assert not is_local(there)
    (there / "image_1_product_2.jpg").write_bytes(b"jpeg")
    assert list(ImageFiles(there)) == ["image_1_product_2.jpg"]
    assert ImageFiles(there)["image_1_product_2.jpg"].read_bytes() == b"jpeg"
