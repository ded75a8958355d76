"""API keys and their file."""

import hashlib
import os
from pathlib import Path

import pytest

from rakuten.errors import UserError
from rakuten.serving.keys import ApiKeys, Owner, StoredKey, add_key, parse_keys
from rakuten.serving.roles import Role

ONE, TWO = Owner("one", Role.CLASSIFY), Owner("two", Role.CLASSIFY)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys" / "api_keys.txt"


def test_a_key_belongs_to_its_name_and_only_its_hash_is_stored(path: Path) -> None:
    keys = {name: add_key(path, name) for name in ("one", "two")}
    for name, key in keys.items():
        assert ApiKeys(path).owner(key) == Owner(name, Role.CLASSIFY)
        assert key not in path.read_text()
    assert parse_keys(path.read_text())["one"].sha256 == hashlib.sha256(keys["one"].encode()).hexdigest()
    assert path.stat().st_mode & 0o077 == 0


def test_another_key_belongs_to_nobody(path: Path) -> None:
    key = add_key(path, "one")
    for other in (key + "x", key[:-1], "", hashlib.sha256(key.encode()).hexdigest()):
        assert ApiKeys(path).owner(other) is None


def test_a_changed_file_is_read_again(path: Path) -> None:
    keys = ApiKeys(path)
    assert not keys.has_keys()
    first = add_key(path, "one")
    assert keys.has_keys()
    assert keys.owner(first) == ONE
    second = add_key(path, "two")
    assert keys.owner(second) == TWO
    revoked = "".join(line for line in path.read_text().splitlines(keepends=True) if line.startswith("two:"))
    path.write_text(revoked)
    assert (keys.owner(first), keys.owner(second)) == (None, TWO)
    path.unlink()
    assert keys.owner(second) is None


def test_an_unchanged_file_is_not_read_again(path: Path) -> None:
    key = add_key(path, "one")
    keys = ApiKeys(path)
    assert keys.owner(key) == ONE
    stat = path.stat()
    path.write_text(path.read_text().replace("one:", "two:"))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # same time and size, other content
    assert keys.owner(key) == ONE


def test_a_line_that_is_not_a_key_is_skipped_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    valid = "a" * 64
    text = f"# comment\none:{valid}\n\ntwo:{valid[1:]}\nthree\nfour:{valid}  # of the fourth\nfive:{valid}:admin\n"
    assert parse_keys(text) == {name: StoredKey(valid, Role.CLASSIFY) for name in ("one", "four")}
    assert [record.args for record in caplog.records] == [(4,), (5,), (7,)]


def test_a_key_has_the_role_of_its_line(path: Path) -> None:
    for role in Role:
        assert ApiKeys(path).owner(add_key(path, role.word, role=role)) == Owner(role.word, role)
    assert [line.count(":") for line in path.read_text().splitlines()] == [1, 2, 2]


@pytest.mark.parametrize("name", ["", "a b", "é", "a:b", "a\n", "x" * 41])
def test_a_name_of_other_characters_is_refused(path: Path, name: str) -> None:
    with pytest.raises(UserError, match="a name has 1 to 40 letters"):
        add_key(path, name)
    assert not path.exists()


def test_a_second_key_for_a_name_is_refused(path: Path) -> None:
    key = add_key(path, "one")
    with pytest.raises(UserError, match="one has a key"):
        add_key(path, "one")
    assert ApiKeys(path).owner(key) == ONE


def test_a_key_is_added_after_a_last_line_without_newline(path: Path) -> None:
    path.parent.mkdir()
    path.write_text(f"one:{'a' * 64}")
    add_key(path, "two")
    assert list(parse_keys(path.read_text())) == ["one", "two"]


def test_a_file_that_cannot_be_read_leaves_the_last_good_keys(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "keys.txt"
    key = add_key(path, "one")
    keys = ApiKeys(path)
    assert keys.owner(key) == ONE
    path.write_bytes(path.read_bytes() + b"# caf\xe9\n")
    assert [keys.owner(key), keys.owner("another")] == [ONE, None]
    assert caplog.text.count("cannot be read") == 1
    with pytest.raises(UserError, match=r"keys.txt: not UTF-8 \(byte \d+\)"):
        add_key(path, "two")
    path.unlink()
    assert keys.owner(key) is None
