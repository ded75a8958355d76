"""Copies of the project, and commands run in them."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import yaml

ROOT = Path(__file__).resolve().parents[2]
RAW_DATA = ("data/raw/X_train.csv", "data/raw/Y_train.csv", "data/raw/X_test.csv", "data/raw/images")


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
    own = ("MLFLOW_", "DVC_", "AWS_", "S3_", "DAGSHUB_", "API_", "REVIEW_", "COVERAGE_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(own)}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    python_path = os.pathsep.join([str(folder / "src"), str(folder)])
    # pytest-xdist's processes share the cores: to start one more process for each core takes longer than it saves.
    return kept | {"PYTHONPATH": python_path, "PATH": path, "LOKY_MAX_CPU_COUNT": "1"} | more


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.com"]
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def load_script(path: str) -> ModuleType:
    """Import a script of this project, given from its root, as a module: `load_script("src/models/train_model.py")`."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
