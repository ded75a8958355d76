"""src/models/promote.py on versions that real trainings registered, in an embedded store."""

import shutil
import sys
from pathlib import Path

import mlflow
import pandas as pd
import pytest

from rakuten.data.schema import X_COLUMNS
from rakuten.data.synthetic import write_catalogue
from rakuten.data.tables import read_raw
from rakuten.tracking.registry import CHALLENGER, CHAMPION, MODEL_NAME
from tests.support.catalogue import add_labelled
from tests.support.project import git, run_in

PROMOTE = (sys.executable, "src/models/promote.py")


@pytest.fixture(scope="module")
def promoted(tmp_path_factory: pytest.TempPathFactory, finished: Path) -> Path:
    """A project whose first model is trained and promoted. Copy it, do not use it."""
    folder = tmp_path_factory.mktemp("promote") / "project"
    shutil.copytree(finished, folder, symlinks=True)
    assert "version 1 promoted over no champion" in run_in(folder, *PROMOTE)
    return folder


@pytest.fixture
def project(promoted: Path, tmp_path: Path) -> Path:
    """A copy of it. Its store has the artifacts in the folder of the first, which is only read."""
    folder = tmp_path / "project"
    shutil.copytree(promoted, folder, symlinks=True)
    return folder


def train_with(folder: Path, **params: tuple[str, str]) -> None:
    """Change parameters, `name=(before, after)`, commit them, so that the run can be traced, and train."""
    path = folder / "params.yaml"
    text = path.read_text()
    for name, (before, after) in params.items():
        assert f"{name}: {before}" in text
        text = text.replace(f"{name}: {before}", f"{name}: {after}")
    path.write_text(text)
    git(folder, "commit", "--quiet", "--all", "--message", "other parameters")
    run_in(folder, "dvc", "repro")


def client_of(folder: Path) -> mlflow.MlflowClient:
    uri = f"sqlite:///{folder}/mlflow.db"
    mlflow.set_tracking_uri(uri)
    return mlflow.MlflowClient(uri)


def number(folder: Path, alias: str) -> str:
    return str(client_of(folder).get_model_version_by_alias(MODEL_NAME, alias).version)


def test_a_worse_challenger_is_held_back_and_the_decision_is_recorded(project: Path) -> None:
    train_with(project, svm_c=("0.4", "0.00001"))
    assert "dry run, nothing was promoted" in run_in(project, *PROMOTE, "--dry-run")
    assert "promotion" not in client_of(project).get_model_version(MODEL_NAME, "2").tags
    output = run_in(project, *PROMOTE)
    assert "version 2 not promoted, champion stays version 1 (" in output
    assert "FAILED weighted F1 -" in output
    assert "compared on 300 products" in output
    assert (number(project, CHAMPION), number(project, CHALLENGER)) == ("1", "2")
    for version in ("1", "2"):
        tags = client_of(project).get_model_version(MODEL_NAME, version).tags
        assert "version 2 not promoted" in tags["promotion"]


def test_a_better_challenger_is_promoted_and_can_be_rolled_back(project: Path) -> None:
    train_with(project, min_gain=("0.0", "-1.0"), max_class_drop=("0.05", "1.0"), seed=("42", "43"))
    assert "promoted over version 1" in run_in(project, *PROMOTE, "--dry-run")
    assert number(project, CHAMPION) == "1"
    run_in(project, *PROMOTE)
    assert number(project, CHAMPION) == "2"
    assert "nothing to decide" in run_in(project, *PROMOTE)
    assert "rolled back to version 1" in run_in(project, *PROMOTE, "--rollback", "--dry-run")
    assert number(project, CHAMPION) == "2"
    assert "rolled back to version 1" in run_in(project, *PROMOTE, "--rollback")
    assert number(project, CHAMPION) == "1"
    assert "version 2 was rolled back: train another" in run_in(project, *PROMOTE, code=1)
    assert "no previous champion to go back to" in run_in(project, *PROMOTE, "--rollback", code=1)


