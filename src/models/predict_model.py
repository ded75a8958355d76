"""Stage predict: a code, a confidence and two alternatives for every test product."""

import sys
from collections.abc import Sequence
from pathlib import Path

from src.cli import run_stage
from src.config import MODELS, PROCESSED, REPORTS, Params
from src.data.catalog import read_table, write_table
from src.errors import UserError
from src.features.embeddings import read_embeddings
from src.files import dump_json, writing
from src.models.classifier import ProductClassifier, Products
from src.tracking import lineage, lock

NUMBERS = ("designation_len", "description_len", "has_description", "has_image")
PARTS = ("texts", "images")


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


def main(argv: Sequence[str] | None = None) -> int:
    return run_stage("predict", __file__, predict, {"processed": PROCESSED, "models": MODELS, "reports": REPORTS}, argv)


if __name__ == "__main__":
    sys.exit(main())
