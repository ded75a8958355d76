"""The release of an image: what a tag is named reaches no shell as a command."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.project import ROOT

IMAGE = {"NAME": "rakuten-api", "FILE": "deploy/Dockerfile.api", "TAG": "v1.2.3", "REGISTRY": "ghcr.io/Me"}
DOCKER = """#!/bin/sh
echo docker "$@" >>calls
echo '{"containerimage.digest": "sha256:0"}' >.image.json
"""
COSIGN = """#!/bin/sh
echo cosign "$@" >>calls
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the script, and docker and cosign that only note how they were called."""
    (tmp_path / "deploy").mkdir()
    shutil.copy(ROOT / "deploy" / "release_image.sh", tmp_path / "deploy")
    for name, script in (("docker", DOCKER), ("cosign", COSIGN)):
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / name).write_text(script)
        (tmp_path / "bin" / name).chmod(0o755)
    return tmp_path


def release(folder: Path, arguments: dict[str, str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = ["make", "--file", str(ROOT / "Makefile"), "release-image", *map("=".join, arguments.items())]
    env = {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}", **environment}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)


def test_an_image_is_built_and_signed_by_its_digest(folder: Path) -> None:
    for arguments, environment in ((IMAGE, {}), ({}, IMAGE)):
        done = release(folder, arguments, environment)
        assert done.returncode == 0, done.stderr
        build, sign = (folder / "calls").read_text().splitlines()
        assert "--file deploy/Dockerfile.api --tag ghcr.io/me/rakuten-api:v1.2.3 " in build
        assert sign == "cosign sign --yes ghcr.io/me/rakuten-api@sha256:0"
        (folder / "calls").unlink()


@pytest.mark.parametrize("variable", IMAGE)
@pytest.mark.parametrize(
    "value",
    ["v1;touch${IFS}x", "v1`touch x`", "$(touch x)", "$(shell touch x)", 'v1"; touch x; "', "--push", "v1\ntouch x"],
)
def test_a_name_that_holds_a_command_is_refused(folder: Path, variable: str, value: str) -> None:
    done = release(folder, {}, IMAGE | {variable: value})
    assert done.returncode == 2
    assert f"ERROR release-image: {variable} must be given, and may hold" in done.stderr
    assert not (folder / "calls").exists()
    assert not (folder / "x").exists()


def test_a_missing_variable_is_named(folder: Path) -> None:
    done = release(folder, {}, {name: value for name, value in IMAGE.items() if name != "TAG"})
    assert "ERROR release-image: TAG must be given" in done.stderr
