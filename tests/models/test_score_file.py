"""Batch scoring: the same predictions as the predict stage, for any file, in constant memory, and after a crash."""

import csv
import json
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rakuten.commands import score
from rakuten.config import load_params
from rakuten.data.images import ImageFiles
from rakuten.data.schema import image_name
from rakuten.data.synthetic import write_catalogue
from rakuten.features.encoders.factory import encoder_fingerprints
from rakuten.features.feature_set import TRAIN, FeatureSet
from rakuten.files import digest
from rakuten.models import score_file
from rakuten.models.classifier import ProductClassifier
from rakuten.models.pyfunc_model import PREDICTIONS, PyfuncModel
from rakuten.models.training import fit
from rakuten.tracking.lineage import model_version
from tests.support.features import TEXT_ONLY
from tests.support.project import ROOT, environment, load_script
from tests.support.refusal import PREVIOUS_OUTPUT, assert_refused

ADDED = [*PREDICTIONS, "model_version"]
CONFIDENCES = [name for name in ADDED if name.endswith("confidence")]
# A matrix of fewer rows may be multiplied in another order: the last of the six digits may differ by one.
CONFIDENCE_TOLERANCE = 1.5e-6


class Model(NamedTuple):
    models: Path
    predictions: Path  # of the predict stage, for X_test.csv
    cache: Path

    def score(self, source: Path, output: Path, *flags: object) -> int:
        """Run `rakuten score` in this process. Returns its exit code."""
        return score.main([*self.flags(source, output), *map(str, flags)])

    def flags(self, source: Path, output: Path) -> list[str]:
        paths = {"input": source, "output": output, "models": self.models, "cache": self.cache}
        return [text for name, path in paths.items() for text in (f"--{name}", str(path))]


def run_stages(raw: Path, folder: Path, encoders: bool) -> Model:
    """Run the stages with few n-grams and resamples, and the training without MLflow."""
    params = load_params()
    train = params.train.model_copy(update={"bootstrap": 50, "folds": 3, "blocks": params.train.blocks[:1]})
    features = params.features if encoders else TEXT_ONLY
    params = params.model_copy(update={"train": train, "features": features})
    interim, processed, models, cache = (folder / name for name in ("interim", "processed", "models", "cache"))
    load_script("src/data/make_dataset.py").ingest(params, raw, folder / "corrections", interim, folder)
    load_script("src/features/build_features.py").features(params, interim, raw, processed, cache, folder)
    feature_set = FeatureSet.open(processed, TRAIN)
    classifier, _ = fit(feature_set, params, encoder_fingerprints(params.features), folder / "scratch")
    classifier.save(models)
    load_script("src/models/predict_model.py").predict(params, interim, processed, models, folder)
    return Model(models, processed / "predictions.csv", cache)


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 + 60 synthetic products with images, for models that need not be good."""
    folder = tmp_path_factory.mktemp("catalogue")
    write_catalogue(120, 60, 7, folder)
    return folder


@pytest.fixture(scope="module")
def encoder_model(catalogue: Path, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A model with both encoders."""
    return run_stages(catalogue, tmp_path_factory.mktemp("encoders"), encoders=True)