@pytest.fixture(scope="module")
def grown(promoted: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The promoted project with a challenger trained on 100 more products. Copy it, do not use it.

    One of the new products has a title that the champion was trained on.
    """
    folder, new = tmp_path_factory.mktemp("grown") / "project", tmp_path_factory.mktemp("new")
    shutil.copytree(promoted, folder, symlinks=True)
    write_catalogue(100, 1, 9, new)
    seen_title = read_raw(folder / "data" / "raw" / "X_train.csv", X_COLUMNS)["designation"].iloc[0]
    table = pd.read_csv(new / "X_train.csv", dtype="str", keep_default_na=False)
    table.loc[0, "designation"] = seen_title
    table.rename(columns={"Unnamed: 0": ""}).to_csv(new / "X_train.csv", index=False)
    add_labelled(folder, new)
    git(folder, "commit", "--quiet", "--all", "--message", "dvc.lock of version 1")
    run_in(folder, "dvc", "repro")
    return folder


@pytest.fixture
def grown_project(grown: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    shutil.copytree(grown, folder, symlinks=True)
    return folder


def test_the_champion_predicts_products_that_are_new_to_it(grown_project: Path) -> None:
    output = run_in(grown_project, *PROMOTE, "--dry-run")
    assert "the champion was not trained on 99 of these products" in output
    assert "compared on 399 products" in output


@pytest.mark.slow
def test_products_that_were_cleaned_in_another_way_are_not_predicted(grown_project: Path) -> None:
    train_with(grown_project, strip_accents=("true", "false"))
    output = run_in(grown_project, *PROMOTE, "--dry-run")
    assert "the champion's features were made with other parameters" in output
    assert "compared on 300 products" in output


def test_without_the_challengers_features_the_products_of_both_are_compared(grown_project: Path) -> None:
    (grown_project / "data" / "processed" / "train_features.csv").unlink()
    output = run_in(grown_project, *PROMOTE, "--dry-run")
    assert "the challenger's features are not here" in output
    assert "compared on 300 products" in output


def test_the_natural_order_is_allowed(project: Path) -> None:
    """Edit, `dvc repro`, look, commit, promote: refused before the commit, with what to do, and traced after it."""
    module = project / "src" / "models" / "train_model.py"  # predict does not depend on it: the model is the same
    module.write_text(module.read_text() + "\n# changed\n")
    (project / "photo.jpg").write_bytes(b"nobody's business")
    run_in(project, "dvc", "repro")
    refused = run_in(project, *PROMOTE, "--dry-run", code=1)
    assert "cannot be traced: no commit has the dvc.lock of its training: commit the code, params.yaml" in refused
    git(project, "add", "dvc.lock")
    git(project, "commit", "--quiet", "--message", "the lock alone")
    assert "has its dvc.lock, but another src/models/train_model.py: commit" in run_in(
        project, *PROMOTE, "--dry-run", code=1
    )
    git(project, "add", "src", "dvc.lock", "models", "reports")
    git(project, "commit", "--quiet", "--message", "train_model.py changed")
    commit = git(project, "rev-parse", "HEAD")
    run_in(project, *PROMOTE)
    traced = run_in(project, sys.executable, "-m", "rakuten", "trace", "2")
    assert f"git checkout {commit}" in traced
    assert "this commit has the files that it was trained with" in traced
    assert "are lost" not in traced


def test_a_model_that_was_trained_without_dvc_is_refused(project: Path) -> None:
    """dvc.lock does not record its features, so the raw data behind them is unknown."""
    git(project, "commit", "--quiet", "--all", "--message", "dvc.lock of version 1")
    (project / "dvc.lock").unlink()
    run_in(project, sys.executable, "src/models/train_model.py")
    assert "missing digests of the raw data" in run_in(project, *PROMOTE, code=1)
    assert number(project, CHAMPION) == "1"


def test_without_a_challenger_there_is_nothing_to_promote(workshop: Path, tmp_path: Path) -> None:
    shutil.copytree(workshop, tmp_path / "project", symlinks=True)
    assert "has no challenger" in run_in(tmp_path / "project", *PROMOTE, code=1)
