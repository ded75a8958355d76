"""Stage predict: a code, a confidence and two alternatives for every test product; or for any file's rows."""

import sys
from collections.abc import Sequence
from pathlib import Path

from src.cli import run_stage
from src.config import CACHE, MODELS, PROCESSED, REPORTS, Params
from src.data.catalog import read_table, write_table
from src.errors import UserError
from src.features.embeddings import read_embeddings
from src.files import dump_json, writing
from src.models import batch
from src.models.classifier import ProductClassifier, Products
from src.tracking import lineage, lock

NUMBERS = ("designation_len", "description_len", "has_description", "has_image")
PARTS = ("texts", "images")
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
    return batch.score_file(input, output, pictures, models, cache)


def predict(params: Params, processed: Path, models: Path, reports: Path) -> str:
    """Classify the test products, in their order, every one of them."""
    rows = read_table(processed / "test_features.csv", integers=NUMBERS)
    products = Products(rows, *(read_embeddings(processed / f"test_{part}.npy", len(rows)) for part in PARTS))
    classifier = ProductClassifier.load(models)
    if classifier.features != params.features:
        raise UserError(f"{models}: trained on features made otherwise than params.yaml says now; run `dvc repro`")
    table = classifier.predict(products)
    version = lineage.model_version(models)
    review = int(table["needs_review"].sum())
    with writing(processed / "predictions.csv", reports / "decisions.json") as (predictions, decisions):
        write_table(rows[["productid", "imageid"]].join(table).assign(model_version=version), predictions)
        dump_json(
            {
                "rows": len(rows),
                "decided": len(rows) - review,
                "to_review": review,
                "target_precision": classifier.settings.target_precision,
                "threshold": classifier.settings.threshold,
            },
            decisions,
        )
    lock.attach_lock_if_reachable(models)
    return f"{len(rows):,} products predicted, {len(rows) - review:,} decided automatically and {review:,} to review"


def check_paths(source: Path, output: Path, images: Path | None) -> None:
    """Raise UserError unless the paths of a batch can be what they are for."""
    for path in (source, output):
        if path.suffix.lower() not in (batch.CSV, batch.PARQUET):
            raise UserError(f"{path}: neither {batch.CSV} nor {batch.PARQUET}; name a file with one of these endings")
    if not source.is_file():
        raise UserError(f"{source}: no such file; give --input a file that is there")
    if not output.parent.is_dir():
        raise UserError(f"{output.parent}: no such folder for {output.name}; make it, or give --output another")
    if output.is_dir():
        raise UserError(f"{output}: a folder; give --output the name of a file")
    if source.resolve() == output.resolve() or (output.exists() and source.samefile(output)):
        raise UserError(f"{output}: the input itself, which is never changed; give --output another name")
    if images is not None and not images.is_dir():
        raise UserError(f"{images}: no such folder of pictures; mend --images, or leave it out to go by the texts")


def main(argv: Sequence[str] | None = None) -> int:
    paths = {"processed": PROCESSED, "models": MODELS, "reports": REPORTS}
    of_batch = {"input": NOT_GIVEN, "images": NOT_GIVEN, "output": NOT_GIVEN, "cache": CACHE}
    return run_stage("predict", __file__, run_predict, paths | of_batch, argv)


if __name__ == "__main__":
    sys.exit(main())
