"""Stage ingest: the challenge's files, checked and joined."""

import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from src.cli import run_stage
from src.config import INTERIM, RAW, REPORTS, DataParams, Params
from src.data import checks
from src.data.catalog import (
    INDEX,
    X_COLUMNS,
    Y_COLUMNS,
    is_synthetic,
    picture_name,
    read_raw,
    write_table,
)
from src.data.pictures import Inspection, counts, inspect_all, picture_files
from src.files import dump_json, writing

log = logging.getLogger(__name__)

COLUMNS = [*X_COLUMNS, "has_image"]


class Dataset(NamedTuple):
    """What ingest writes: train and test rows, rejected rows (row, file, reason), the report."""

    train: pd.DataFrame
    test: pd.DataFrame
    rejected: pd.DataFrame
    quality: dict[str, Any]


def ingest(params: Params, raw: Path, interim: Path, reports: Path) -> str:
    """Check the raw files, join titles and labels, and report on the data's quality."""
    x = read_raw(raw / "X_train.csv", X_COLUMNS)
    y = read_raw(raw / "Y_train.csv", Y_COLUMNS)
    test = read_raw(raw / "X_test.csv", X_COLUMNS)
    pictures = inspect_all(list(picture_files(raw / "images").values()))
    data = make_dataset(x, y, test, pictures, params.data)
    _warn(data.quality)
    targets = [interim / name for name in ("merged_train.csv", "merged_test.csv", "rejected.csv")]
    with writing(*targets, reports / "data_quality.json") as parts:
        for frame, part in zip(data[:3], parts, strict=False):
            write_table(frame, part)
        dump_json(data.quality, parts[3])
    return (
        f"{len(x):,} train rows read, {len(data.train):,} kept, {len(data.rejected):,} rejected; "
        f"{len(data.test):,} test rows kept"
    )


def make_dataset(
    x: pd.DataFrame, y: pd.DataFrame, test: pd.DataFrame, pictures: Mapping[str, Inspection], params: DataParams
) -> Dataset:
    """Join X and Y, part the usable rows from the rest, and count what a user should know.

    Args:
        x, y, test: the raw files as `catalog.read_raw` gives them.
        pictures: what is known of each file in the picture folder, by name.

    Raises:
        UserError: the files cannot be used; see `checks`.
    """
    for frame, file in ((x, "X_train.csv"), (y, "Y_train.csv"), (test, "X_test.csv")):
        checks.check_index(frame, file)
    checks.check_join(x, y)
    x, test = _plain_ids(x), _plain_ids(test)
    checks.check_ids_unique(x, "X_train.csv")
    checks.check_ids_unique(test, "X_test.csv")

    labels = y.set_index(y[INDEX].astype("int64"))["prdtypecode"]
    everything = _with_picture(x, pictures).assign(prdtypecode=labels.loc[x[INDEX].astype("int64")].to_numpy())
    test = _with_picture(test, pictures)
    reasons = checks.reject_reasons(everything, params.unknown_labels)
    rejected = pd.DataFrame(
        {
            "row": everything[INDEX],
            "file": reasons.str.startswith("label").map({True: "Y_train.csv", False: "X_train.csv"}),
            "reason": reasons,
        }
    )[reasons != ""]
    checks.check_rejected(rejected, len(everything), params.max_rejected)
    train = everything[reasons == ""].assign(prdtypecode=lambda kept: kept["prdtypecode"].str.strip().astype("int64"))
    checks.check_classes(train["prdtypecode"])
    return Dataset(
        train=train[[*COLUMNS, "prdtypecode"]],
        test=test[COLUMNS],
        rejected=rejected,
        quality=_quality(everything, train, test, rejected, pictures),
    )


def _with_picture(frame: pd.DataFrame, pictures: Mapping[str, Inspection]) -> pd.DataFrame:
    """Columns picture (what is wrong with it) and has_image (whether there is one to use)."""
    state = checks.picture_state(frame, pictures)
    return frame.assign(picture=state, has_image=state == "")


def _plain_ids(frame: pd.DataFrame) -> pd.DataFrame:
    """Integer ids in their plain spelling ("007" is 7), others as they stand."""
    ids = {
        name: [str(int(text)) if sound else text for text, sound in zip(frame[name], whole, strict=True)]
        for name in ("productid", "imageid")
        for whole in [frame[name].str.fullmatch(checks.INTEGER)]
    }
    return frame.assign(**ids)


def _quality(
    everything: pd.DataFrame,
    train: pd.DataFrame,
    test: pd.DataFrame,
    rejected: pd.DataFrame,
    pictures: Mapping[str, Inspection],
) -> dict[str, Any]:
    titles = train.loc[~checks.blank(train["designation"]), "designation"]
    referenced = {
        picture_name(*ids)
        for frame in (everything, test)
        for ids in zip(frame["imageid"], frame["productid"], strict=True)
    }
    return {
        "synthetic": is_synthetic(everything),
        "train": {
            "rows_in": len(everything),
            "rows_out": len(train),
            "rows_rejected": len(rejected),
            "rejected": {reason: int(n) for reason, n in rejected["reason"].value_counts().items()},
            "classes": int(train["prdtypecode"].nunique()),
            "small_classes": checks.small_classes(train["prdtypecode"]),
            **checks.describe(train),
        },
        "test": {
            "rows_in": len(test),
            "rows_out": len(test),
            "ids_not_integers": int((~checks.valid_ids(test)).sum()),
            "nothing_to_classify_by": int(checks.empty(test).sum()),
            "title_in_train": int(test["designation"].isin(titles).sum()),
            **checks.describe(test),
        },
        "pictures": {
            "files": len(pictures),
            "not_referenced": len(pictures.keys() - referenced),
            "unusable": counts([found.bad for found in pictures.values()]),
            "unusual": counts([word for found in pictures.values() for word in found.unusual]),
        },
    }


def _warn(quality: dict[str, Any]) -> None:
    if quality["synthetic"]:
        log.warning("this is the synthetic sample catalogue: its scores say nothing about real products")
    if not quality["pictures"]["files"]:
        log.warning("no file under images/: every product goes on without its picture")
    elif missing := quality["train"]["missing_picture"] + quality["test"]["missing_picture"]:
        log.warning("%s products have no picture on disk; they go on with their text", f"{missing:,}")
    for reason, count in quality["pictures"]["unusable"].items():
        log.warning("%s picture files are %s; their products go on with their text", f"{count:,}", reason)
    for reason, count in quality["train"]["rejected"].items():
        log.warning("%s train rows rejected: %s (see rejected.csv)", f"{count:,}", reason)
    for code, count in quality["train"]["small_classes"].items():
        log.warning("class %s has only %s rows", code, count)


def main(argv: Sequence[str] | None = None) -> int:
    return run_stage("ingest", __file__, ingest, {"raw": RAW, "interim": INTERIM, "reports": REPORTS}, argv)


if __name__ == "__main__":
    sys.exit(main())
