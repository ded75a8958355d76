"""What makes a run traceable: the commit, and the digests of data and model."""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rakuten.config import DVC_LOCK, ROOT
from rakuten.files import digest
from rakuten.yaml_files import read_yaml

MODEL_TAG = "model_digest"  # tag of a run and of a version: see `model_digest`
# What the stages read and Git tracks. Other files, changed or untracked, cannot change a result.
STAGE_INPUTS = (
    "src", "params.yaml", "dvc.yaml", "data/raw", "data/corrections", "data/encoders", "data/taxonomy.csv",
    "pyproject.toml", "uv.lock",
)  # fmt: skip
DVC_LOCK_NAME = "dvc.lock"  # of the artifact of a run
VERSION_LENGTH = 12  # hex digits of the model's digest in a prediction's model_version


def model_digest(model: Path) -> str:
    """SHA-256 of the model's manifest, which contains the digests of the model's other files."""
    return digest(model / "manifest.json")


def model_version(model: Path) -> str:
    """The model_version of predictions: the first VERSION_LENGTH digits of the model's digest.

    Two trainings that give the same model give the same version.
    """
    return model_digest(model)[:VERSION_LENGTH]


def data_digests(data: Sequence[Path]) -> dict[str, str]:
    """Path -> MD5, as DVC records it, of these files and of the raw files that they were made from."""
    return {**raw_data_digests(data), **{repo_relative(path): digest(path, "md5") for path in data}}


def raw_data_digests(data: Sequence[Path]) -> dict[str, str]:
    """Path -> MD5 of the raw files that the feature files `data` were made from, as dvc.lock records them.

    Empty unless dvc.lock records exactly these feature files.
    """
    recorded = dvc_lock_digests("features", "outs") | dvc_lock_digests("finetune", "outs")
    if not data or any(recorded.get(repo_relative(path)) != digest(path, "md5") for path in data):
        return {}
    return {path: md5 for path, md5 in dvc_lock_digests("ingest", "deps").items() if path.startswith("data/")}


def read_dvc_lock() -> dict[str, Any]:
    """The content of dvc.lock; empty if there is no such file."""
    return (read_yaml(DVC_LOCK) or {}) if DVC_LOCK.is_file() else {}


def dvc_lock_digests(stage: str, kind: str) -> dict[str, str]:
    """Path -> MD5 of a stage's `kind` (deps or outs) in dvc.lock."""
    return {entry["path"]: entry["md5"] for entry in read_dvc_lock().get("stages", {}).get(stage, {}).get(kind, [])}


def is_in_dvc_lock(model: Path) -> bool:
    """Whether dvc.lock records this model as the output of the train stage."""
    file = model / "model.safetensors"
    return file.is_file() and dvc_lock_digests("train", "outs").get(repo_relative(file)) == digest(file, "md5")


def repo_relative(path: Path) -> str:
    """A path as dvc.lock writes it: relative to the project's root, with forward slashes."""
    # A file of the project may be a link to DVC's cache, and a folder one to another disk.
    for candidate in (Path(os.path.abspath(path)), path.resolve()):  # noqa: PTH100 - it follows no link
        if candidate.is_relative_to(ROOT):
            return candidate.relative_to(ROOT).as_posix()
    return path.resolve().as_posix()


def git_tags() -> dict[str, str]:
    """git_commit, git_branch and git_dirty of the checkout; empty outside Git.

    Only changes of STAGE_INPUTS make a run dirty.
    """
    changes = git("status", "--porcelain", "--", *STAGE_INPUTS)
    commit = git("rev-parse", "HEAD")
    if not commit or changes is None:
        return {}
    branch = git("rev-parse", "--abbrev-ref", "HEAD") or ""
    return {"git_commit": commit, "git_branch": branch, "git_dirty": str(changes != "").lower()}


def git(*arguments: str) -> str | None:
    """The output of a Git command run in the project's root, without white space around it; None if it fails."""
    output = git_bytes(*arguments)
    return None if output is None else output.decode("utf-8", errors="replace").strip()


def git_bytes(*arguments: str) -> bytes | None:
    """As `git`, the output as it is."""
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout
