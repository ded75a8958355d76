from pathlib import Path

import pytest

from src.files import digest, dump_json, writing


def test_all_files_appear_together(tmp_path: Path) -> None:
    a, b = tmp_path / "new" / "a", tmp_path / "b"
    with writing(a, b) as (part_a, part_b):
        part_a.write_text("a")
        part_b.write_text("b")
        assert not a.exists()
        assert not b.exists()
    assert (a.read_text(), b.read_text()) == ("a", "b")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "b", "new"]


def test_nothing_is_left_of_a_failure(tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.write_text("before")
    with pytest.raises(OSError, match="disk full"), writing(old, tmp_path / "other") as (part, _):
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
