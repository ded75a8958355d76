"""Stage predict: a code, a confidence and two alternatives for every test product; or for any file's rows."""

import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from rakuten.cli import progress, run_stage
from rakuten.compute.parallel import each
from rakuten.config import CACHE, MODELS, PROCESSED, REPORTS, Params
from rakuten.data import product_files
from rakuten.data.tables import table_chunks, table_writer
from rakuten.errors import UserError
from rakuten.features.embedding import read_embeddings
from rakuten.files import dump_json, is_local, writing
from rakuten.models import score_file
from rakuten.models.classifier import ProductClassifier, Products, load_once
from rakuten.tracking import dvc_lock, lineage

NUMBERS = ("designation_len", "description_len", "has_description", "has_image")
PARTS = ("texts", "images")
TOGETHER = 2_000  # rows predicted in one task
NOT_GIVEN = Path("none")  # by identity: the default that --help shows of --input, --images and --output


def run_predict(
    params: Params,
    processed: Path,
    models: Path,
    reports: Path,
    input: Path,  # named after their flags
    images: Path,
    output: Path,
    cache: Path,
) -> str:
    """Classify the test products of --processed. With --input and --output: the rows of any CSV or Parquet file
    (columns designation, description, productid, imageid), with their pictures under --images, in constant memory."""
    if input is NOT_GIVEN and output is NOT_GIVEN:
        if images is not NOT_GIVEN:
            raise UserError("--images goes with --input and --output; add them, or leave it out for the stage")
        return predict(params, processed, models, reports)
    if output is NOT_GIVEN:
        raise UserError(f"--input {input} without --output; add --output FILE.csv or FILE.parquet")
    if input is NOT_GIVEN:
        raise UserError(f"--output {output} without --input; add --input FILE.csv or FILE.parquet")
    pictures = None if images is NOT_GIVEN else images
    check_paths(input, output, pictures)
    return score_file.score_file(input, output, pictures, models, cache)


def predict(params: Params, processed: Path, models: Path, reports: Path) -> str:
    """Classify the test products, in their order, every one of them."""
    source, rows, review = processed / "test_features.csv", 0, 0
    total = sum(len(part) for part in table_chunks(source))
    vectors = [processed / f"test_{part}.npy" for part in PARTS]
    for path in vectors:
        read_embeddings(path, total)  # which refuses those of another table
    classifier, version = ProductClassifier.load(models), lineage.model_version(models)
    if classifier.features != params.features:
        raise UserError(f"{models}: trained on features made otherwise than params.yaml says now; run `dvc repro`")

    def parts() -> Iterator[Part]:
        for table in table_chunks(source, NUMBERS, TOGETHER):
            yield Part(table, int(table.index[0]), total)

    with writing(processed / "predictions.csv", reports / "decisions.json") as (predictions, decisions):
        with table_writer(predictions) as write:
            task = partial(predict_part, models, version, vectors)
            for part in progress(each(task, parts(), 1, _named), -(-total // TOGETHER), "predicting"):
                write(part.assign(model_version=version))
                review += int(part["needs_review"].sum())
                rows += len(part)
        dump_json(
            {
                "rows": rows,
                "decided": rows - review,
                "to_review": review,
                "target_precision": classifier.settings.target_precision,
                "threshold": classifier.settings.threshold,
            },
            decisions,
        )
    dvc_lock.attach_lock_if_reachable(models)
    return f"{rows:,} products predicted, {rows - review:,} decided automatically and {review:,} to review"


class Part(NamedTuple):
    """Some rows of the features, where they begin, and how many there are in all."""

    table: pd.DataFrame
    start: int
    total: int


def predict_part(models: Path, version: str, vectors: Sequence[Path], part: Part) -> pd.DataFrame:
    """Ids and predictions of some rows; their embeddings are read from the features' files."""
    rows = slice(part.start, part.start + len(part.table))
    embedded = [read_embeddings(path, part.total) for path in vectors]
    products = Products(part.table, *(None if each_view is None else each_view[rows] for each_view in embedded))
    return part.table[["productid", "imageid"]].join(load_once(models, version).predict(products))


def _named(part: Part) -> str:
    return f"test rows {part.start + 1:,}-{part.start + len(part.table):,}"


def check_paths(source: Path, output: Path, images: Path | None) -> None:
    """Raise UserError unless the paths of a batch can be what they are for."""
    for path in (source, output):
        if path.suffix.lower() not in (product_files.CSV, product_files.PARQUET):
            raise UserError(
                f"{path}: neither {product_files.CSV} nor {product_files.PARQUET}; name a file with one of these endings"
            )
    if not source.is_file():
        raise UserError(f"{source}: no such file; give --input a file that is there")
    if is_local(output) and not output.parent.is_dir():
        raise UserError(f"{output.parent}: no such folder for {output.name}; make it, or give --output another")
    if output.is_dir():
        raise UserError(f"{output}: a folder; give --output the name of a file")
    both = is_local(source) and is_local(output) and output.exists()
    if source.resolve() == output.resolve() or (both and source.samefile(output)):
        raise UserError(f"{output}: the input itself, which is never changed; give --output another name")
    if images is not None and not images.is_dir():
        raise UserError(f"{images}: no such folder of pictures; mend --images, or leave it out to go by the texts")


def main(argv: Sequence[str] | None = None) -> int:
    paths = {"processed": PROCESSED, "models": MODELS, "reports": REPORTS}
    of_batch = {"input": NOT_GIVEN, "images": NOT_GIVEN, "output": NOT_GIVEN, "cache": CACHE}
    return run_stage("predict", __file__, run_predict, paths | of_batch, argv)


if __name__ == "__main__":
    sys.exit(main())
