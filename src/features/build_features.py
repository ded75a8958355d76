"""Stage features: the interim rows, cleaned and measured."""

import sys
from collections.abc import Sequence
from pathlib import Path

from src.cli import run_stage
from src.config import INTERIM, PROCESSED, Params
from src.data.catalog import read_table, write_table
from src.features.products import product_features
from src.files import writing


def features(params: Params, interim: Path, processed: Path) -> str:
    """Clean titles and descriptions of the train and test rows."""
    targets = [processed / "train_features.csv", processed / "test_features.csv"]
    sizes = []
    with writing(*targets) as parts:
        for name, part in zip(("train", "test"), parts, strict=True):
            rows = read_table(interim / f"merged_{name}.csv")
            write_table(product_features(rows, params.features, name), part)
            sizes.append(len(rows))
    return f"{sizes[0]:,} train and {sizes[1]:,} test rows cleaned"


def main(argv: Sequence[str] | None = None) -> int:
    return run_stage("features", __file__, features, {"interim": INTERIM, "processed": PROCESSED}, argv)


if __name__ == "__main__":
    sys.exit(main())
