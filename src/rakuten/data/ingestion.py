"""The raw files joined: usable train rows, test rows, rejected rows, and what a user should know of their quality."""

from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rakuten.config import DataParams
from rakuten.data import validation
from rakuten.data.raw_files import RawFiles
from rakuten.data.schema import INDEX, X_COLUMNS, image_name, is_synthetic
from rakuten.data.tables import table_writer
from rakuten.data.validation import QualityCounts, sorted_unique
from rakuten.types import BoolArray, HashArray

COLUMNS = [*X_COLUMNS, "has_image"]


def make_dataset(
    source: RawFiles, pictures: Mapping[str, str], params: DataParams, tables: Sequence[Path]
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
    train, test, codes, rejected = QualityCounts(), QualityCounts(), Counter[int](), Counter[str]()
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
            own["ids_not_integers"] += int((~validation.has_valid_ids(part)).sum())
            own["nothing_to_classify_by"] += int(validation.is_empty(part).sum())
            own["title_in_train"] += int(_among(validation.hash_texts(part["designation"]), titles).sum())
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
            "not_referenced": len(pictures) - len(sorted_unique(np.frombuffer(seen, dtype=np.uint64))),
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
    state = validation.image_errors(frame, pictures)
    return frame.assign(picture=state, has_image=state == "")


def _among(some: HashArray, known: HashArray) -> BoolArray:
    """Which of some hashes are among known ones, which are in order."""
    at = np.minimum(np.searchsorted(known, some), len(known) - 1)
    return known[at] == some if len(known) else np.zeros(len(some), dtype=bool)


def _found(part: pd.DataFrame) -> HashArray:
    "HashArrayes of the picture names that there are files of."
    there = part[part["picture"] != validation.MISSING]
    return validation.hash_texts(
        pd.Series([image_name(*ids) for ids in zip(there["imageid"], there["productid"], strict=True)])
    )
