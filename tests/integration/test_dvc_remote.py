"""`dvc push` and `dvc pull` against a real S3 in DagsHub's shape: `s3://dvc`, an endpoint, a token as keys."""

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.project import RAW_DATA, environment, git, run_in
from tests.support.servers import KEY, S3, SECRET

DOCTOR = (sys.executable, "-m", "rakuten", "doctor")


@pytest.fixture
def remote(s3: S3) -> Iterator[S3]:
    """An empty bucket `dvc`."""
    s3.client.create_bucket(Bucket="dvc")
    yield s3
    for key in s3.keys("dvc"):
        s3.client.delete_object(Bucket="dvc", Key=key)
    s3.client.delete_bucket(Bucket="dvc")


@pytest.fixture
def complete(with_raw_data: Path, remote: S3, tmp_path: Path) -> Path:
    """A copy of it with the remote named, committed."""
    folder = tmp_path / "complete"
    shutil.copytree(with_raw_data, folder, symlinks=True)
    name_remote(folder, remote)
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "data, models and their remote")
    return folder


@pytest.fixture
def pushed(complete: Path) -> Path:
    run_in(complete, "dvc", "push")
    return complete


def name_remote(project: Path, remote: S3, key: str = KEY, secret: str = SECRET) -> None:
    keys = {"S3_ACCESS_KEY_ID": key, "S3_SECRET_ACCESS_KEY": secret}
    run_in(project, sys.executable, "-m", "rakuten", "remote", "s3://dvc", "--endpoint", remote.url, **keys)


def clone(project: Path, folder: Path) -> Path:
    subprocess.run(["git", "clone", "--quiet", str(project), str(folder)], check=True)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """The bytes of each file that DVC restores in a project, by path."""
    folders = ("data/raw", "data/interim", "data/processed", "models", "reports")
    files = (file for name in folders for file in (folder / name).rglob("*") if file.is_file())
    not_restored = (".gitignore", "run.json")
    return {str(file.relative_to(folder)): file.read_bytes() for file in files if file.name not in not_restored}


def test_make_add_data_puts_the_raw_files_under_dvc(with_raw_data: Path) -> None:
    assert f"dvc add {' '.join(RAW_DATA)}" in run_in(with_raw_data, "make", "--dry-run", "add-data")


def test_git_has_neither_data_nor_keys(pushed: Path) -> None:
    tracked = git(pushed, "ls-files", "data", "models", "reports").splitlines()
    assert {file for file in tracked if not file.endswith((".dvc", ".gitignore", "README.md"))} == {
        "data/taxonomy.csv", "models/metrics.json", "reports/data_quality.json", "reports/decisions.json",
        "reports/near_duplicates.json",
    }  # fmt: skip
    assert "data/raw/images.dvc" in tracked  # one directory
    assert all(SECRET not in (pushed / file).read_text() for file in git(pushed, "ls-files", ".dvc").splitlines())
    assert SECRET in (pushed / ".dvc" / "config.local").read_text()
    assert git(pushed, "status", "--porcelain") == ""


def test_a_clone_without_its_data_is_told_to_pull(pushed: Path, tmp_path: Path) -> None:
    second = clone(pushed, tmp_path / "second")
    assert "under DVC but not here: `dvc pull`" in run_in(second, *DOCTOR, code=1)
    assert "`dvc pull`" in run_in(second, sys.executable, "-m", "rakuten", "sample", "--if-absent", code=1)


def test_a_second_clone_pulls_everything_and_reproduces_nothing(pushed: Path, remote: S3, tmp_path: Path) -> None:
    second = clone(pushed, tmp_path / "second")
    name_remote(second, remote)
    run_in(second, "dvc", "pull")
    assert contents(second) == contents(pushed)
    output = run_in(second, "dvc", "repro")
    assert "Data and pipelines are up to date" in output
    assert "Running stage" not in output
    assert "ok      DVC remote   dvc/files/md5 answers" in run_in(second, *DOCTOR)
    assert git(second, "status", "--porcelain") == ""


def test_a_wrong_token_is_said_and_nothing_is_lost(pushed: Path, remote: S3, tmp_path: Path) -> None:
    second = clone(pushed, tmp_path / "second")
    name_remote(second, remote, "wrong", "token")
    assert "ERROR" in run_in(second, "dvc", "pull", code=1)
    doctor = run_in(second, *DOCTOR, code=1)
    assert "FAILED  DVC remote" in doctor
    assert "check .dvc/config and the keys" in doctor
    assert "Traceback" not in doctor
    name_remote(second, remote)
    run_in(second, "dvc", "pull")
    assert contents(second) == contents(pushed)


def test_a_corrupted_object_is_not_taken(pushed: Path, remote: S3, tmp_path: Path) -> None:
    model = pushed / "models" / "model.safetensors"
    stored = next(key for key in remote.keys("dvc") if size_of(remote, key) == model.stat().st_size)
    content = remote.client.get_object(Bucket="dvc", Key=stored)["Body"].read()
    remote.client.put_object(Bucket="dvc", Key=stored, Body=content[:-1] + bytes([content[-1] ^ 1]))
    second = clone(pushed, tmp_path / "second")
    name_remote(second, remote)
    assert "ERROR" in run_in(second, "dvc", "pull", code=1)
    assert not (second / "models" / "model.safetensors").exists()
    # A clone that still has it sends it again.
    remote.client.delete_object(Bucket="dvc", Key=stored)
    run_in(pushed, "dvc", "push")
    run_in(second, "dvc", "pull")
    assert contents(second) == contents(pushed)


def size_of(remote: S3, key: str) -> int:
    return int(remote.client.head_object(Bucket="dvc", Key=key)["ContentLength"])


@pytest.mark.slow
def test_a_server_that_dies_in_mid_push_is_pushed_to_again(finished: Path, remote: S3, tmp_path: Path) -> None:
    # Few files, and one try for each: DVC asks a server that is gone about all of them.
    project = tmp_path / "project"
    shutil.copytree(finished, project, symlinks=True)
    name_remote(project, remote)
    env = environment(project, AWS_MAX_ATTEMPTS="1")
    push = subprocess.Popen(["dvc", "push", "--jobs", "1"], cwd=project, env=env, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 240
    while not remote.keys("dvc"):  # without a pause: the push must not end in it
        assert push.poll() is None, "the push ended before it could be cut"
        assert time.monotonic() < deadline, "no object came"
    remote.stop()
    _, errors = push.communicate(timeout=240)
    assert push.returncode != 0, errors
    assert "ERROR" in errors
    remote.start()
    assert remote.keys("dvc")  # some of it had been sent
    assert "pushed" in run_in(project, "dvc", "push")
    assert "in sync" in run_in(project, "dvc", "status", "--cloud")
