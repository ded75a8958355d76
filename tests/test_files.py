import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rakuten.errors import UserError
from rakuten.files import (
    atomic_write,
    clear_scratch,
    digest,
    dump_json,
    is_local,
    parse_path,
    partial_path,
    remove_leftovers,
    scratch_folder,
    write_secret,
)


def test_all_files_appear_together(tmp_path: Path) -> None:
    a, b = tmp_path / "new" / "a", tmp_path / "b"
    with atomic_write(a, b) as (partial_a, partial_b):
        partial_a.write_text("a")
        partial_b.write_text("b")
        assert not a.exists()
        assert not b.exists()
    assert (a.read_text(), b.read_text()) == ("a", "b")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "b", "new"]


def test_a_failure_leaves_the_files_as_they_were(tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.write_text("before")
    with pytest.raises(OSError, match="disk full"), atomic_write(old, tmp_path / "other") as (partial, _):
        partial.write_text("half")
        raise OSError("disk full")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("old", "before")]


def test_a_full_disk_is_named_with_the_folder_that_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = {tmp_path / "a": 5, tmp_path / "b": 3, tmp_path: 7}
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("shutil.disk_usage", lambda folder: shutil._ntuple_diskusage(9, 9, free[Path(folder)]))  # type: ignore[attr-defined]
    with (
        pytest.raises(OSError, match="No space left") as caught,
        atomic_write(tmp_path / "a" / "1", tmp_path / "b" / "2") as (partial, _),
    ):
        partial.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.filename == str(tmp_path / "b")


def test_a_failure_leaves_no_new_folder(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    targets = (tmp_path / "new" / "a", tmp_path / "old" / "b")
    with pytest.raises(ValueError, match="no"), atomic_write(*targets) as (partial, _):
        partial.write_text("half")
        raise ValueError("no")
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


def test_json_depends_on_its_content_alone(tmp_path: Path) -> None:
    dump_json({"b": 1, "a": "é"}, tmp_path / "one")
    dump_json({"a": "é", "b": 1}, tmp_path / "two")
    assert (tmp_path / "one").read_bytes() == '{\n  "a": "é",\n  "b": 1\n}\n'.encode()
    assert (tmp_path / "two").read_bytes() == (tmp_path / "one").read_bytes()


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_json_has_no_nan_or_infinity(number: float, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        dump_json({"a": number}, tmp_path / "a.json")


def test_digests_are_the_published_ones(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert digest(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert digest(tmp_path / "a", "md5") == "900150983cd24fb0d6963f7d28e17f72"


def test_a_scratch_folder_is_removed_at_the_end(tmp_path: Path) -> None:
    with scratch_folder(tmp_path / "scratch") as folder:
        (folder / "a").write_text("a")
    assert not folder.exists()
    with pytest.raises(ValueError, match="no"), scratch_folder(tmp_path / "scratch") as folder:
        raise ValueError("no")
    assert not folder.exists()


def test_only_one_run_at_a_time_uses_a_scratch_folder(tmp_path: Path) -> None:
    with scratch_folder(tmp_path / "scratch") as folder:
        (folder / "a").write_text("a")
        with pytest.raises(UserError, match="another run is using it"), scratch_folder(tmp_path / "scratch"):
            pass
        assert (folder / "a").exists()


def test_a_scratch_folder_does_not_have_the_files_of_a_killed_run(tmp_path: Path) -> None:
    with scratch_folder(tmp_path / "scratch") as folder:
        (folder / "a").write_text("a")
        shutil.copytree(folder, tmp_path / "copy")
    shutil.copytree(tmp_path / "copy", folder)
    with scratch_folder(tmp_path / "scratch") as folder:
        assert list(folder.iterdir()) == []


def test_a_path_may_be_a_url(tmp_path: Path) -> None:
    assert parse_path(str(tmp_path)) == tmp_path
    assert is_local(parse_path("data/raw"))
    file = parse_path(f"memory://{tmp_path.name}/a")
    assert not is_local(file)
    file.write_bytes(b"abc")
    assert digest(file, "md5") == "900150983cd24fb0d6963f7d28e17f72"


def test_a_secret_is_readable_by_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "new" / "key"
    for text in ("one", "two"):
        write_secret(path, text)
        assert path.read_text() == text
        assert path.stat().st_mode & 0o777 == 0o600
        path.chmod(0o644)  # as another tool may leave it


LEAVE = """
import os, pathlib, signal
from rakuten.files import atomic_write, scratch_folder
folder = pathlib.Path(os.environ["FOLDER"])
with atomic_write(folder / "a") as (partial,), scratch_folder(folder / "scratch") as scratch:
    partial.write_text("half")
    (scratch / "b").write_text("half")
    print(partial.name, flush=True)
    if os.environ.get("WAIT"):
        signal.pause()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def leave(folder: Path, **env: str) -> "subprocess.Popen[str]":
    """A process that writes half of a file and, unless it waits, is killed."""
    environment = os.environ | {"FOLDER": str(folder), **env}
    return subprocess.Popen([sys.executable, "-c", LEAVE], env=environment, stdout=subprocess.PIPE, text=True)


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    leave(tmp_path).communicate()
    assert len(list(tmp_path.glob(".a.*.partial"))) == 1
    assert (tmp_path / "scratch" / "work" / "b").exists()
    remove_leftovers(tmp_path)
    clear_scratch(tmp_path / "scratch")
    assert [path.name for path in tmp_path.rglob("*") if path.name != ".lock"] == ["scratch"]
    assert not (tmp_path / "a").exists()


def test_what_a_living_process_writes_stays(tmp_path: Path) -> None:
    with leave(tmp_path, WAIT="1") as process:
        assert process.stdout
        name = process.stdout.readline().strip()
        with atomic_write(tmp_path / "a") as (partial,):
            partial.write_text("whole")
        clear_scratch(tmp_path / "scratch")
        assert (tmp_path / name).exists()
        assert (tmp_path / "scratch" / "work" / "b").exists()
        process.kill()
    with atomic_write(tmp_path / "c") as (partial,):  # whatever is written next
        partial.write_text("whole")
    assert not list(tmp_path.glob(".*.partial"))
    assert (tmp_path / "a").read_text() == "whole"


def test_what_another_machine_writes_stays(tmp_path: Path) -> None:
    (tmp_path / ".a.00000000-999999999-00000000.partial").touch()
    (tmp_path / ".another.partial").touch()
    remove_leftovers(tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_link_at_a_temporary_path_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    (tmp_path / ".a.partial").symlink_to(tmp_path / "precious")
    assert partial_path(tmp_path / "a") != partial_path(tmp_path / "a")
    with atomic_write(tmp_path / "a") as (partial,):
        partial.write_text("a")
    assert (tmp_path / "precious").read_text() == "precious"
