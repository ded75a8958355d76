"""Stages train and predict as scripts' mains, on the sample, with the embedded store in a temporary place."""

import filecmp
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import NamedTuple

import mlflow
import pandas as pd
import pytest
from PIL import Image

from rakuten import disk_array
from rakuten.config import PARAMS
from rakuten.data import tables
from rakuten.data.images import ImageFiles
from rakuten.data.ingestion import NONE_FILE
from rakuten.data.schema import image_name
from rakuten.data.tables import read_table, write_table
from rakuten.evaluation.report import OUT_OF_FOLD_FILE
from rakuten.features import embedding, feature_set, text_features
from rakuten.files import digest
from rakuten.models.classifier import ProductClassifier
from rakuten.models.pyfunc_model import PREDICTIONS, PyfuncModel
from rakuten.tracking.lineage import model_digest
from tests.support.project import load_script

make_dataset = load_script("src/data/make_dataset.py")
build_features = load_script("src/features/build_features.py")
train_model = load_script("src/models/train_model.py")
predict_model = load_script("src/models/predict_model.py")

PLOTS = ("confusion_matrix", "per_class_f1", "reliability", "coverage")
STAGES = ("src/features/build_features.py", "src/models/train_model.py", "src/models/predict_model.py")


class Workspace(NamedTuple):
    processed: Path
    models: Path
    reports: Path
    uri: str

    def train(self) -> int:
        data = self.processed.parent
        flags = ["--interim", data / "interim", "--processed", self.processed, "--cache", data / "cache"]
        flags += ["--models", self.models, "--reports", self.reports]
        return int(train_model.main([str(flag) for flag in flags]))

    def predict(self) -> int:
        flags = ["--interim", self.processed.parent / "interim", "--processed", self.processed]
        flags += ["--models", self.models, "--reports", self.reports]
        return int(predict_model.main([str(flag) for flag in flags]))


