"""Stage features: the interim rows, cleaned and measured."""

import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from src.cli import run_stage
from src.config import INTERIM, PROCESSED, FeatureParams, Params
from src.data.catalog import read_table, write_table
from src.features.text import clean_all
from src.files import writing


def features(params: Params, interim: Path, processed: Path) -> str:
    """Clean titles and descriptions of the train and test rows."""
    targets = [processed / "train_features.csv", processed / "test_features.csv"]
    sizes = []
    with writing(*targets) as parts:
        for name, part in zip(("train", "test"), parts, strict=True):
            rows = read_table(interim / f"merged_{name}.csv")
            write_table(build_features(rows, params.features, name), part)
            sizes.append(len(rows))
    return f"{sizes[0]:,} train and {sizes[1]:,} test rows cleaned"


def build_features(rows: pd.DataFrame, params: FeatureParams, what: str = "rows") -> pd.DataFrame:
    """Features of products, row by row in the order given.

    Args:
        rows: designation, description, productid, imageid, has_image, and prdtypecode if known; all str.

    Returns:
        productid, imageid, designation_clean, description_clean, their lengths in characters
        (designation_len, description_len), has_description and has_image (0 or 1), and
        prdtypecode if it was given.
    """
    designation, description = (
        clean_all(rows[name].tolist(), params, f"{what} {name}s") for name in ("designation", "description")
    )
    table = pd.DataFrame(
        {
            "productid": rows["productid"],
            "imageid": rows["imageid"],
            "designation_clean": designation,
            "description_clean": description,
            "designation_len": [len(text) for text in designation],
            "description_len": [len(text) for text in description],
            "has_description": [int(text != "") for text in description],
            "has_image": (rows["has_image"] == "True").astype(int),
        }
    )
    return table.assign(prdtypecode=rows["prdtypecode"]) if "prdtypecode" in rows else table


def main(argv: Sequence[str] | None = None) -> int:
    return run_stage("features", __file__, features, {"interim": INTERIM, "processed": PROCESSED}, argv)


if __name__ == "__main__":
    sys.exit(main())
