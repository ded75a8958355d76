"""`rakuten keys`."""

from pathlib import Path

import pytest

from rakuten.commands.keys import main
from rakuten.serving.keys import ApiKeys, Owner
from rakuten.serving.roles import Role


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("API_KEYS_FILE", str(tmp_path / "keys.txt"))
    return tmp_path / "keys.txt"


def test_the_key_alone_is_written_to_standard_output(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["one"]) == 0
    output = capsys.readouterr()
    assert ApiKeys(path).owner(output.out.rstrip("\n")) == Owner("one", Role.CLASSIFY)
    assert str(path) in output.err


def test_a_key_is_made_for_a_role(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["one", "--role", "review"]) == 0
    assert ApiKeys(path).owner(capsys.readouterr().out.rstrip("\n")) == Owner("one", Role.REVIEW)


def test_a_second_key_for_a_name_is_an_error(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["one"]) == 0
    capsys.readouterr()
    assert main(["one"]) == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert "one has a key" in output.err


def test_a_key_can_go_into_a_file_that_its_owner_alone_can_read(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["one", "--output", str(tmp_path / "one.key")]) == 0
    output = capsys.readouterr()
    key = (tmp_path / "one.key").read_text()
    assert ApiKeys(path).owner(key) == Owner("one", Role.CLASSIFY)
    assert key not in output.out + output.err
    assert (tmp_path / "one.key").stat().st_mode & 0o777 == 0o600


def test_a_key_that_cannot_be_written_is_not_made(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "folder").mkdir()
    assert main(["one", "--output", str(tmp_path / "folder")]) == 1
    assert "folder" in capsys.readouterr().err
    assert not path.exists()
