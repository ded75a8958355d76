"""Stage ingest: the challenge's files, checked and joined, in memory that grows by a few numbers a row."""

import logging
import sys
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rakuten.cli import run_stage
from rakuten.config import INTERIM, RAW, REPORTS, DataParams, Params
from rakuten.data import validation
from rakuten.data.images import PictureFiles, inspect_all
from rakuten.data.raw_files import Source
from rakuten.data.tables import INDEX, X_COLUMNS, is_synthetic, picture_name, table_writer
from rakuten.data.tally import Hashes, Tally, distinct
from rakuten.files import dump_json, writing

log = logging.getLogger(__name__)

COLUMNS = [*X_COLUMNS, "has_image"]
TABLES = ("merged_train.csv", "merged_test.csv", "rejected.csv")


def ingest(params: Params, raw: Path, interim: Path, reports: Path) -> str:
    """Check the raw files, join titles and labels, and report on the data's quality."""
    source = Source.of(raw)
    pictures = inspect_all(PictureFiles(raw / "images"))
    with writing(*(interim / name for name in TABLES), reports / "data_quality.json") as (*tables, report):
        quality = make_dataset(source, pictures, params.data, tables)
        quality["pictures"] |= {"unusable": pictures.bad(), "unusual": dict(sorted(pictures.unusual.items()))}
        _warn(quality)
        dump_json(quality, report)
    train, test = quality["train"], quality["test"]
    return (
        f"{train['rows_in']:,} train rows read, {train['rows_out']:,} kept, {train['rows_rejected']:,} rejected; "
        f"{test['rows_out']:,} test rows kept"
    )


def make_dataset(
    source: Source, pictures: Mapping[str, str], params: DataParams, tables: Sequence[Path]
) -> dict[str, Any]:
    """Join X and Y, part the usable rows from the rest, and count what a user should know.

    Args:
        pictures: what is wrong with each file in the picture folder, by name; "" if nothing.
        tables: where the kept train rows, the test rows and the rejected rows (row, file, reason) are written.

    Returns:
        The report on the data's quality.

    Raises:
        UserError: too many rows are rejected, or nothing is left to tell apart; see `checks`.
    """
    train, test, codes, rejected = Tally(), Tally(), Counter[int](), Counter[str]()
    first: list[str] = []
    seen = array("Q")  # hashes of the picture names that there are files of
    synthetic = False
    with table_writer(tables[0]) as keep, table_writer(tables[2]) as reject:
        for part in source.parts("X_train.csv"):
            part = _with_picture(part, pictures)
            kept, lost = split(part, params.unknown_labels)
            keep(kept[[*COLUMNS, "prdtypecode"]])
            reject(lost)
            train.add(kept)
            codes.update(kept["prdtypecode"].tolist())
            rejected.update(lost["reason"])
            first += lost["row"].head(3 - len(first)).tolist()
            synthetic |= is_synthetic(part)
            seen.frombytes(_found(part).tobytes())
    rows = source.rows["X_train.csv"]
    validation.check_rejected(rejected, rows, params.max_rejected, first)
    validation.check_classes(codes)
    titles, own = train.titles(), Counter[str]()
    with table_writer(tables[1]) as keep:
        for part in source.parts("X_test.csv"):
            part = _with_picture(part, pictures)
            keep(part[COLUMNS])
            test.add(part)
            own["ids_not_integers"] += int((~validation.valid_ids(part)).sum())
            own["nothing_to_classify_by"] += int(validation.empty(part).sum())
            own["title_in_train"] += int(_among(validation.hashes(part["designation"]), titles).sum())
            seen.frombytes(_found(part).tobytes())
    return {
        "synthetic": synthetic,
        "train": {
            "rows_in": rows,
            "rows_out": codes.total(),
            "rows_rejected": rejected.total(),
            "rejected": dict(rejected.most_common()),
            "classes": len(codes),
            "small_classes": validation.small_classes(codes),
            **train.told(),
        },
        "test": {"rows_in": source.rows["X_test.csv"], "rows_out": source.rows["X_test.csv"], **own, **test.told()},
        "pictures": {
            "files": len(pictures),
            "not_referenced": len(pictures) - len(distinct(np.frombuffer(seen, dtype=np.uint64))),
        },
    }


def split(part: pd.DataFrame, unknown_labels: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The usable rows of a joined train table, their prdtypecode as int64, and of the others: row, file, reason."""
    reasons = validation.reject_reasons(part, unknown_labels)
    lost = pd.DataFrame(
        {
            "row": part[INDEX],
            "file": reasons.str.startswith("label").map({True: "Y_train.csv", False: "X_train.csv"}),
            "reason": reasons,
        }
    )[reasons != ""]
    return part[reasons == ""].assign(prdtypecode=lambda kept: kept["prdtypecode"].str.strip().astype("int64")), lost


def _with_picture(frame: pd.DataFrame, pictures: Mapping[str, str]) -> pd.DataFrame:
    """Columns picture (what is wrong with it) and has_image (whether there is one to use)."""
    state = validation.picture_state(frame, pictures)
    return frame.assign(picture=state, has_image=state == "")


def _among(some: Hashes, known: Hashes) -> NDArray[np.bool_]:
    """Which of some hashes are among known ones, which are in order."""
    at = np.minimum(np.searchsorted(known, some), len(known) - 1)
    return known[at] == some if len(known) else np.zeros(len(some), dtype=bool)


def _found(part: pd.DataFrame) -> Hashes:
    """Hashes of the picture names that there are files of."""
    there = part[part["picture"] != validation.MISSING]
    return validation.hashes(
        pd.Series([picture_name(*ids) for ids in zip(there["imageid"], there["productid"], strict=True)])
    )


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
