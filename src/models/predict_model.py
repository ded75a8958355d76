"""Stage predict: a code, a confidence and two alternatives for every test product."""

import sys
from collections.abc import Sequence
from pathlib import Path

from src import tracking
from src.cli import run_stage
from src.config import MODELS, PROCESSED, Params
from src.data.catalog import read_table, write_table
from src.errors import UserError
from src.files import writing
from src.models.classifier import ProductClassifier

NUMBERS = ("designation_len", "description_len", "has_description", "has_image")


def predict(params: Params, processed: Path, models: Path) -> str:
    """Classify the test products, in their order, every one of them."""
    rows = read_table(processed / "test_features.csv", integers=NUMBERS)
    classifier = ProductClassifier.load(models)
    if classifier.features != params.features:
        raise UserError(f"{models}: trained on text cleaned otherwise than params.yaml says now; run `dvc repro`")
    table = classifier.predict(rows)
    with writing(processed / "predictions.csv") as (part,):
        write_table(rows[["productid", "imageid"]].join(table), part)
    tracking.attach_lock_if_reachable(models)
    return f"{len(rows):,} products predicted, {int(table['needs_review'].sum()):,} of them to review"


def main(argv: Sequence[str] | None = None) -> int:
    return run_stage("predict", __file__, predict, {"processed": PROCESSED, "models": MODELS}, argv)


if __name__ == "__main__":
    sys.exit(main())
