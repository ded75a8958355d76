"""The finetune stage for real: by DVC, on a tiny base; and what it has learnt, used where torch cannot be imported."""

import colorsys
import json
import os
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from rakuten.data.schema import image_names
from rakuten.features.feature_set import TRAIN, FeatureSet
from rakuten.models.classifier import ProductClassifier
from rakuten.types import FINETUNED_IMAGE, FINETUNED_TEXT
from tests.support.project import run_in

needs_torch = pytest.mark.skipif(find_spec("torch") is None, reason="needs torch: `make finetune`")
TINY = "data/encoders/tiny"
TEXT = {"base": TINY, "epochs": 30, "batch": 16, "tokens": 24, "learning_rate": 5e-3, "frozen_embeddings": False}


@pytest.fixture
def no_torch(tmp_path: Path) -> str:
    """A PYTHONPATH in which torch and transformers cannot be imported."""
    for name in ("torch", "transformers"):
        (tmp_path / "no_torch" / name).mkdir(parents=True)
        error = f"raise ModuleNotFoundError(\"No module named '{name}'\", name={name!r})\n"
        (tmp_path / "no_torch" / name / "__init__.py").write_text(error)
    return str(tmp_path / "no_torch")


def set_encoders(project: Path, text: object, picture: object = "none") -> None:
    path = project / "params.yaml"
    params = yaml.safe_load(path.read_text(encoding="utf-8"))
    params["finetune"] |= {"text": text, "picture": picture, "folds": 2}
    path.write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")


def paint(folder: Path, products: pd.DataFrame) -> None:
    """Give each product an image in the colour of its code, so that few epochs suffice."""
    codes = products["prdtypecode"].rank(method="dense").to_numpy()
    for name, code in zip(image_names(products), codes, strict=True):
        colour = tuple(round(255 * part) for part in colorsys.hsv_to_rgb(code / codes.max(), 0.8, 0.8))
        (folder / name).unlink()  # a link into DVC's cache
        Image.new("RGB", (40, 40), colour).save(folder / name)


