from pathlib import Path

import pytest

from rakuten.errors import UserError
from rakuten.yaml_files import parse_yaml, read_yaml


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: 1\nb: [\nc: 2\nd: 3", "line 4, column 2: not valid YAML: expected ',' or ']', but got ':'"),
        ("a: 1\nb:\n  c: 1\n  d: 2\n  c: 3", "line 5: c is there already, in line 3"),
        ("a: 1\n\x00", "line 2: not valid YAML: special characters are not allowed"),
        ("? [a]\n: 1", "line 1, column 3: not valid YAML: found unhashable key"),
    ],
)
def test_a_file_that_is_not_yaml_is_named_with_the_line(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(content)
    with pytest.raises(UserError) as caught:
        read_yaml(path)
    assert str(caught.value) == f"{path}, {message}"


@pytest.mark.parametrize("content", ["a: 1".encode("utf-16"), "a: d\u00e9j\u00e0".encode("cp1252")])
def test_a_file_in_another_encoding_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"params.yaml: not UTF-8 \(byte \d\); save it as UTF-8"):
        read_yaml(path)


def test_a_missing_file_is_named_with_how_to_get_it_back(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="none.yaml: no such file; `git restore none.yaml` brings back the committed"):
        read_yaml(tmp_path / "none.yaml")


def test_a_folder_in_place_of_a_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        read_yaml(tmp_path)


@pytest.mark.parametrize(
    ("text", "value"), [("1e-05", 1e-5), ("2E3", 2000.0), ("1.5e+3", 1500.0), ("e5", "e5"), ("3e61e1d3", "3e61e1d3")]
)
def test_numbers_with_an_exponent_are_numbers(text: str, value: object) -> None:
    assert parse_yaml(text) == value
    assert type(parse_yaml(text)) is type(value)


def test_a_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert read_yaml(tmp_path / "params.yaml") == {"a": 1}