@pytest.fixture(scope="module")
def text_model(catalogue: Path, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A model of n-grams alone."""
    return run_stages(catalogue, tmp_path_factory.mktemp("text"), encoders=False)


@pytest.fixture(scope="module")
def titles(catalogue: Path) -> list[str]:
    return pd.read_csv(catalogue / "X_train.csv", keep_default_na=False)["designation"].tolist()


@pytest.fixture
def scored_chunks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The labels of the chunks that were scored, as opposed to those whose part was complete."""
    labels: list[str] = []
    make_chunk = score_file.make_chunk

    def record(*arguments: Any) -> score_file.ProductChunk:
        chunk = make_chunk(*arguments)
        labels.append(chunk.label)
        return chunk

    monkeypatch.setattr(score_file, "make_chunk", record)
    return labels


def read_csv_rows(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        return list(csv.reader(stream, strict=True))


def read_table(path: Path) -> pd.DataFrame:
    """No parent is an empty text in both kinds of file."""
    if path.suffix == ".csv":
        return pd.read_csv(path, keep_default_na=False)
    return pd.read_parquet(path).reset_index(drop=True)


def write_titles(path: Path, titles: list[str], n_rows: int) -> None:
    """A CSV file of random titles."""
    rng = random.Random(n_rows)
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["sku", "designation"])
        writer.writerows([row, rng.choice(titles)] for row in range(n_rows))


def assert_same_confidence(one: pd.DataFrame, other: pd.DataFrame) -> None:
    assert (one[CONFIDENCES] - other[CONFIDENCES]).abs().max(axis=None) < CONFIDENCE_TOLERANCE


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
@pytest.mark.parametrize("name", ["X_test.csv", "products.parquet"])
def test_a_file_gets_the_predictions_of_the_predict_stage(
    name: str, ending: str, encoder_model: Model, catalogue: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(score_file, "CHUNK_ROWS", 25)
    source, output = catalogue / name, tmp_path / f"scored{ending}"
    if name.endswith(".parquet"):
        source = tmp_path / name
        pd.read_csv(catalogue / "X_test.csv", index_col=0).to_parquet(source, row_group_size=7)
    assert encoder_model.score(source, output, "--images", catalogue) == 0
    scored, stage = read_table(output), read_table(encoder_model.predictions)
    assert scored[["productid", "imageid"]].astype("int64").equals(stage[["productid", "imageid"]])
    others = [name for name in ADDED if name not in CONFIDENCES]
    assert scored[others].astype(stage[others].dtypes).equals(stage[others])
    assert_same_confidence(scored, stage)
    assert scored["confidence"].nunique() > 50
    assert {path.name for path in tmp_path.iterdir()} <= {source.name, output.name}


def test_the_columns_of_a_csv_file_are_kept_as_they_are(text_model: Model, catalogue: Path, tmp_path: Path) -> None:
    assert text_model.score(catalogue / "X_test.csv", tmp_path / "scored.csv") == 0
    before, after = read_csv_rows(catalogue / "X_test.csv"), read_csv_rows(tmp_path / "scored.csv")
    assert [row[: len(before[0])] for row in after] == before
    assert after[0][len(before[0]) :] == ADDED


def test_the_columns_of_a_parquet_file_are_kept_as_they_are(text_model: Model, catalogue: Path, tmp_path: Path) -> None:
    source, output = tmp_path / "products.parquet", tmp_path / "scored.parquet"
    pd.read_csv(catalogue / "X_test.csv", index_col=0).to_parquet(source, row_group_size=7)
    assert text_model.score(source, output) == 0
    table = pq.read_table(source)
    assert pq.read_table(output).select(table.column_names).equals(table)


def test_the_command_and_the_flags_of_the_predict_script_write_the_same(
    text_model: Model, catalogue: Path, tmp_path: Path, run_script: Callable[..., "subprocess.CompletedProcess[str]"]
) -> None:
    images = ["--images", str(catalogue / "images")]
    flags = text_model.flags(catalogue / "X_test.csv", tmp_path / "script.csv")
    completed = run_script("src/models/predict_model.py", *flags, *images, cwd=tmp_path)
    assert completed.returncode == 0, completed.stderr
    assert "images: 60 used\n" in completed.stderr
    n_review = int(pd.read_csv(text_model.predictions)["needs_review"].sum())
    assert 0 < n_review < 60
    closing = f"60 products scored, {60 - n_review} decided automatically and {n_review} to review"
    assert closing in completed.stderr
    flags = text_model.flags(catalogue / "X_test.csv", tmp_path / "command.csv")
    command = [sys.executable, "-m", "rakuten", "score", *flags, *images]
    subprocess.run(command, cwd=tmp_path, env=environment(ROOT), check=True, timeout=300)
    assert (tmp_path / "command.csv").read_bytes() == (tmp_path / "script.csv").read_bytes()
    scored, stage = pd.read_csv(tmp_path / "command.csv"), pd.read_csv(text_model.predictions)
    assert scored[ADDED].equals(stage[ADDED])


@pytest.fixture
def few_images(catalogue: Path, tmp_path: Path) -> Path:
    """Images of the first five products of X_test.csv: three sound, one cut off, one empty."""
    products = pd.read_csv(catalogue / "X_test.csv", dtype=str, keep_default_na=False)[:5]
    names = [image_name(*ids) for ids in zip(products["imageid"], products["productid"], strict=True)]
    images, folder = ImageFiles(catalogue / "images"), tmp_path / "shop" / "2026" / "deep"
    folder.mkdir(parents=True)
    for name in names[:3]:
        shutil.copy2(images[name], folder / name)
    data = images[names[3]].read_bytes()
    (folder / names[3]).write_bytes(data[: len(data) // 2])
    (folder / names[4]).write_bytes(b"")
    return tmp_path / "shop"


def test_a_product_with_a_bad_image_is_scored_by_its_text(
    encoder_model: Model, catalogue: Path, few_images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = catalogue / "X_test.csv"
    assert encoder_model.score(source, tmp_path / "images.csv", "--images", few_images) == 0
    assert "images: 1 empty, 55 missing, 1 truncated, 3 used" in capsys.readouterr().err
    assert encoder_model.score(source, tmp_path / "texts.csv") == 0
    assert "images:" not in capsys.readouterr().err
    with_images, texts = pd.read_csv(tmp_path / "images.csv"), pd.read_csv(tmp_path / "texts.csv")
    assert np.flatnonzero(with_images["confidence"] != texts["confidence"]).tolist() == [0, 1, 2]


def test_links_to_images_and_to_folders_are_followed_and_dead_ones_are_unreadable(
    text_model: Model, catalogue: Path, few_images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    products = pd.read_csv(catalogue / "X_test.csv", dtype=str, keep_default_na=False)
    shop = tmp_path / "linked"
    shop.mkdir()
    (shop / "2026").symlink_to(few_images / "2026")
    (shop / "circle").symlink_to(shop)
    for row in (5, 6):
        name = image_name(products["imageid"][row], products["productid"][row])
        (shop / name).symlink_to(catalogue / "images" / "image_test" / name if row == 5 else tmp_path / "nowhere")
    assert text_model.score(catalogue / "X_test.csv", tmp_path / "scored.csv", "--images", shop) == 0
    assert "images: 1 empty, 53 missing, 1 truncated, 1 unreadable, 4 used" in capsys.readouterr().err


def test_images_of_other_products_are_refused(
    text_model: Model, catalogue: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "photo_1.jpg").touch()
    assert text_model.score(catalogue / "X_test.csv", tmp_path / "out.csv", "--images", tmp_path / "images") == 1
    error = capsys.readouterr().err
    assert "images: no file is the image of a product: found 'photo_1.jpg', expected names such as 'image_" in error
    assert error.endswith("; rename the files, or omit --images to use only the texts\n")
    assert not (tmp_path / "out.csv").exists()


def test_a_file_gets_the_predictions_of_the_api(
    encoder_model: Model, catalogue: Path, few_images: Path, tmp_path: Path
) -> None:
    assert encoder_model.score(catalogue / "X_test.csv", tmp_path / "scored.csv", "--images", few_images) == 0
    products = pd.read_csv(catalogue / "X_test.csv", dtype=str, keep_default_na=False)
    images = ImageFiles(few_images)
    names = [image_name(*ids) for ids in zip(products["imageid"], products["productid"], strict=True)]
    raw = products.assign(picture=[images[name].read_bytes() if name in images else None for name in names])
    predicted = PyfuncModel(ProductClassifier.load(encoder_model.models)).predict(raw)
    assert_same_confidence(pd.read_csv(tmp_path / "scored.csv"), predicted)


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_every_row_is_kept_in_its_order(
    ending: str, text_model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(score_file, "CHUNK_ROWS", 2)
    source = tmp_path / f"source{ending}"
    odd = ["", "NA", '5" écran; "gros", lot', "deux\nlignes", "fin\rseule", "  ", "piscine", "piscine", ""]
    ids = ["7", "007", "", "9.5", "x", "9" * 30, "-1", "7", ""]
    columns = {"": list("987654321"), "designation": odd, "productid": ids, "imageid": ids, "é": odd}
    if ending == ".csv":
        with source.open("w", encoding="utf-8-sig", newline="") as stream:
            writer = csv.writer(stream, quoting=csv.QUOTE_ALL)
            writer.writerows([list(columns), *zip(*columns.values(), strict=True)])
    else:
        pq.write_table(pa.table(columns), source)
    (tmp_path / "images").mkdir()
    assert text_model.score(source, tmp_path / "out.csv", "--images", tmp_path / "images") == 0
    header, *rows = read_csv_rows(tmp_path / "out.csv")
    assert header == [*columns, *ADDED]
    assert [row[:5] for row in rows] == [list(row) for row in zip(*columns.values(), strict=True)]
    for row in (dict(zip(header[5:], row[5:], strict=True)) for row in rows):
        assert int(row["predicted_prdtypecode"]) and int(row["fifth_prdtypecode"])
        assert 1 >= float(row["confidence"]) >= float(row["fifth_confidence"]) > 0
        assert row["needs_review"] in ("True", "False")
    assert {row[header.index("model_version")] for row in rows} == {model_version(text_model.models)}


def test_a_file_without_rows_gives_a_file_without_rows(text_model: Model, tmp_path: Path) -> None:
    (tmp_path / "empty.csv").write_text("designation,description\n", encoding="utf-8")
    assert text_model.score(tmp_path / "empty.csv", tmp_path / "scored.parquet") == 0
    assert pq.read_table(tmp_path / "scored.parquet").column_names == ["designation", "description", *ADDED]
    assert pq.read_table(tmp_path / "scored.parquet").num_rows == 0


def test_missing_values_in_a_parquet_file_are_no_error(text_model: Model, tmp_path: Path, catalogue: Path) -> None:
    products = pd.read_csv(catalogue / "X_test.csv")
    products.loc[1, ["designation", "description", "productid", "imageid"]] = None  # makes floats of the ids
    products.to_parquet(tmp_path / "gaps.parquet")
    assert text_model.score(tmp_path / "gaps.parquet", tmp_path / "gaps.csv", "--images", catalogue) == 0
    scored, stage = pd.read_csv(tmp_path / "gaps.csv"), pd.read_csv(text_model.predictions)
    assert scored.drop(index=1)[ADDED].equals(stage.drop(index=1)[ADDED])
    assert scored["needs_review"][1]


def test_a_column_of_another_type_is_read_as_text(text_model: Model, titles: list[str], tmp_path: Path) -> None:
    texts = pd.DataFrame({"designation": [titles[0], "7"], "description": ["", ""]})
    others = pd.DataFrame({"designation": pd.Categorical(texts["designation"]), "description": [np.nan, np.nan]})
    texts.to_parquet(tmp_path / "texts.parquet")
    others.to_parquet(tmp_path / "others.parquet")
    for name in ("texts", "others"):
        assert text_model.score(tmp_path / f"{name}.parquet", tmp_path / f"{name}.csv") == 0
    assert read_table(tmp_path / "others.csv")[ADDED].equals(read_table(tmp_path / "texts.csv")[ADDED])


@pytest.fixture
def stopped_job(text_model: Model, titles: list[str], tmp_path: Path) -> Path:
    """The folder of parts of a job of 200 chunks that was killed; its input is in.csv, its output out.csv."""
    source, output, work = tmp_path / "in.csv", tmp_path / "out.csv", tmp_path / ".out.csv.parts"
    write_titles(source, titles, 4_000)
    command = [sys.executable, "-m", "tests.support.score_in_chunks", "20", *text_model.flags(source, output)]
    with subprocess.Popen(command, env=environment(ROOT), start_new_session=True, stderr=subprocess.DEVNULL) as job:
        deadline = time.monotonic() + 120
        while len(list(work.glob("[0-9]*.parquet"))) < 5:
            assert job.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.001)
        os.killpg(job.pid, signal.SIGKILL)
    return work


def test_a_killed_job_resumes_where_it_stopped(
    text_model: Model,
    stopped_job: Path,
    scored_chunks: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(score_file, "CHUNK_ROWS", 20)
    folder = stopped_job.parent
    source, output = folder / "in.csv", folder / "out.csv"
    parts = {path: path.stat().st_mtime_ns for path in stopped_job.glob("[0-9]*.parquet")}
    assert 5 <= len(parts) < 200
    assert not output.exists()
    broken = stopped_job / "000001.parquet"
    broken.write_bytes(broken.read_bytes()[:-20])  # as after a power failure
    rewritten: set[Path] = set()
    join_parts = score_file.join_parts

    def compare_and_join(*arguments: Any) -> Any:
        rewritten.update(path for path, time_ns in parts.items() if path.stat().st_mtime_ns != time_ns)
        return join_parts(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(score_file, "join_parts", compare_and_join)
        assert text_model.score(source, output) == 0
    assert rewritten == {broken}
    output_text = capsys.readouterr().err
    assert f"{broken}: damaged or changed since it was written; its rows are scored again" in output_text
    assert f"{len(parts) - 1} of 200 chunks were completed by an earlier run" in output_text
    assert len(scored_chunks) == 200 - len(parts) + 1
    assert sorted(path.name for path in folder.iterdir()) == ["in.csv", "out.csv"]
    assert text_model.score(source, folder / "at-once.csv") == 0
    assert output.read_bytes() == (folder / "at-once.csv").read_bytes()


def fail_to_join(*_: object) -> None:
    raise OSError("no space left")


class Job(NamedTuple):
    model: Model
    source: Path
    output: Path
    images: Path

    def score(self, output: Path) -> int:
        return self.model.score(self.source, output, "--images", self.images)


@pytest.fixture
def failed_job(
    text_model: Model, catalogue: Path, scored_chunks: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Job:
    """A job that scored its six chunks and failed when it joined them; with its own copies of model and images."""
    monkeypatch.setattr(score_file, "CHUNK_ROWS", 10)
    model = text_model._replace(models=tmp_path / "models")
    job = Job(model, tmp_path / "in.csv", tmp_path / "out.parquet", tmp_path / "images")
    shutil.copy2(catalogue / "X_test.csv", job.source)
    shutil.copytree(catalogue / "images", job.images)
    shutil.copytree(text_model.models, model.models)
    with monkeypatch.context() as patch:
        patch.setattr(score_file, "join_parts", fail_to_join)
        assert job.score(job.output) == 1
    assert len(scored_chunks) == 6
    assert not job.output.exists()
    scored_chunks.clear()
    return job


@pytest.mark.parametrize(
    ("changed", "n_scored"),
    [("nothing", 0), ("input", 6), ("model", 6), ("images", 6), ("chunk size", 3), ("columns", 6)],
)
def test_parts_of_another_job_are_not_used(
    changed: str, n_scored: int, failed_job: Job, scored_chunks: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = failed_job
    if changed == "input":
        products = job.source.read_text(encoding="utf-8")
        job.source.write_text(products.replace("E", "A"), encoding="utf-8", newline="\n")
    elif changed == "model":
        path = job.model.models / "manifest.json"
        manifest = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps(manifest | {"threshold": 0.1}), encoding="utf-8")
    elif changed == "images":
        next(job.images.rglob("*.jpg")).write_bytes(b"")
    elif changed == "chunk size":
        monkeypatch.setattr(score_file, "CHUNK_ROWS", 20)
    elif changed == "columns":  # as of an older version, which added others
        (path,) = job.output.parent.glob(".out.parquet.parts/job.json")
        description = json.loads(path.read_text(encoding="utf-8"))
        columns = [name for name in description["columns"] if not name.startswith("fifth_")]
        path.write_text(json.dumps(description | {"columns": columns}), encoding="utf-8")
    assert job.score(job.output) == 0
    assert len(scored_chunks) == n_scored
    at_once = job.output.with_name("at-once.parquet")
    assert job.score(at_once) == 0
    assert job.output.read_bytes() == at_once.read_bytes()
    assert not job.output.with_name(".out.parquet.parts").exists()


def test_a_part_is_complete_with_all_its_rows(tmp_path: Path) -> None:
    part = tmp_path / "000000.parquet"
    assert not score_file.is_complete(part, 3)
    pq.write_table(pa.table({"designation": ["a", "b", "c"]}), part)
    assert not score_file.is_complete(part, 3)
    part.with_suffix(".sha256").write_text(digest(part))
    assert score_file.is_complete(part, 3)
    assert not score_file.is_complete(part, 4)
    intact = part.read_bytes()
    part.write_bytes(intact[:-20])
    assert not score_file.is_complete(part, 3)
    pq.write_table(pa.table({"designation": ["a", "b", "other"]}), part)
    assert not score_file.is_complete(part, 3)


def test_two_runs_on_one_output_are_kept_apart(
    text_model: Model,
    catalogue: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output = tmp_path / "out.csv"
    prepare = score_file.prepare_parts_folder

    def prepare_while_another_runs(*arguments: Any) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(score_file, "prepare_parts_folder", None)
            assert text_model.score(catalogue / "X_test.csv", output) == 1
        prepare(*arguments)

    monkeypatch.setattr(score_file, "prepare_parts_folder", prepare_while_another_runs)
    assert text_model.score(catalogue / "X_test.csv", output) == 0
    assert f"out.csv: process {os.getpid()} on {platform.node()} is writing to it; wait" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["out.csv"]


def test_an_input_that_changes_while_it_is_scored_is_refused(
    text_model: Model,
    catalogue: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = tmp_path / "in.csv"
    shutil.copy2(catalogue / "X_test.csv", source)
    prepare = score_file.prepare_parts_folder

    def prepare_and_change(*arguments: Any) -> None:
        prepare(*arguments)
        source.write_text(source.read_text(encoding="utf-8").replace("a", "e"), encoding="utf-8", newline="\n")

    monkeypatch.setattr(score_file, "prepare_parts_folder", prepare_and_change)
    assert text_model.score(source, tmp_path / "out.csv") == 1
    assert "in.csv: changed while it was scored; start again" in capsys.readouterr().err
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_memory_does_not_grow_with_the_rows(ending: str, text_model: Model, titles: list[str], tmp_path: Path) -> None:
    rng, jobs = random.Random(1), []
    for n_rows in (4_000, 20_000):
        source = tmp_path / f"{n_rows}{ending}"
        table = pa.table(
            {
                "designation": [rng.choice(titles) for _ in range(n_rows)],
                "ballast": [rng.randbytes(2_000).hex() for _ in range(n_rows)],  # 80 MB in 20,000 rows
            }
        )
        if ending == ".csv":
            table.to_pandas().to_csv(source, index=False)
        else:
            pq.write_table(table, source, row_group_size=n_rows, compression="none", use_dictionary=False)
        flags = text_model.flags(source, tmp_path / f"out{n_rows}{ending}")
        command = [sys.executable, "-m", "tests.support.score_in_chunks", "500", *flags]
        jobs.append(subprocess.Popen(command, env=environment(ROOT), stdout=subprocess.PIPE, text=True))
    small, large = (int(job.communicate(timeout=300)[0]) for job in jobs)
    assert [job.returncode for job in jobs] == [0, 0]
    assert len(read_table(tmp_path / f"out20000{ending}")) == 20_000
    assert large < 1.15 * small


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:3_000])


def flip_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 4] ^= 1  # another letter: only a checksum detects it
    path.write_bytes(bytes(content))


VALID = ",designation,description,productid,imageid\n" + "".join(f"{n},Piscine,bleue,{n},{n}\n" for n in range(9))


UNUSABLE_CSV: dict[str, tuple[str | bytes, str]] = {
    "quote not closed": (VALID + '9,"Roman,policier,9,9\n', "record that begins on line 11 is broken"),
    "quote inside a field": (VALID + '9,"Ro"man,policier,9,9\n', "record that begins on line 11 is broken"),
    "wrong number of fields": (
        VALID + "9,Roman,policier,9\n",
        "the record on lines 11-11 has 4 fields, the header has 5",
    ),
    "cut off inside a line": (VALID[:-3], "the record on lines 10-10 has 4 fields, the header has 5"),
    "empty": ("", "the file is empty"),
    "not UTF-8": (VALID.encode() + "9,é,,9,9\n".encode("cp1252"), "line 11 is not UTF-8"),
    "no designation": (
        VALID.replace("designation", "titre"),
        "no column 'designation'; rename 'titre' to 'designation'",
    ),
    "no imageid": (VALID.replace("imageid", "image"), "no column 'imageid'; rename 'image' to 'imageid'"),
    "a column twice": (VALID.replace("description", "productid"), "several columns are named 'productid'"),
    "scored before": (
        VALID.replace("description", "confidence"),
        "column 'confidence' has the name of a column that scoring adds",
    ),
}


@pytest.mark.parametrize("name", UNUSABLE_CSV)
def test_an_unusable_csv_file_is_refused_with_the_line(
    name: str, text_model: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content, message = UNUSABLE_CSV[name]
    source, output = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_bytes(content if isinstance(content, bytes) else content.encode())
    output.write_text(PREVIOUS_OUTPUT, encoding="utf-8")
    assert text_model.score(source, output, "--images", tmp_path) == 1
    assert_refused(capsys.readouterr().err, message, tmp_path)


def write_text(path: Path) -> None:
    path.write_text("not parquet\n")


def write_lists(path: Path) -> None:
    pq.write_table(pa.table({"designation": [["a"]]}), path)


def write_without_designation(path: Path) -> None:
    pq.write_table(pa.table({"title": ["a"]}), path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (write_text, "not a complete Parquet file"),
        (truncate, "not a complete Parquet file"),
        (flip_bit, "not a complete Parquet file"),
        (write_lists, "'designation' is list<element: string>, not text"),
        (write_without_designation, "no column 'designation'"),
    ],
)
def test_an_unusable_parquet_file_is_refused(
    damage: Callable[[Path], None],
    message: str,
    text_model: Model,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source, output, rng = tmp_path / "in.parquet", tmp_path / "out.csv", random.Random(1)
    table = pa.table({"designation": [rng.randbytes(40).hex() for _ in range(500)], "description": ["a"] * 500})
    pq.write_table(table, source, write_page_checksum=True)
    damage(source)
    output.write_text(PREVIOUS_OUTPUT, encoding="utf-8")
    assert text_model.score(source, output) == 1
    assert_refused(capsys.readouterr().err, message, tmp_path)
