"""Copies of the project, and commands run in them."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import yaml

from rakuten.monitoring.prediction_log import COLUMNS, append

ROOT = Path(__file__).resolve().parents[2]


def copy_project(folder: Path, quick: bool = False) -> Path:
    """Copy the project as Git sees it into a repository of its own.

    Args:
        quick: with parameters that make a training short: no encoders, few n-grams, few resamples.
    """
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    for file in filter(None, listed.split("\0")):
        if (ROOT / file).is_file():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / file, folder / file)
    if quick:
        params = yaml.safe_load((folder / "params.yaml").read_text(encoding="utf-8"))
        params["features"] |= {"image_encoder": "none", "text_encoder": "none"}
        params["train"] |= {"bootstrap": 50, "folds": 3, "blocks": params["train"]["blocks"][:1]}
        (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")
    git(folder, "init", "--quiet", "--initial-branch=main")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "as tested")
    return folder


def run_in(folder: Path, *command: str, code: int = 0, **more: str) -> str:
    """Run a command in a clone, with the clone's own `src`, this Python, and no server or key but those given."""
    done = subprocess.run(
        command, cwd=folder, env=environment(folder, **more), capture_output=True, text=True, timeout=900
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def environment(folder: Path, **more: str) -> dict[str, str]:
    # COVERAGE_: what runs in a clone is not this project's files, and being watched takes twice the time.
    own = ("MLFLOW_", "DVC_", "AWS_", "S3_", "DAGSHUB_", "API_", "COVERAGE_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(own)}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return kept | {"PYTHONPATH": str(folder), "PATH": path} | more


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.com"]
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def log_window(live: Path, window: pd.DataFrame, model_version: str, first: int = 0) -> list[str]:
    """Put a window (columns WATCHED) into a live log; returns its prediction ids, numbered from `first`."""
    ids = [f"p{first + at}" for at in range(len(window))]
    named = {"time": time.time(), "model_version": model_version, "designation": None, "description": None}
    rows = window.assign(**named, prediction_id=ids)[list(COLUMNS)].astype(object)
    append(live / "2026-01-01.sqlite", list(rows.where(rows.notna(), None).itertuples(index=False)))
    return ids