@pytest.fixture(scope="module")
def finetuned(workshop: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A project that was run with a tiny text base and the packaged image base, and what it printed. Read only."""
    from tests.support.tiny_base import write_tiny_base

    project = tmp_path_factory.mktemp("finetuned") / "project"
    shutil.copytree(workshop, project, symlinks=True)
    products = pd.read_csv(project / "data" / "interim" / "merged_train.csv")
    write_tiny_base(project / TINY, products["designation"].tolist())
    paint(project / "data" / "raw" / "images" / "image_train", products)
    set_encoders(
        project,
        TEXT,
        {"base": "efficientnet-lite0", "epochs": 8, "batch": 16, "size": 32},
    )
    return project, run_in(project, "dvc", "repro", OMP_NUM_THREADS="1")


@needs_torch
def test_the_pipeline_runs_with_fine_tuned_encoders(finetuned: tuple[Path, str]) -> None:
    project, printed = finetuned
    assert "fine-tuned text: weighted F1 0." in printed and ", fine-tuned picture: weighted F1 0." in printed
    assert printed.count("for each of the 2 networks of a fold") == 2
    metrics = json.loads((project / "models" / "scores.json").read_text())
    compared = metrics["compared"]
    assert compared[FINETUNED_TEXT]["weighted_f1"] > 0.3  # of 27 classes
    assert compared[FINETUNED_IMAGE]["weighted_f1"] > 0.3
    others = [scores["weighted_f1"] for name, scores in compared.items() if name.startswith("with")]
    assert len(others) == 3 and metrics["weighted_f1"] >= max(others)
    card = (project / "reports" / "model_card.md").read_text()
    assert "| fine-tuned text | 300 |" in card and "fine-tuned picture: efficientnet-lite0, trained on" in card
    assert len(pd.read_csv(project / "data" / "processed" / "predictions.csv")) == 60


@needs_torch
def test_what_was_trained_is_not_trained_again(finetuned: tuple[Path, str], tmp_path: Path) -> None:
    project = Path(shutil.copytree(finetuned[0], tmp_path / "project", symlinks=True))
    scores = project / "data" / "processed" / "train_finetuned_texts.npy"
    before = scores.read_bytes()
    scores.unlink()
    set_encoders(project, TEXT)
    printed = run_in(project, sys.executable, "src/models/finetune_encoders.py")
    assert printed.count("trained by an earlier run") == 3
    assert scores.read_bytes() == before


@needs_torch
def test_the_scores_are_out_of_fold(finetuned: tuple[Path, str]) -> None:
    """The network on all products gives other, better scores than those that the fusion was fitted to."""
    project, _ = finetuned
    features = FeatureSet.open(project / "data" / "processed", TRAIN)
    _, y = np.unique(features.y(), return_inverse=True)
    scores = np.asarray(features.finetuned[FINETUNED_TEXT][:])
    network = ProductClassifier.load(project / "models").networks[FINETUNED_TEXT].text()
    raw = pd.read_csv(project / "data" / "interim" / "merged_train.csv", keep_default_na=False)
    final = network.scores(list(zip(raw["designation"], raw["description"], strict=True)))
    assert (final.argmax(axis=1) == y).mean() > (scores.argmax(axis=1) == y).mean() + 0.1


@needs_torch
def test_the_learning_curves_are_a_plot_and_metrics_of_the_run(finetuned: tuple[Path, str]) -> None:
    project, _ = finetuned
    curves = pd.read_csv(project / "reports" / "learning_curves.csv")
    fits = ("without fold 0", "without fold 1", "on all rows")
    assert curves["fit"].unique().tolist() == [f"{view} {fit}" for view in ("text", "picture") for fit in fits]
    client = mlflow.MlflowClient(f"sqlite:///{project / 'mlflow.db'}")
    run_id = json.loads((project / "models" / "run.json").read_text())["run_id"]
    history = client.get_metric_history(run_id, "finetune_loss_text_on_all_rows")
    last = curves[curves["fit"] == "text on all rows"]
    assert [(point.step, point.value) for point in history] == list(zip(last["step"], last["loss"], strict=True))
    assert client.get_metric_history(run_id, "finetune_weighted_f1_text_without_fold_0")[-1].value > 0.2
    assert "torch" in client.get_run(run_id).data.tags["finetune_device"]


@needs_torch
def test_nothing_that_predicts_needs_torch(finetuned: tuple[Path, str], no_torch: str, tmp_path: Path) -> None:
    """Without torch, `rakuten score` gives the predictions of the predict stage, and MLflow's model those of products
    without images."""
    project, _ = finetuned
    path = os.pathsep.join([no_torch, str(project / "src"), str(project)])
    run_in(project, sys.executable, "-c", "import torch", code=1, PYTHONPATH=path)
    confidence = {"stage": pd.read_csv(project / "data" / "processed" / "predictions.csv")["confidence"].tolist()}
    score = (sys.executable, "-m", "rakuten", "score", "--input", str(project / "data" / "raw" / "X_test.csv"))
    for name, images in (("images", ["--images", str(project / "data" / "raw" / "images")]), ("texts", [])):
        run_in(project, *score, "--output", str(tmp_path / f"{name}.csv"), *images, PYTHONPATH=path)
        confidence[name] = pd.read_csv(tmp_path / f"{name}.csv")["confidence"].tolist()
    assert confidence["images"] == confidence["stage"] != confidence["texts"]
    load = (
        "import mlflow, pandas as pd; mlflow.set_tracking_uri('sqlite:///mlflow.db'); "
        "model = mlflow.pyfunc.load_model('models:/rakuten-classifier@challenger'); "
        "products = pd.read_csv('data/raw/X_test.csv', keep_default_na=False)[['designation', 'description']]; "
        f"model.predict(products).to_csv({str(tmp_path / 'pyfunc.csv')!r})"
    )
    run_in(project, sys.executable, "-c", load, PYTHONPATH=path)
    assert pd.read_csv(tmp_path / "pyfunc.csv")["confidence"].tolist() == confidence["texts"]


@needs_torch
def test_a_damaged_network_is_refused(finetuned: tuple[Path, str], tmp_path: Path) -> None:
    models = Path(shutil.copytree(finetuned[0] / "models", tmp_path / "models"))
    graph = models / "finetuned" / "text" / "network.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"\0")
    project = finetuned[0]
    command = (
        sys.executable, "-m", "rakuten", "score", "--models", str(models), "--input",
        str(project / "data" / "raw" / "X_test.csv"), "--output", str(tmp_path / "scored.csv"),
    )  # fmt: skip
    assert "network.onnx: damaged or from another network" in run_in(project, *command, code=1)


def test_without_torch_the_stage_says_what_to_do(workshop: Path, no_torch: str, tmp_path: Path) -> None:
    project = Path(shutil.copytree(workshop, tmp_path / "project", symlinks=True))
    set_encoders(project, {"base": "multilingual-e5-small"})
    path = os.pathsep.join([no_torch, str(project / "src")])
    printed = run_in(project, sys.executable, "src/models/finetune_encoders.py", code=1, PYTHONPATH=path)
    assert "finetune needs torch, which is not installed: `make finetune`" in printed
    assert "Traceback" not in printed


def test_with_none_nothing_is_learnt_and_nothing_changes(workshop: Path, tmp_path: Path) -> None:
    project = Path(shutil.copytree(workshop, tmp_path / "project", symlinks=True))
    printed = run_in(project, sys.executable, "src/models/finetune_encoders.py")
    assert "nothing to fine-tune: finetune.text and finetune.picture are none" in printed
    assert json.loads((project / "models" / "finetuned" / "networks.json").read_text()) == {}
    assert FeatureSet.open(project / "data" / "processed", TRAIN).finetuned == {}
    curves = (project / "reports" / "learning_curves.csv").read_text()
    assert curves == '"fit","step","epoch","loss","weighted_f1"\n'
