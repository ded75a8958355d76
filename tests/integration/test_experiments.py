"""Each tree runs its own code on its own files: DVC experiments, a Git worktree, two clones that share an environment.

The environment has another tree installed (the one that these tests stand in), and no PYTHONPATH.
"""

import hashlib
import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.project import environment, git, run_in

SVM_C = ("params.yaml", "svm_c: 0.4", "svm_c: 0.001")
NO_CLASS_WEIGHT = ("src/rakuten/models/linear.py", 'class_weight="balanced"', "class_weight=None")
NO_PYTHONPATH = {"PYTHONPATH": ""}


@pytest.fixture(scope="session")
def committed(once: Callable[[str, Callable[[Path], object]], Path], with_raw_data: Path) -> Path:
    """A project with its data under DVC and its results committed. Copy it, do not use it."""

    def make(folder: Path) -> None:
        shutil.copytree(with_raw_data, folder, symlinks=True)
        git(folder, "add", "--all")
        git(folder, "commit", "--quiet", "--message", "finished")

    return once("committed", make)


@pytest.fixture
def project(committed: Path, tmp_path: Path) -> Path:
    shutil.copytree(committed, tmp_path / "project", symlinks=True)
    return tmp_path / "project"


@pytest.fixture(scope="session")
def expected(
    once: Callable[[str, Callable[[Path], object]], Path], committed: Path
) -> dict[tuple[str, str, str], float]:
    """The score of each change, made in a clone of its own; both clones train at the same time, in one environment."""

    def make(folder: Path) -> None:
        clones = [folder / "parameter", folder / "code"]
        for clone, change in zip(clones, (SVM_C, NO_CLASS_WEIGHT), strict=True):
            shutil.copytree(committed, clone, symlinks=True)
            edit(clone, change)
        command = [sys.executable, "-m", "dvc", "repro", "train"]
        running = [
            subprocess.Popen(command, cwd=clone, env=environment(clone, **NO_PYTHONPATH), stdout=subprocess.DEVNULL)
            for clone in clones
        ]
        assert [process.wait(600) for process in running] == [0, 0]

    folder = once("two-clones", make)
    return {SVM_C: score(folder / "parameter"), NO_CLASS_WEIGHT: score(folder / "code")}


def edit(tree: Path, change: tuple[str, str, str]) -> None:
    name, old, new = change
    text = (tree / name).read_text(encoding="utf-8")
    assert old in text
    (tree / name).write_text(text.replace(old, new), encoding="utf-8")


def score(tree: Path) -> float:
    return float(json.loads((tree / "models" / "metrics.json").read_text(encoding="utf-8"))["weighted_f1"])


def state(tree: Path) -> dict[str, str]:
    """Digests of the model and of the results, and which version of the registry has which alias."""
    files = [path for folder in ("models", "reports", "data/processed") for path in (tree / folder).rglob("*")]
    files += [tree / "dvc.lock", tree / "params.yaml"]
    digests = {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files if path.is_file()}
    return digests | dict(query(tree, "SELECT alias, version FROM registered_model_aliases"))


def query(tree: Path, text: str) -> list[tuple[str, str]]:
    """Rows of the embedded MLflow store."""
    with closing(sqlite3.connect(tree / "mlflow.db")) as connection:
        return list(connection.execute(text))


def experiments(tree: Path) -> list[str]:
    """The names of the finished runs of DVC's experiments; other runs are named after their model."""
    runs = query(tree, "SELECT name, status FROM runs WHERE name NOT LIKE 'train-%' ORDER BY start_time")
    assert all(status == "FINISHED" for _, status in runs)
    return [name for name, _ in runs]


def experiment_scores(project: Path) -> set[float]:
    """The weighted F1 of every experiment."""
    shown = json.loads(run_in(project, "dvc", "exp", "show", "--json", **NO_PYTHONPATH))
    revisions = [
        revision["data"]
        for entry in shown
        for experiment in entry["experiments"] or []
        for revision in experiment["revs"]
    ]
    return {revision["metrics"]["models/metrics.json"]["data"]["weighted_f1"] for revision in revisions}


def test_two_clones_in_one_environment_run_their_own_code(
    committed: Path, expected: dict[tuple[str, str, str], float]
) -> None:
    assert len({score(committed), *expected.values()}) == 3


@pytest.mark.slow
def test_an_experiment_in_a_temporary_folder_leaves_the_workspace_alone(
    project: Path, expected: dict[tuple[str, str, str], float]
) -> None:
    before = state(project)
    run_in(project, "dvc", "exp", "run", "--temp", "--set-param", "train.svm_c=0.001", **NO_PYTHONPATH)
    assert state(project) == before
    assert git(project, "status", "--porcelain") == ""
    assert experiment_scores(project) == {expected[SVM_C]}

    (name,) = experiments(project)  # its run outlives its folder
    run_in(project, "dvc", "exp", "apply", name, **NO_PYTHONPATH)
    assert score(project) == expected[SVM_C]
    git(project, "commit", "--quiet", "--all", "--message", "applied")
    said = run_in(project, sys.executable, "src/models/promote.py", "--dry-run", **NO_PYTHONPATH)
    assert "the model in models is now version 2, the challenger" in said
    assert "dry run, nothing was promoted; " in said
    again = run_in(project, sys.executable, "src/models/promote.py", **NO_PYTHONPATH)
    assert "is now version" not in again
    assert "version 2 promoted over no champion" in again


def test_queued_experiments_run_at_once_each_with_its_own_code_and_parameters(
    project: Path, expected: dict[tuple[str, str, str], float]
) -> None:
    before = state(project)
    run_in(project, "dvc", "exp", "run", "--queue", "--set-param", "train.svm_c=0.001", **NO_PYTHONPATH)
    edit(project, NO_CLASS_WEIGHT)
    run_in(project, "dvc", "exp", "run", "--queue", **NO_PYTHONPATH)
    git(project, "checkout", "--", ".")
    run_in(project, "dvc", "exp", "run", "--run-all", "--jobs", "2", **NO_PYTHONPATH)
    assert state(project) == before
    assert experiment_scores(project) == set(expected.values())
    assert len(experiments(project)) == 2


def test_a_worktree_runs_its_own_code(project: Path, expected: dict[tuple[str, str, str], float]) -> None:
    before, tree = state(project), project.with_name("worktree")
    git(project, "worktree", "add", "--quiet", str(tree), "-b", "other")
    run_in(tree, "dvc", "cache", "dir", "--local", str(project / ".dvc" / "cache"), **NO_PYTHONPATH)
    edit(tree, NO_CLASS_WEIGHT)
    run_in(tree, "dvc", "checkout", "--allow-missing", **NO_PYTHONPATH)
    run_in(tree, "dvc", "repro", "train", **NO_PYTHONPATH)
    assert score(tree) == expected[NO_CLASS_WEIGHT]
    assert state(project) == before
    assert len(query(tree, "SELECT name, status FROM runs")) == 1  # in the store of the worktree
