"""Batch scoring: the stage's answers for any file, in constant memory, whatever kills it, and clear words else."""

import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from rakuten.config import PARAMS, load_params
from rakuten.data import make_dataset
from rakuten.data.images import ImageFiles
from rakuten.data.schema import image_name
from rakuten.data.synthetic import write_catalogue
from rakuten.data.tables import read_table
from rakuten.features import build_features
from rakuten.features.encoders.factory import encoder_fingerprints
from rakuten.features.feature_set import INTEGER_COLUMNS, FeatureSet, read_embeddings
from rakuten.models import predict_model, score_file
from rakuten.models.classifier import ProductClassifier
from rakuten.models.pyfunc_model import OUTPUTS, PyfuncModel
from rakuten.models.training import fit
from rakuten.tracking.lineage import model_version
from tests.support.project import ROOT, environment

ADDED = [*OUTPUTS, "model_version"]
CONFIDENCES = [name for name in ADDED if name.endswith("confidence")]
# In a process of its own: a chunk size, then the flags; says its peak memory in the end.
PROGRAM = """
import sys
from pathlib import Path
from rakuten.models import batch, predict_model
batch.CHUNK = int(sys.argv[1])
code = predict_model.main(sys.argv[2:])
status = Path("/proc/self/status")
print([line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM")][0])
sys.exit(code)
"""


class Model(NamedTuple):
    models: Path
    predictions: Path  # the stage's, of X_test
    cache: Path

    def score(self, source: Path, output: Path, *more: object) -> int:
        return predict_model.main([*self.flags(source, output), *map(str, more)])

    def flags(self, source: Path, output: Path) -> list[str]:
        flags = {"input": source, "output": output, "models": self.models, "cache": self.cache}
        return [text for name, path in flags.items() for text in (f"--{name}", str(path))]


def run_stages(raw: Path, folder: Path, encoders: bool) -> Model:
    """Run the stages with few n-grams and resamples; the training as `train_model` does it, but without MLflow."""
    values = yaml.safe_load(PARAMS.read_text(encoding="utf-8"))
    values["train"] |= {"bootstrap": 50, "folds": 3, "blocks": values["train"]["blocks"][:1]}
    if not encoders:
        values["features"] |= {"image_encoder": "none", "text_encoder": "none"}
    file = folder / "params.yaml"
    file.write_text(yaml.safe_dump(values), encoding="utf-8")
    params = load_params(file)
    interim, processed, models, cache = (folder / name for name in ("interim", "processed", "models", "cache"))
    make_dataset.ingest(params, raw, interim, folder)
    build_features.features(params, interim, raw, processed, cache)
    table = read_table(processed / "train_features.csv", integers=INTEGER_COLUMNS)
    embedded = (read_embeddings(processed / f"train_{part}.npy", len(table)) for part in ("texts", "images"))
    catalogue = FeatureSet.of([table], *embedded)
    fit(catalogue, params, encoder_fingerprints(params.features), folder / "scratch").classifier.save(models)
    predict_model.predict(params, processed, models, folder)
    return Model(models, processed / "predictions.csv", cache)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 + 60 synthetic products with pictures, for models that need not be good."""
    folder = tmp_path_factory.mktemp("shop")
    write_catalogue(120, 60, 7, folder)
    return folder


@pytest.fixture(scope="module")
def seeing(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A model with both encoders."""
    return run_stages(shop, tmp_path_factory.mktemp("seeing"), encoders=True)


@pytest.fixture(scope="module")
def quick(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A model of words alone."""
    return run_stages(shop, tmp_path_factory.mktemp("quick"), encoders=False)


@pytest.fixture(scope="module")
def titles(shop: Path) -> list[str]:
    return pd.read_csv(shop / "X_train.csv", keep_default_na=False)["designation"].tolist()


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The chunks that were scored and not taken from parts."""
    chunks: list[str] = []
    made = score_file.make_chunk

    def noting(*arguments: Any) -> score_file.ProductChunk:
        chunk = made(*arguments)
        chunks.append(chunk.where)
        return chunk

    monkeypatch.setattr(score_file, "to_score", noting)
    return chunks


def rows_of(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.reader(stream, strict=True))


def read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path).reset_index(drop=True)


