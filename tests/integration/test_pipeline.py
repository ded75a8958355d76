"""The whole pipeline by real `dvc repro`, on the sample, in clones of the project."""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import mlflow
import pandas as pd
import pytest
import yaml

from rakuten.files import digest
from tests.support.project import ROOT, copy_project, environment, git
from tests.support.project import run_in as run

Clone = Callable[[str], Path]
PIPELINE = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
TRAINED_ON = ("train_features.csv", "train_groups.npy", "train_texts.npy", "train_images.npy")


def with_sample(folder: Path, sample: Path) -> Path:
    shutil.copytree(sample, folder / "data" / "raw")
    return folder


def runs_of(folder: Path) -> list[mlflow.entities.Run]:
    """Runs recorded in a clone, the newest first."""
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    return list(mlflow.search_runs(experiment_names=["rakuten-baseline"], output_format="list"))


@pytest.fixture
def second(trained: Path, tmp_path: Path) -> Path:
    """A copy of a project that ran once, to change."""
    live = shutil.ignore_patterns("live")  # where an API of another test may be writing
    shutil.copytree(trained, tmp_path / "second", symlinks=True, ignore=live)
    return tmp_path / "second"


def test_the_stages_run_in_order_and_call_synthetic_data_synthetic(trained: Path) -> None:
    log = trained.with_suffix(".log").read_text(encoding="utf-8")
    positions = [log.index(f"INFO {stage}") for stage in ("ingest", "features", "train", "predict")]
    assert positions == sorted(positions)
    assert "SYNTHETIC" in log


def test_every_test_product_is_predicted_in_the_order_of_the_raw_file(trained: Path, sample: Path) -> None:
    quality = json.loads((trained / "reports" / "data_quality.json").read_text())
    predictions = pd.read_csv(trained / "data" / "processed" / "predictions.csv", dtype=str)
    assert quality["train"]["rows_in"] == 300
    assert predictions["productid"].tolist() == pd.read_csv(sample / "X_test.csv", dtype=str)["productid"].tolist()


def test_the_run_holds_the_dvc_lock_the_data_digests_and_the_commit(trained: Path) -> None:
    lock = yaml.safe_load((trained / "dvc.lock").read_text())["stages"]
    (logged,) = runs_of(trained)
    attached = yaml.safe_load(
        Path(mlflow.artifacts.download_artifacts(f"runs:/{logged.info.run_id}/dvc.lock")).read_text()
    )
    assert attached["stages"]["train"] == lock["train"]
    inputs = {entry.dataset.name: entry.dataset.digest for entry in logged.inputs.dataset_inputs}
    raw = {Path(entry["path"]).name: entry["md5"] for entry in lock["ingest"]["deps"]}
    assert inputs == {
        **{
            name: raw[name]
            for name in ("X_train.csv", "Y_train.csv", "X_test.csv", "images", "corrections", "taxonomy.csv")
        },
        **{name: digest(trained / "data" / "processed" / name, "md5") for name in TRAINED_ON},
    }
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=trained, capture_output=True, text=True, check=True)
    assert logged.data.tags["git_commit"] == head.stdout.strip()
    assert (logged.data.tags["git_branch"], logged.data.tags["git_dirty"]) == ("main", "false")


def test_nothing_runs_the_second_time_and_the_summary_shows_what_there_is(second: Path) -> None:
    assert "Data and pipelines are up to date" in run(second, "dvc", "repro")
    table = run(second, sys.executable, "-m", "rakuten", "summary")
    assert "300 read, 0 rejected" in table
    assert "SYNTHETIC" in table
    assert "of 60 test products without review" in table
    assert "mlflow ui --backend-store-uri sqlite:///mlflow.db" in table


@pytest.mark.slow
def test_the_same_training_forced_is_a_second_run_with_the_same_dvc_lock(second: Path) -> None:
    before = (second / "dvc.lock").read_bytes()
    run(second, "dvc", "repro", "--force", "--single-item", "train")
    assert (second / "dvc.lock").read_bytes() == before
    run(second, sys.executable, "-m", "rakuten", "summary")  # attaches dvc.lock, since no later stage ran
    new = runs_of(second)[0]
    assert "dvc_lock" in new.data.tags
    assert new.info.run_id != runs_of(second)[-1].info.run_id


def test_a_parameter_of_the_model_reruns_train_and_predict_only(second: Path) -> None:
    (second / "README.md").write_text("changed")
    params = second / "params.yaml"
    params.write_text(params.read_text().replace("target_precision: 0.95", "target_precision: 0.7"))
    log = run(second, "dvc", "repro")
    ran = [stage for stage in ("ingest", "features", "train", "predict") if f"Running stage '{stage}'" in log]
    assert ran == ["train", "predict"]
    assert runs_of(second)[0].data.tags["git_dirty"] == "true"
    reviewed = pd.read_csv(second / "data" / "processed" / "predictions.csv")
    decisions = json.loads((second / "reports" / "decisions.json").read_text())
    assert decisions["target_precision"] == 0.7
    is_unsure = reviewed["confidence"] < decisions["threshold"]
    assert reviewed["needs_review"].tolist() == (is_unsure | reviewed["is_novel"]).tolist()
    assert decisions["decided"] == (~reviewed["needs_review"]).sum() > 20


