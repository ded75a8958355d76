"""What a run is traced by: the commit, and the digests of data and model."""

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from rakuten.config import DVC_LOCK, ROOT
from rakuten.files import digest

MODEL_TAG = "model_digest"  # SHA-256 of the model's manifest: leads from a model back to its run
PIPELINE_PATHS = ("dvc.lock", "models", "reports", ".dvc/config")
VERSION_LENGTH = 12  # hex digits of it that predictions carry


def model_digest(model: Path) -> str:
    """SHA-256 of the manifest, which holds those of the model's other files."""
    return digest(model / "manifest.json")


def model_version(model: Path) -> str:
    """The model's version as predictions carry it: the same model, trained twice, has the same."""
    return model_digest(model)[:VERSION_LENGTH]


def data_digests(data: Sequence[Path]) -> dict[str, str]:
    """MD5, as DVC records it, of these files and of the raw files behind them, by path."""
    return {**raw_data_digests(data), **{repo_relative(path): digest(path, "md5") for path in data}}


def raw_data_digests(data: Sequence[Path]) -> dict[str, str]:
    """Digests of the raw files behind these files, from dvc.lock; none unless it tells of these very files."""
    made = dvc_lock_digests("features", "outs")
    if not data or any(made.get(repo_relative(path)) != digest(path, "md5") for path in data):
        return {}
    return {path: md5 for path, md5 in dvc_lock_digests("ingest", "deps").items() if path.startswith("data/raw/")}


def read_dvc_lock() -> dict[str, Any]:
    """dvc.lock as it stands; empty where there is none."""
    return (yaml.safe_load(DVC_LOCK.read_text(encoding="utf-8")) or {}) if DVC_LOCK.is_file() else {}


def dvc_lock_digests(stage: str, kind: str) -> dict[str, str]:
    """Path -> MD5 of a stage's deps or outs in dvc.lock."""
    return {entry["path"]: entry["md5"] for entry in read_dvc_lock().get("stages", {}).get(stage, {}).get(kind, [])}


def is_in_dvc_lock(model: Path) -> bool:
    """Whether dvc.lock tells of this very model."""
    file = model / "model.safetensors"
    return dvc_lock_digests("train", "outs").get(repo_relative(file)) == digest(file, "md5")


def repo_relative(path: Path) -> str:
    """A path as dvc.lock has it: from the project's root, with forward slashes."""
    path = path.resolve()
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else path.as_posix()


def git_tags() -> dict[str, str]:
    """git_commit, git_branch and git_dirty of the checkout; empty where there is no Git.

    What the pipeline itself rewrites, or only says where the DVC remote is (REWRITTEN), does not make a run dirty.
    """
    dirty = git("status", "--porcelain", "--", ".", *(f":(exclude){path}" for path in PIPELINE_PATHS))
    commit = git("rev-parse", "HEAD")
    if not commit or dirty is None:
        return {}
    branch = git("rev-parse", "--abbrev-ref", "HEAD") or ""
    return {"git_commit": commit, "git_branch": branch, "git_dirty": str(dirty != "").lower()}


def git(*arguments: str) -> str | None:
    """What Git says in the project's root; None where it cannot."""
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