def write_titles(path: Path, titles: list[str], count: int) -> Path:
    draw = random.Random(count)
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["sku", "designation"])
        writer.writerows([at, draw.choice(titles)] for at in range(count))
    return path


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
@pytest.mark.parametrize("source", ["X_test.csv", "products.parquet"])
def test_any_file_gets_the_answers_of_the_stage(
    source: str, ending: str, seeing: Model, shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(score_file, "CHUNK", 25)
    given, output = shop / source, tmp_path / f"scored{ending}"
    if source.endswith(".parquet"):
        given = tmp_path / source
        pd.read_csv(shop / "X_test.csv", index_col=0).to_parquet(given, row_group_size=7)
    assert seeing.score(given, output, "--images", shop) == 0
    answers, stage = read(output), pd.read_csv(seeing.predictions)
    assert answers[["productid", "imageid"]].astype("int64").equals(stage[["productid", "imageid"]])
    same = [name for name in ADDED if name not in CONFIDENCES]
    assert answers[same].astype(stage[same].dtypes).equals(stage[same])
    # A matrix of fewer rows may be multiplied in another order: the last of the six digits may differ by one.
    assert (answers[CONFIDENCES] - stage[CONFIDENCES]).abs().max(axis=None) < 1.5e-6
    assert answers["confidence"].nunique() > 50
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted({given.name, output.name} - {"X_test.csv"})
    if given.suffix == output.suffix == ".csv":
        before, after = rows_of(given), rows_of(output)
        assert [row[: len(before[0])] for row in after] == before
        assert after[0][len(before[0]) :] == ADDED
    if given.suffix == output.suffix == ".parquet":
        assert pq.read_table(output).select(pq.read_table(given).column_names).equals(pq.read_table(given))


def test_as_a_module_and_as_a_script_it_writes_the_same(
    quick: Model, shop: Path, tmp_path: Path, run_script: Callable[..., "subprocess.CompletedProcess[str]"]
) -> None:
    flags = quick.flags(shop / "X_test.csv", tmp_path / "script.csv")
    done = run_script("src/models/predict_model.py", *flags, "--images", shop / "images", cwd=tmp_path)
    assert "pictures: 60 used\nINFO predict: 60 products scored, " in done.stderr
    module = [
        sys.executable,
        "-m",
        "rakuten.models.predict_model",
        *quick.flags(shop / "X_test.csv", tmp_path / "m.csv"),
    ]
    subprocess.run([*module, "--images", str(shop)], cwd=tmp_path, env=environment(ROOT), check=True, timeout=300)
    assert (tmp_path / "m.csv").read_bytes() == (tmp_path / "script.csv").read_bytes()
    stage = pd.read_csv(quick.predictions)
    assert pd.read_csv(tmp_path / "m.csv")[ADDED].equals(stage[ADDED])


def test_a_bad_picture_leaves_the_product_to_its_text(
    seeing: Model, shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = pd.read_csv(shop / "X_test.csv", dtype=str, keep_default_na=False)
    files = ImageFiles(shop / "images")
    names = [image_name(*ids) for ids in zip(rows["imageid"], rows["productid"], strict=True)]
    deep = tmp_path / "shop" / "2026" / "deep"
    deep.mkdir(parents=True)
    for name in names[:3]:
        shutil.copy2(files[name], deep / name)
    whole = files[names[3]].read_bytes()
    (deep / names[3]).write_bytes(whole[: len(whole) // 2])
    (deep / names[4]).write_bytes(b"")
    assert seeing.score(shop / "X_test.csv", tmp_path / "some.csv", "--images", tmp_path / "shop") == 0
    assert "pictures: 1 empty, 55 missing, 1 truncated, 3 used" in capsys.readouterr().err
    assert seeing.score(shop / "X_test.csv", tmp_path / "texts.csv") == 0
    assert "pictures:" not in capsys.readouterr().err
    some, texts = (pd.read_csv(tmp_path / f"{name}.csv") for name in ("some", "texts"))
    assert (some["confidence"] != texts["confidence"]).sum() == 3
    # As the API would answer for the same bytes.
    there = ImageFiles(tmp_path / "shop")
    pictures = [there[name].read_bytes() if name in there else None for name in names]
    model = PyfuncModel(ProductClassifier.load(seeing.models))
    for answers, given in ((some, rows.assign(picture=pictures)), (texts, rows)):
        assert (answers[CONFIDENCES] - model.predict(given)[CONFIDENCES]).abs().max(axis=None) < 1.5e-6


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_every_row_is_kept_in_its_order(
    ending: str, quick: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(score_file, "CHUNK", 2)
    given = tmp_path / f"given{ending}"
    odd = ["", "NA", '5" écran; "gros", lot', "deux\nlignes", "fin\rseule", "  ", "piscine", "piscine", ""]
    ids = ["7", "007", "", "9.5", "x", "9" * 30, "-1", "7", ""]
    columns = {"": [str(9 - at) for at in range(9)], "designation": odd, "productid": ids, "imageid": ids, "é": odd}
    if ending == ".csv":
        with given.open("w", encoding="utf-8-sig", newline="") as stream:
            writer = csv.writer(stream, quoting=csv.QUOTE_ALL)
            writer.writerows([list(columns), *zip(*columns.values(), strict=True)])
    else:
        pq.write_table(pa.table(columns), given)
    assert quick.score(given, tmp_path / "out.csv", "--images", tmp_path) == 0
    header, *rows = rows_of(tmp_path / "out.csv")
    assert header == [*columns, *ADDED]
    assert [row[:5] for row in rows] == [list(row) for row in zip(*columns.values(), strict=True)]
    assert all(int(row[5]) and 0 < float(row[7]) <= 1 and row[12] in ("True", "False") for row in rows)
    assert {row[13] for row in rows} == {model_version(quick.models)}


def test_no_rows_and_gaps_in_numbers_are_no_error(quick: Model, tmp_path: Path, shop: Path) -> None:
    nothing = tmp_path / "nothing.csv"
    nothing.write_text("designation,description\n", encoding="utf-8")
    assert quick.score(nothing, tmp_path / "scored.parquet") == 0
    assert pq.read_table(tmp_path / "scored.parquet").column_names == ["designation", "description", *ADDED]
    assert pq.read_table(tmp_path / "scored.parquet").num_rows == 0
    rows = pd.read_csv(shop / "X_test.csv")
    rows.loc[1, ["designation", "description", "productid", "imageid"]] = None  # makes floats of the ids
    rows.to_parquet(tmp_path / "gaps.parquet")
    assert quick.score(tmp_path / "gaps.parquet", tmp_path / "gaps.csv", "--images", shop) == 0
    answers, stage = pd.read_csv(tmp_path / "gaps.csv"), pd.read_csv(quick.predictions)
    assert answers.drop(index=1)[ADDED].equals(stage.drop(index=1)[ADDED])
    assert answers["needs_review"][1]


def test_killed_it_goes_on_where_it_stopped(
    quick: Model,
    titles: list[str],
    scored: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(score_file, "CHUNK", 20)
    source, output, undisturbed = (tmp_path / name for name in ("in.csv", "out.csv", "undisturbed.csv"))
    write_titles(source, titles, 4_000)
    assert quick.score(source, undisturbed) == 0
    assert len(scored) == 200
    work = tmp_path / ".out.csv.parts"
    command = [sys.executable, "-c", PROGRAM, "20", *quick.flags(source, output)]
    with subprocess.Popen(command, env=environment(ROOT), start_new_session=True, stderr=subprocess.DEVNULL) as job:
        deadline = time.monotonic() + 120
        while len(list(work.glob("[0-9]*"))) < 5:
            assert job.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.001)
        os.killpg(job.pid, signal.SIGKILL)
    kept = {path: path.stat().st_mtime_ns for path in work.glob("[0-9]*")}
    assert 5 <= len(kept) < 200
    assert not output.exists()
    lost = work / "000001.parquet"
    lost.write_bytes(lost.read_bytes()[:-20])  # as a machine without power leaves it

    scored.clear()
    capsys.readouterr()
    join = score_file.join_parts

    def looking(*arguments: Any) -> Any:
        now = {path: path.stat().st_mtime_ns for path in kept}
        assert {path for path in kept if now[path] != kept[path]} == {lost}
        return join(*arguments)

    monkeypatch.setattr(score_file, "join", looking)
    assert quick.score(source, output) == 0
    assert f"{len(kept) - 1} of 200 chunks are there from a run that was stopped" in capsys.readouterr().err
    assert len(scored) == 200 - len(kept) + 1
    assert output.read_bytes() == undisturbed.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.csv", "out.csv", "undisturbed.csv"]


@pytest.mark.parametrize("changed", ["nothing", "input", "model", "pictures", "chunk"])
def test_parts_of_another_job_are_never_taken(
    changed: str, quick: Model, shop: Path, scored: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(score_file, "CHUNK", 10)
    source, output, images = tmp_path / "in.csv", tmp_path / "out.parquet", tmp_path / "images"
    shutil.copy2(shop / "X_test.csv", source)
    shutil.copytree(shop / "images", images)
    model = quick._replace(models=tmp_path / "models")
    shutil.copytree(quick.models, model.models)
    with monkeypatch.context() as patch:
        patch.setattr(score_file, "join", lambda *_: (_ for _ in ()).throw(OSError("no space left")))
        assert model.score(source, output, "--images", images) == 1
    assert len(scored) == 6
    assert not output.exists()
    if changed == "input":
        source.write_text(source.read_text(encoding="utf-8").replace("E", "A"), encoding="utf-8", newline="\n")
    elif changed == "model":
        manifest = json.loads((model.models / "manifest.json").read_text(encoding="utf-8"))
        (model.models / "manifest.json").write_text(json.dumps(manifest | {"threshold": 0.1}), encoding="utf-8")
    elif changed == "pictures":
        next(images.rglob("*.jpg")).write_bytes(b"")
    elif changed == "chunk":
        monkeypatch.setattr(score_file, "CHUNK", 20)
    scored.clear()
    assert model.score(source, output, "--images", images) == 0
    assert len(scored) == {"nothing": 0, "chunk": 3}.get(changed, 6)
    assert model.score(source, tmp_path / "alone.parquet", "--images", images) == 0
    assert output.read_bytes() == (tmp_path / "alone.parquet").read_bytes()
    assert not (tmp_path / ".out.parquet.parts").exists()


def test_an_input_that_changes_under_way_is_refused(
    quick: Model, shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "in.csv"
    shutil.copy2(shop / "X_test.csv", source)
    begin = score_file.prepare_parts_folder

    def beginning(*arguments: Any) -> None:
        begin(*arguments)
        source.write_text(source.read_text(encoding="utf-8").replace("a", "e"), encoding="utf-8", newline="\n")

    monkeypatch.setattr(score_file, "begin", beginning)
    assert quick.score(source, tmp_path / "out.csv") == 1
    assert "in.csv: changed while it was scored; start again" in capsys.readouterr().err
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_memory_does_not_grow_with_the_rows(ending: str, quick: Model, titles: list[str], tmp_path: Path) -> None:
    # Not resource.getrusage: its peak is never below that of the process that started this one.
    draw, jobs = random.Random(1), []
    for count in (4_000, 20_000):
        source = tmp_path / f"{count}{ending}"
        table = pa.table(
            {
                "designation": [draw.choice(titles) for _ in range(count)],
                "ballast": [draw.randbytes(2_000).hex() for _ in range(count)],  # 80 MB in 20,000 rows
            }
        )
        if ending == ".csv":
            table.to_pandas().to_csv(source, index=False)
        else:
            pq.write_table(table, source, row_group_size=count, compression="none", use_dictionary=False)
        command = [sys.executable, "-c", PROGRAM, "500", *quick.flags(source, tmp_path / f"out{count}{ending}")]
        jobs.append(subprocess.Popen(command, env=environment(ROOT), stdout=subprocess.PIPE, text=True))
    small, large = (int(job.communicate(timeout=300)[0]) for job in jobs)
    assert [job.returncode for job in jobs] == [0, 0]
    assert len(read(tmp_path / f"out20000{ending}")) == 20_000
    assert large < 1.15 * small


def cut(path: Path, keep: int) -> None:
    path.write_bytes(path.read_bytes()[:keep])


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 4] ^= 1  # another letter, which only a checksum can tell
    path.write_bytes(bytes(content))


SOUND = ",designation,description,productid,imageid\n" + "".join(f"{n},Piscine,bleue,{n},{n}\n" for n in range(9))
BROKEN: dict[str, tuple[str | bytes, str]] = {
    "quote not closed": (SOUND + '9,"Roman,policier,9,9\n', "record that begins on line 11 is broken"),
    "quote astray": (SOUND + '9,"Ro"man,policier,9,9\n', "record that begins on line 11 is broken"),
    "wrong number of fields": (
        SOUND + "9,Roman,policier,9\n",
        "the record on lines 11-11 has 4 fields, the header has 5",
    ),
    "cut in a line": (SOUND[:-3], "the last line has no line end"),
    "empty": ("", "the file is empty"),
    "not UTF-8": (SOUND.encode() + "9,é,,9,9\n".encode("cp1252"), "line 11 is not UTF-8"),
    "semicolons": (SOUND.replace(",", ";"), "not parted by commas"),
    "no designation": (SOUND.replace("designation", "titre"), "no column 'designation'; rename the one that holds it"),
    "no imageid": (SOUND.replace("imageid", "image"), "no column 'imageid', by which --images finds pictures"),
    "a column twice": (SOUND.replace("description", "productid"), "column 'productid' is there twice"),
    "scored before": (SOUND.replace("description", "confidence"), "column 'confidence' is one that scoring adds"),
}


@pytest.fixture
def untouched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[[str], None]]:
    """Check that one line was said and the folder stayed as it was: what was there before, and nothing new."""
    (tmp_path / "out.csv").write_text("before", encoding="utf-8")

    def check(message: str) -> None:
        said = capsys.readouterr().err
        assert message in said
        assert said.count("\n") == 1
        assert (tmp_path / "out.csv").read_text(encoding="utf-8") == "before"
        assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]

    yield check


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_csv_file_is_named_with_the_place(
    name: str, quick: Model, tmp_path: Path, untouched: Callable[[str], None]
) -> None:
    content, message = BROKEN[name]
    source = tmp_path / "in.csv"
    source.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert quick.score(source, tmp_path / "out.csv", "--images", tmp_path) == 1
    untouched(message)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lambda path: path.write_text("not parquet\n"), "not a whole Parquet file"),
        (lambda path: cut(path, 3_000), "not a whole Parquet file"),
        (damage, "not a whole Parquet file"),
        (lambda path: pq.write_table(pa.table({"designation": [1]}), path), "'designation' is int64, not text"),
        (lambda path: pq.write_table(pa.table({"title": ["a"]}), path), "no column 'designation'"),
    ],
)
def test_a_broken_parquet_file_is_named(
    broken: Callable[[Path], None], message: str, quick: Model, tmp_path: Path, untouched: Callable[[str], None]
) -> None:
    source, draw = tmp_path / "in.parquet", random.Random(1)
    table = pa.table({"designation": [draw.randbytes(40).hex() for _ in range(500)], "description": ["a"] * 500})
    pq.write_table(table, source, write_page_checksum=True)
    broken(source)
    assert quick.score(source, tmp_path / "out.csv") == 1
    untouched(message)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--input {}/in.csv", "without --output; add --output"),
        ("--output {}/out.csv", "without --input; add --input"),
        ("--images {}", "--images goes with --input and --output"),
        ("--input {}/in.xlsx --output {}/out.csv", "in.xlsx: neither .csv nor .parquet"),
        ("--input {}/in.csv --output {}/out.json", "out.json: neither .csv nor .parquet"),
        ("--input {}/none.csv --output {}/out.csv", "none.csv: no such file; give --input"),
        ("--input {}/in.csv --output {}/none/out.csv", "none: no such folder for out.csv; make it"),
        ("--input {}/in.csv --output {}/folder.csv", "folder.csv: a folder"),
        ("--input {}/in.csv --output {}/in.csv", "in.csv: the input itself"),
        ("--input {}/in.csv --output {}/link.csv", "link.csv: the input itself"),
        ("--input {}/in.csv --output {}/out.csv --images {}/none", "none: no such folder of pictures"),
        ("--input {}/in.csv --output {}/out.csv --models {}", "no such file, so there is no model"),
    ],
)
def test_flags_that_cannot_be_are_refused(
    flags: str, message: str, tmp_path: Path, untouched: Callable[[str], None]
) -> None:
    (tmp_path / "in.csv").write_text(SOUND, encoding="utf-8")
    (tmp_path / "link.csv").symlink_to(tmp_path / "in.csv")
    (tmp_path / "folder.csv").mkdir()
    assert predict_model.main([flag.replace("{}", str(tmp_path)) for flag in flags.split()]) == 1
    untouched(message)
    assert (tmp_path / "in.csv").read_text(encoding="utf-8") == SOUND
