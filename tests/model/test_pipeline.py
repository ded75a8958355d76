"""The whole pipeline by real `dvc repro`, on the sample, in clones of the project."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import mlflow
import pandas as pd
import pytest
import yaml

from src.files import digest

Clone = Callable[[str], Path]
TRAINED_ON = ("train_features.csv", "train_texts.npy", "train_images.npy")


def run(folder: Path, *command: str, code: int = 0) -> str:
    """Run a command in a clone, with the clone's own `src`, this Python, and no server or key."""
    own = ("MLFLOW_", "DVC_", "AWS_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(own)}
    environment |= {
        "PYTHONPATH": str(folder),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def with_sample(folder: Path, sample: Path) -> Path:
    shutil.copytree(sample, folder / "data" / "raw")
    return folder


def runs_of(folder: Path) -> list[mlflow.entities.Run]:
    """Runs recorded in a clone, the newest first."""
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    return list(mlflow.search_runs(experiment_names=["rakuten-baseline"], output_format="list"))


def test_from_raw_files_to_predictions_and_back(clone: Clone, sample: Path) -> None:
    folder = with_sample(clone("first"), sample)
    said = run(folder, "dvc", "repro")
    assert (
        said.index("INFO ingest") < said.index("INFO features") < said.index("INFO train") < said.index("INFO predict")
    )
    assert "SYNTHETIC" in said

    quality = json.loads((folder / "reports" / "data_quality.json").read_text())
    predictions = pd.read_csv(folder / "data" / "processed" / "predictions.csv", dtype=str)
    assert quality["train"]["rows_in"] == 300
    assert predictions["productid"].tolist() == pd.read_csv(sample / "X_test.csv", dtype=str)["productid"].tolist()

    # The run holds the dvc.lock that records this very training, and the digests of the raw files.
    lock = yaml.safe_load((folder / "dvc.lock").read_text())["stages"]
    (logged,) = runs_of(folder)
    attached = yaml.safe_load(
        Path(mlflow.artifacts.download_artifacts(f"runs:/{logged.info.run_id}/dvc.lock")).read_text()
    )
    assert attached["stages"]["train"] == lock["train"]
    inputs = {entry.dataset.name: entry.dataset.digest for entry in logged.inputs.dataset_inputs}
    recorded = {Path(entry["path"]).name: entry["md5"] for entry in lock["ingest"]["deps"]}
    assert inputs == {
        **{name: recorded[name] for name in ("X_train.csv", "Y_train.csv", "X_test.csv", "images")},
        **{name: digest(folder / "data" / "processed" / name, "md5") for name in TRAINED_ON},
    }
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, check=True)
    assert logged.data.tags["git_commit"] == head.stdout.strip()
    assert (logged.data.tags["git_branch"], logged.data.tags["git_dirty"]) == ("main", "false")

    # Nothing to do the second time, and the closing table tells what there is.
    assert "Data and pipelines are up to date" in run(folder, "dvc", "repro")
    table = run(folder, sys.executable, "-m", "src.summary")
    assert "300 read, 0 rejected" in table
    assert "SYNTHETIC" in table
    assert "of 60 test products without review" in table
    assert "mlflow ui --backend-store-uri sqlite:///mlflow.db" in table

    # Forced, the same training is a second run, which the closing table completes; dvc.lock stays.
    before = (folder / "dvc.lock").read_bytes()
    run(folder, "dvc", "repro", "--force", "--single-item", "train")
    assert (folder / "dvc.lock").read_bytes() == before
    run(folder, sys.executable, "-m", "src.summary")
    assert len(runs_of(folder)) == 2
    assert all("dvc_lock" in found.data.tags for found in runs_of(folder))

    # From scratch elsewhere: the same dvc.lock, byte for byte.
    again = with_sample(clone("second"), sample)
    run(again, "dvc", "repro")
    assert (again / "dvc.lock").read_bytes() == before

    # What a comment in the README changes is nothing; a parameter of the model reruns train and predict only.
    (again / "README.md").write_text("changed")
    params = again / "params.yaml"
    params.write_text(params.read_text().replace("target_precision: 0.95", "target_precision: 0.7"))
    said = run(again, "dvc", "status")
    assert "train:" in said
    assert "ingest:" not in said
    assert "features:" not in said
    run(again, "dvc", "repro")
    (changed, _) = runs_of(again)
    assert changed.data.tags["git_dirty"] == "true"
    reviewed = pd.read_csv(again / "data" / "processed" / "predictions.csv")
    decisions = json.loads((again / "reports" / "decisions.json").read_text())
    assert decisions["target_precision"] == 0.7
    assert reviewed["needs_review"].tolist() == (reviewed["confidence"] < decisions["threshold"]).tolist()
    assert decisions["decided"] == (~reviewed["needs_review"]).sum() > 20


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
    assert "run `dvc repro` first" in run(folder, sys.executable, "-m", "src.summary", code=1)


@pytest.mark.parametrize("target", ["help", "run"])
def test_make_knows_its_targets(target: str) -> None:
    root = Path(__file__).resolve().parents[2]
    assert f"make {target}" in run(root, "make", "help")