# Kills its process group, DVC included, when the script named by KILL is about to rename its second file.
KILLER = """
import os, pathlib, signal, sys
renamed = []
right = pathlib.Path.replace
def replace(self, target):
    if sys.argv[0].endswith(os.environ.get("KILL", "nothing")) and self.name.endswith(".partial"):
        renamed.append(self)
        if len(renamed) == 2:
            os.killpg(0, signal.SIGKILL)
    return right(self, target)
pathlib.Path.replace = replace
"""


@pytest.mark.slow
def test_another_clone_whose_stages_are_killed_ends_with_the_same_bytes(finished: Path, tmp_path: Path) -> None:
    folder = copy_project(tmp_path / "killed", quick=True)
    shutil.copytree(finished / "data" / "raw", folder / "data" / "raw")
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook" / "sitecustomize.py").write_text(KILLER)
    for stage in PIPELINE:
        script = PIPELINE[stage]["cmd"].removeprefix("python ")
        env = environment(folder, KILL=script, PYTHONPATH=str(tmp_path / "hook"))
        killed = subprocess.run(["dvc", "repro"], cwd=folder, env=env, start_new_session=True, capture_output=True)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert script.encode() in killed.stdout
    run(folder, "dvc", "repro")
    assert (folder / "dvc.lock").read_bytes() == (finished / "dvc.lock").read_bytes()
    for file in ("data/processed/predictions.csv", "models/manifest.json", "reports/model_card.md"):
        assert (folder / file).read_bytes() == (finished / file).read_bytes()
    assert not list(folder.rglob("*.partial"))


def test_an_experiment_has_one_name_in_dvc_and_mlflow(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "project"
    shutil.copytree(finished, folder, symlinks=True)
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "ran")
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    before = {found.info.run_id for found in runs_of(folder)}
    run(folder, "dvc", "exp", "run", "--name", "softer-margin", "--set-param", "train.svm_c=0.2")
    (new,) = (found for found in runs_of(folder) if found.info.run_id not in before)
    assert new.info.run_name == "softer-margin"
    assert new.data.params["train.svm_c"] == "0.2"
    assert "softer-margin" in run(folder, "dvc", "exp", "list", "--all-commits")


def test_a_prediction_leads_back_to_the_state_that_made_it(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "project"
    shutil.copytree(finished, folder, symlinks=True)
    shutil.rmtree(folder / ".git")
    shutil.copytree(finished / ".git", folder / ".git")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "the first state's results")
    first = (folder / "data" / "processed" / "predictions.csv").read_bytes()
    version = pd.read_csv(folder / "data" / "processed" / "predictions.csv", dtype=str)["model_version"][0]

    # The project goes on: another parameter, another model.
    params = folder / "params.yaml"
    params.write_text(params.read_text().replace("svm_c: 0.4", "svm_c: 0.1"))
    git(folder, "commit", "--quiet", "--all", "--message", "another state")
    run(folder, "dvc", "repro")
    git(folder, "commit", "--quiet", "--all", "--message", "its results")
    assert (folder / "data" / "processed" / "predictions.csv").read_bytes() != first

    traced = run(folder, sys.executable, "-m", "rakuten", "trace", version)
    assert f"model   {version}  rakuten-classifier version" in traced
    assert "dirty   no" in traced
    assert "train.svm_c " in traced
    lock = yaml.safe_load((finished / "dvc.lock").read_text())["stages"]
    for entry in (*lock["ingest"]["deps"], lock["features"]["outs"][-1]):
        if "train" in entry["path"]:
            assert f"{entry['path']}" in traced
            assert entry["md5"] in traced

    # The lines that it prints are true.
    commands = [line.partition("#")[0].split() for line in traced.partition("to restore this state\n")[2].splitlines()]
    assert [command[:2] for command in commands] == [
        ["git", "checkout"], ["rakuten", "trace"], ["dvc", "checkout"], ["dvc", "repro"],
    ]  # fmt: skip
    for command in commands:
        run(folder, *command)
    assert (folder / "data" / "processed" / "predictions.csv").read_bytes() == first


def test_bad_input_stops_the_pipeline_with_its_line(clone: Clone, sample: Path) -> None:
    folder = with_sample(clone("bad"), sample)
    labels = folder / "data" / "raw" / "Y_train.csv"
    labels.write_text(labels.read_text().replace("prdtypecode", "code"))
    said = run(folder, "dvc", "repro", code=255)
    assert "ERROR ingest:" in said
    assert "Y_train.csv: line 1: no column 'prdtypecode'" in said
    assert not (folder / "data" / "interim").exists() or not any((folder / "data" / "interim").glob("*.csv"))


def test_the_summary_asks_for_a_run_first(clone: Clone) -> None:
    folder = clone("empty")
    for file in ("models/metrics.json", "reports/data_quality.json", "reports/decisions.json", "dvc.lock"):
        (folder / file).unlink(missing_ok=True)
    assert "run `dvc repro` first" in run(folder, sys.executable, "-m", "rakuten", "summary", code=1)