@pytest.fixture(scope="module")
def trained(sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    folder = tmp_path_factory.mktemp("work")
    space = Workspace(folder / "processed", folder / "models", folder / "reports", f"sqlite:///{folder}/mlflow.db")
    interim = str(folder / "interim")
    assert make_dataset.main(["--raw", str(sample), "--interim", interim, "--reports", str(space.reports)]) == 0
    flags = ["--raw", str(sample), "--interim", interim, "--cache", str(folder / "cache")]
    assert build_features.main([*flags, "--processed", str(space.processed), "--reports", str(space.reports)]) == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", space.uri)
        patch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
        patch.chdir(folder)
        assert space.train() == 0
        assert space.predict() == 0
    return space


@pytest.fixture
def space(trained: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A copy to change, on the same store."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", trained.uri)
    for name in ("interim", "processed", "models", "reports"):
        shutil.copytree(trained.processed.parent / name, tmp_path / name)
    return Workspace(tmp_path / "processed", tmp_path / "models", tmp_path / "reports", trained.uri)


def test_features_keep_rows_and_columns(trained: Workspace, sample: Path) -> None:
    for name, last in (("train", ["prdtypecode"]), ("test", [])):
        table = read_table(trained.processed / f"{name}_features.csv")
        raw = pd.read_csv(sample / f"X_{name}.csv", dtype=str)
        assert table["productid"].tolist() == raw["productid"].tolist()
        assert list(table.columns) == [
            "productid", "imageid", "designation_clean", "description_clean", "designation_len", "description_len",
            "has_description", "has_image", "style", *last,
        ]  # fmt: skip


def test_every_test_product_gets_a_prediction_in_order(trained: Workspace, sample: Path) -> None:
    predictions = pd.read_csv(trained.processed / "predictions.csv", dtype={"productid": str})
    assert predictions["productid"].tolist() == pd.read_csv(sample / "X_test.csv", dtype=str)["productid"].tolist()
    assert list(predictions.columns) == ["productid", "imageid", *PREDICTIONS, "model_version"]
    assert predictions.drop(columns="parent").notna().all(axis=None)
    assert predictions["predicted_prdtypecode"].nunique() > 10


def test_the_submission_has_the_index_of_x_test_and_the_predicted_codes(trained: Workspace, sample: Path) -> None:
    text = (trained.processed / "submission.csv").read_text(encoding="utf-8")
    assert text.startswith(",prdtypecode\n")
    assert '"' not in text
    assert text.splitlines()[0] == (sample / "Y_train.csv").read_text(encoding="utf-8").splitlines()[0]
    submission = pd.read_csv(trained.processed / "submission.csv", index_col=0)
    assert submission.index.equals(pd.read_csv(sample / "X_test.csv", index_col=0).index)
    predictions = pd.read_csv(trained.processed / "predictions.csv")
    assert submission["prdtypecode"].tolist() == predictions["predicted_prdtypecode"].tolist()


def test_a_submission_of_other_rows_is_not_written(space: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.read_bytes() for path in space.processed.glob("*.csv")}
    rows = space.processed.parent / "interim" / "merged_test.csv"
    whole = rows.read_text(encoding="utf-8")
    rows.write_text(whole + whole.splitlines()[-1] + "\n", encoding="utf-8")
    assert space.predict() == 1
    error = capsys.readouterr().err
    assert "the test features are not those of the rows that ingest wrote; run `dvc repro`" in error
    assert error.count("ERROR") == 1
    assert {path: path.read_bytes() for path in space.processed.glob("*.csv")} == before


def test_the_model_beats_the_majority_by_far(trained: Workspace) -> None:
    scores = json.loads((trained.models / "scores.json").read_text())
    assert scores["synthetic"] is True
    assert scores["rows"] == 300
    assert 0.35 < scores["weighted_f1"] < 0.98
    low, high = scores["interval"]["weighted_f1"]
    assert low < scores["weighted_f1"] < high
    assert len(scores["f1"]) == 27
    metrics = json.loads((trained.models / "metrics.json").read_text())
    assert metrics == {
        "coverage": scores["decided"]["coverage"],
        **{name: scores[name] for name in ("macro_f1", "rows", "synthetic", "weighted_f1")},
    }


def test_the_run_has_all_that_traces_it(trained: Workspace) -> None:
    mlflow.set_tracking_uri(trained.uri)
    (run,) = mlflow.search_runs(experiment_names=["rakuten-baseline"], output_format="list")
    scores = json.loads((trained.models / "scores.json").read_text())
    assert run.info.status == "FINISHED"
    assert run.data.params["train.folds"] == "5"
    assert {"git_commit", "git_branch", "git_dirty", "synthetic", "model_digest"} <= set(run.data.tags)
    assert run.data.tags["model_digest"] == model_digest(trained.models)
    for name in ("weighted_f1", "macro_f1", "accuracy"):
        assert run.data.metrics[name] == scores[name]
    shown = run.data.metrics
    assert [shown["weighted_f1_low"], shown["weighted_f1_high"]] == scores["interval"]["weighted_f1"]
    assert len(shown) <= 12
    inputs = {entry.dataset.name: entry.dataset.digest for entry in run.inputs.dataset_inputs}
    names = ("train_features.csv", "train_groups.npy", "train_texts.npy", "train_images.npy")
    assert inputs == {name: digest(trained.processed / name, "md5") for name in names}
    folder = Path(mlflow.artifacts.download_artifacts(run_id=run.info.run_id))
    logged = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    plots = [f"reports/{name}{end}" for name in PLOTS for end in (".csv", ".png")]
    assert logged == {
        "dvc.yaml", "params.yaml", "models/metrics.json", "models/scores.json", "models/vectorizer.json",
        "reports/label_issues.csv", "reports/learning_curves.png", "reports/model_card.md", "reports/out_of_fold.csv",
        "reports/reference.parquet", *plots,
    }  # fmt: skip


def test_the_logged_model_predicts_from_raw_columns(trained: Workspace, sample: Path) -> None:
    mlflow.set_tracking_uri(trained.uri)
    experiment = mlflow.get_experiment_by_name("rakuten-baseline")
    assert experiment is not None
    (logged,) = mlflow.search_logged_models([experiment.experiment_id], output_format="list")
    loaded = mlflow.pyfunc.load_model(logged.model_uri)
    raw = pd.read_csv(sample / "X_test.csv", dtype=str, keep_default_na=False)
    files = ImageFiles(sample / "images")
    names = [image_name(*ids) for ids in zip(raw["imageid"], raw["productid"], strict=True)]
    given = raw[["designation", "description"]].assign(picture=[files[name].read_bytes() for name in names])
    answer = loaded.predict(given)
    predictions = pd.read_csv(trained.processed / "predictions.csv")
    assert answer["predicted_prdtypecode"].tolist() == predictions["predicted_prdtypecode"].tolist()
    assert answer["confidence"].tolist() == predictions["confidence"].tolist()
    assert [entry.name for entry in loaded.metadata.get_input_schema()] == ["designation", "description", "picture"]
    needed = Path(mlflow.artifacts.download_artifacts(logged.model_uri)) / "requirements.txt"
    pins = dict(line.split("==") for line in needed.read_text().split() if "==" in line)
    assert {"scikit-learn", "safetensors", "ftfy", "onnxruntime", "sentencepiece"} <= set(pins)
    assert loaded.metadata.saved_input_example_info is not None


def test_every_plot_is_a_png_and_a_table(trained: Workspace) -> None:
    for name in PLOTS:
        with Image.open(trained.reports / f"{name}.png") as image:
            image.load()
            assert image.width > 500
        assert len(pd.read_csv(trained.reports / f"{name}.csv")) > 4


def test_the_model_card_has_the_measured_scores(trained: Workspace) -> None:
    card = (trained.reports / "model_card.md").read_text(encoding="utf-8")
    scores = json.loads((trained.models / "scores.json").read_text())
    assert "Trained on the synthetic sample catalogue" in card
    assert f"| weighted F1 | {scores['weighted_f1']:.4f} |" in card
    assert digest(trained.processed / "train_images.npy", "md5") in card
    assert str(trained.processed) not in card
    assert card.count("\n| 2583 |") == 1
    assert set(scores["compared"]) == {"words", "meaning", "picture", "equal average", "text alone"}
    assert {"picture", "title in french", "title in english"} <= set(scores["parts"])
    assert sum(part["rows"] for name, part in scores["parts"].items() if name.startswith("title")) == 300


def test_predictions_above_the_threshold_are_decided(trained: Workspace) -> None:
    decisions = json.loads((trained.reports / "decisions.json").read_text())
    predictions = pd.read_csv(trained.processed / "predictions.csv")
    assert decisions["rows"] == 60 == decisions["decided"] + decisions["to_review"]
    is_unsure = predictions["confidence"] < decisions["threshold"]
    assert ((is_unsure | predictions["is_novel"]) == predictions["needs_review"]).all()
    scores = json.loads((trained.models / "scores.json").read_text())
    assert scores["decided"]["threshold"] == decisions["threshold"]
    assert scores["decided"]["precision"] >= 0.95


def test_training_again_gives_the_same_bytes(trained: Workspace, space: Workspace) -> None:
    files = [path for folder in (space.models, space.reports) for path in folder.iterdir() if path.is_file()]
    before = {path: path.read_bytes() for path in files if path.name != "run.json"}  # which names the run
    assert space.train() == 0
    assert {path: path.read_bytes() for path in before} == before


def test_products_that_no_code_fits_are_learnt_from(space: Workspace) -> None:
    """Of a kind that people said no code fits to, another product is novel; the products of the codes stay ordinary."""
    repair = pd.DataFrame({"designation": ["Réparation de poussette"], "description": [""]})
    before = PyfuncModel(ProductClassifier.load(space.models)).predict(repair)
    assert not before["is_novel"].any()
    out_of_fold = pd.read_csv(space.reports / OUT_OF_FOLD_FILE)
    things = ["piscine", "console", "table", "lampe", "chaise", "manette", "tondeuse", "figurine", "montre", "guitare"]
    texts = [(f"Réparation de {thing}", "") for thing in (*things, "trottinette", "aspirateur")]
    table = pd.DataFrame(texts, columns=["designation", "description"])
    write_table(table, space.processed.parent / "interim" / NONE_FILE)
    assert space.train() == 0
    after = PyfuncModel(ProductClassifier.load(space.models)).predict(repair)
    assert after["is_novel"].all()
    assert after["needs_review"].all()
    # What is told of false alarms is told of the novelty that is used.
    assert not pd.read_csv(space.reports / OUT_OF_FOLD_FILE)["novelty"].equals(out_of_fold["novelty"])
    novelty = json.loads((space.models / "scores.json").read_text())["novelty"]
    assert novelty["none_of_the_codes"]["rows"] == 12
    assert novelty["none_of_the_codes"]["share"] > 0.8  # each judged by a model that was not trained on it
    assert novelty["false_alarms"]["share"] <= 0.02
    assert "Of 12 products that people said none of the codes fits" in (space.reports / "model_card.md").read_text()


def test_no_training_starts_while_the_server_is_away(
    space: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setattr(train_model, "fit", lambda *_: pytest.fail("trained before asking"))
    assert space.train() == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "http://127.0.0.1:9 does not answer" in said
    assert "unset MLFLOW_TRACKING_URI" in said


def test_predictions_need_a_sound_model_of_the_same_features(
    space: Workspace, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    params = tmp_path / "params.yaml"
    text = PARAMS.read_text(encoding="utf-8")
    params.write_text(text.replace("lowercase: true", "lowercase: false"), encoding="utf-8")
    flags = [*("--processed", str(space.processed)), "--models", str(space.models), "--reports", str(space.reports)]
    assert predict_model.main([*flags, "--params", str(params)]) == 1
    assert "trained on features made with other parameters" in capsys.readouterr().err
    (space.models / "model.safetensors").write_bytes(b"cut")
    before = (space.processed / "predictions.csv").read_bytes()
    assert space.predict() == 1
    assert "model.safetensors: damaged" in capsys.readouterr().err
    assert (space.processed / "predictions.csv").read_bytes() == before


@pytest.mark.parametrize(
    "script", ["src/features/build_features.py", "src/models/train_model.py", "src/models/predict_model.py"]
)
def test_scripts_say_what_is_missing_from_any_folder(
    script: str, tmp_path: Path, run_script: Callable[..., "CompletedProcess[str]"], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    flag = "--interim" if "features" in script else "--processed"
    done = run_script(script, flag, tmp_path / "none", cwd=tmp_path)
    assert done.returncode == 1
    assert "no such file; run `dvc repro`" in done.stderr
    assert done.stderr.count("\n") == 1


def test_results_do_not_depend_on_how_many_rows_are_held(
    trained: Workspace, sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name, rows in (
        (tables, "CHUNK_ROWS", 37), (disk_array, "CHUNK_ROWS", 41), (disk_array, "MAPPED_ROWS", 17),
        (feature_set, "CHUNK_ROWS", 43), (embedding, "CHUNK_ROWS", 29), (embedding, "ENCODE_CHUNK", 5),
        (text_features, "CHUNK_ROWS", 11), (predict_model, "CHUNK_ROWS", 13),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, rows)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    space = Workspace(*(tmp_path / name for name in ("processed", "models", "reports")), "")
    interim = str(tmp_path / "interim")
    assert make_dataset.main(["--raw", str(sample), "--interim", interim, "--reports", str(space.reports)]) == 0
    flags = ["--raw", str(sample), "--interim", interim, "--cache", str(trained.processed.parent / "cache")]
    assert build_features.main([*flags, "--processed", str(space.processed), "--reports", str(space.reports)]) == 0
    assert space.train() == 0
    assert space.predict() == 0
    for one, other in zip(space[:3], trained[:3], strict=True):
        names = sorted(path.name for path in one.iterdir() if path.is_file() and path.name != "run.json")
        same, differ, missing = filecmp.cmpfiles(one, other, names, shallow=False)
        assert same
        assert missing == []
        assert differ in ([], ["model_card.md"])  # the card names the paths of the files
