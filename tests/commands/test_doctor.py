"""The doctor's findings, each state once, and that it changes nothing."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rakuten.commands import doctor
from tests.support.project import run_in

COMMAND = (sys.executable, "-m", "rakuten", "doctor")


def snapshot(folder: Path) -> dict[str, bytes]:
    files = (file for file in folder.rglob("*") if file.is_file() and ".git" not in file.parts)
    return {
        str(file): file.read_bytes() for file in files if "__pycache__" not in file.parts and "tmp" not in file.parts
    }


def test_a_fresh_clone_is_sound_and_stays_as_it_is(clone: Callable[[str], Path]) -> None:
    folder = clone("fresh")
    before = snapshot(folder)
    said = run_in(folder, *COMMAND)
    assert said.count("\n  ok") + said.startswith("  ok") == 7
    assert "note  DVC remote   not named yet: `make remote URL=" in said
    assert "note  data         none in data/raw: `make run`" in said
    assert snapshot(folder) == before


def test_what_is_wrong_is_said_with_its_mend(clone: Callable[[str], Path]) -> None:
    folder = clone("broken")
    lock = folder / "requirements.txt"
    lock.write_text(lock.read_text().replace("\npandas==2", "\npandas==1") + "\nno-such-package==1.0\n")
    (folder / "params.yaml").write_text("seed: 1\n")
    (folder / ".env").write_text("MLFLOW_TRACKING_URI=http://127.0.0.1:9\nMLFLOW_TRAKING=1\nPOSTGRES_PASWORD=x\n")
    (folder / "data" / "raw").mkdir(parents=True)
    (folder / "data" / "raw" / "X_train_update.csv").write_text("")
    run_in(folder, sys.executable, "-m", "rakuten", "remote", str(folder / "away"))
    said = run_in(folder, *COMMAND, code=1)
    for line in (
        "BAD   lock         not as locked: pandas 2",
        "no-such-package absent (==1.0); `pip install -r requirements.txt`",
        "note  .env         .env sets POSTGRES_PASWORD, which nothing here reads",
        "BAD   params.yaml",
        "BAD   tracking     the tracking server http://127.0.0.1:9 does not answer",
        "BAD   artifacts    the tracking server http://127.0.0.1:9 does not answer",
        "BAD   data         X_train.csv is missing from data/raw. The challenge's own X_train_update.csv is there",
        "BAD   compute      ",
        "ERROR doctor: 6 of 9 checks failed",
    ):
        assert line in said
    assert "Traceback" not in said


def test_an_env_that_git_would_take_is_bad(clone: Callable[[str], Path]) -> None:
    folder = clone("leaking")
    (folder / ".env").write_text("POSTGRES_PASSWORD=x\n")
    (folder / ".env").chmod(0o600)
    assert "ok    .env         .env sets POSTGRES_PASSWORD" in run_in(folder, *COMMAND)
    (folder / ".gitignore").write_text("")
    said = run_in(folder, *COMMAND, code=1)
    assert "BAD   .env         .env is not ignored by Git" in said


def test_every_name_in_env_example_is_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor, "ENV", tmp_path / ".env")
    lines = doctor.ENV_EXAMPLE.read_text(encoding="utf-8").splitlines()
    (tmp_path / ".env").write_text(
        "\n".join(line.removeprefix("#") for line in lines if "=" in line and "# " not in line)
    )
    (tmp_path / ".env").chmod(0o600)
    assert doctor.check_env().state == doctor.PASSED


def test_a_python_that_is_too_old_is_bad(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.sys, "version_info", (3, 10, 1, "final", 0))
    assert doctor.check_python().state == doctor.FAILED
