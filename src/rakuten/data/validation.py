"""Checks of the raw files: which faults stop ingestion, which reject a row, and which are only counted.

Frames are chunks of rows as `tables.read_raw_chunks` yields them, with `schema.normalise_ids` applied: every cell is a
str, "" where it is empty.

Checks that need all rows (duplicates, join) keep only `RowKeys` in memory: 16 bytes per row. If a check fails, the
file is read again to find the line numbers for the error message.
"""

from array import array
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from itertools import compress
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from ftfy.badness import is_bad
from numpy.typing import NDArray

from rakuten.data.schema import (
    INDEX,
    INTEGER_PATTERN,
    MAX_TEXT,
    X_TRAIN,
    Y_TRAIN,
    has_valid_ids,
    image_names,
)
from rakuten.data.text_hashes import TextHashes, hash_texts
from rakuten.errors import UserError
from rakuten.types import HashArray, IntArray

SMALL_CLASS_ROWS = 5  # a class with fewer rows is reported
MAX_VALUE = 40  # characters of an unusable id or label that are shown
MISSING = "missing"  # the image error of a product without an image file

ReadChunks = Callable[[], Iterable[pd.DataFrame]]  # reads a file from its beginning


class RowKeys(NamedTuple):
    """What must be unique among the rows of one file."""

    row_ids: IntArray  # the values of column index
    id_pairs: HashArray  # hash of (productid, imageid), of the rows whose ids are both integers; empty for Y_train.csv


def read_row_keys(chunks: Iterable[pd.DataFrame], file: str) -> RowKeys:
    """Collect the keys of all rows of a file.

    Args:
        file: its name, for the error message.

    Raises:
        UserError: an index is not an integer.
    """
    row_ids, id_pairs = array("q"), array("Q")
    for chunk in chunks:
        check_index(chunk, file)
        row_ids.frombytes(chunk[INDEX].astype("int64").to_numpy().tobytes())
        if "productid" in chunk:
            id_pairs.frombytes(hash_texts(_id_pairs(chunk)).tobytes())
    return RowKeys(np.frombuffer(row_ids, dtype=np.int64), np.frombuffer(id_pairs, dtype=np.uint64))


def _id_pairs(chunk: pd.DataFrame) -> pd.Series:
    """The text "<productid>, <imageid>" of each row whose ids are both integers."""
    valid = chunk[has_valid_ids(chunk)]
    return valid["productid"] + ", " + valid["imageid"]


def check_index(chunk: pd.DataFrame, file: str) -> None:
    """Raise UserError unless every index is an integer."""
    invalid = chunk[~chunk[INDEX].str.fullmatch(INTEGER_PATTERN)]
    if len(invalid):
        first = invalid.iloc[0]
        raise UserError(f"{file}: line {first['line']}: the index {first[INDEX]!r} is not a number")


def check_unique(keys: RowKeys, read: ReadChunks, file: str) -> None:
    """Raise UserError if an index, or a pair of integers (productid, imageid), occurs twice in a file."""
    if _has_duplicates(keys.row_ids):
        _raise_duplicate(((chunk["line"], chunk[INDEX].astype("int64")) for chunk in read()), file, "index")
    if _has_duplicates(keys.id_pairs):
        _raise_duplicate(((chunk["line"], _id_pairs(chunk)) for chunk in read()), file, "(productid, imageid)")


def _has_duplicates(values: NDArray[Any]) -> bool:
    ordered = np.sort(values)
    return bool((ordered[1:] == ordered[:-1]).any())


def _raise_duplicate(lines_and_keys: Iterable[tuple[pd.Series, pd.Series]], file: str, key_name: str) -> None:
    """Raise UserError with the lines of the first repeated key; return if only the keys' hashes were equal."""
    rows = pd.concat([keys.rename("key").to_frame().assign(line=lines) for lines, keys in lines_and_keys])
    repeated = rows["key"].duplicated()
    if repeated.any():
        key = rows.loc[repeated, "key"].iloc[0]
        first, second = rows.loc[rows["key"] == key, "line"].head(2)
        raise UserError(
            f"{file}: lines {first} and {second} have the same {key_name} {key} "
            f"({int(repeated.sum())} repeated in all); remove one of each"
        )


def check_join(x: RowKeys, y: RowKeys, read: Callable[[str], Iterable[pd.DataFrame]]) -> None:
    """Raise UserError unless X_train.csv and Y_train.csv have the same indexes.

    Args:
        x: keys of X_train.csv.
        y: keys of Y_train.csv.
        read: reads the file of a given name.
    """
    if np.array_equal(np.sort(x.row_ids), np.sort(y.row_ids)):
        return
    differences = []
    for keys, other_keys, file in ((x, y, X_TRAIN), (y, x, Y_TRAIN)):
        unmatched = keys.row_ids[~np.isin(keys.row_ids, other_keys.row_ids)]
        if len(unmatched):
            line = _line_of(unmatched[0], read(file))
            differences.append(f"{len(unmatched):,} only in {file} (first: {unmatched[0]}, line {line})")
    raise UserError(
        f"{X_TRAIN} and {Y_TRAIN} do not belong together: indexes {' and '.join(differences)}; "
        "take both from the same download"
    )


def _line_of(row_id: int, chunks: Iterable[pd.DataFrame]) -> int:
    """The line on which the row with this index ends."""
    lines = (chunk.loc[chunk[INDEX].astype("int64") == row_id, "line"] for chunk in chunks)
    return next(int(line.iloc[0]) for line in lines if len(line))


def image_errors(products: pd.DataFrame, error_by_image: Mapping[str, str]) -> pd.Series:
    """What is wrong with each row's image: "" if nothing, MISSING, or why it cannot be used.

    Args:
        products: imageid, productid.
        error_by_image: for each image file, "" or why it cannot be used.
    """
    errors = [error_by_image.get(name, MISSING) for name in image_names(products)]
    return pd.Series(errors, index=products.index, dtype="str")


def find_unusable(train: pd.DataFrame, known_codes: Collection[int] | None) -> pd.DataFrame:
    """The train rows that cannot be used.

    Args:
        train: the columns of X_train.csv, prdtypecode, and has_image as bool.
        known_codes: the codes that a label may be; None for any whole number.

    Returns:
        For each such row, under its label in `train`: reason, and value, the beginning of the ids or label at fault.
        Several of either are separated by "; ".
    """
    label = train["prdtypecode"]
    is_integer, is_missing = label.str.fullmatch(INTEGER_PATTERN), is_blank(label)
    faults = {  # reason and column -> rows
        ("no title, no description and no picture", ""): is_empty(train),
        ("productid is not an integer", "productid"): ~train["productid"].str.fullmatch(INTEGER_PATTERN),
        ("imageid is not an integer", "imageid"): ~train["imageid"].str.fullmatch(INTEGER_PATTERN),
        ("label missing", ""): is_missing,
        ("label is not a number", "prdtypecode"): ~is_missing & ~is_integer,
    }
    if known_codes is not None:
        known = [str(code) for code in known_codes]
        faults["label is not a known code", "prdtypecode"] = is_integer & ~label.isin(known)
    has_fault = np.column_stack([rows.to_numpy(dtype=np.bool_) for rows in faults.values()])
    is_unusable = has_fault.any(axis=1)
    unusable = train[pd.Series(is_unusable, train.index)]
    found = []
    for row, product in zip(has_fault[is_unusable], unusable.to_dict("records"), strict=True):
        reasons, columns = zip(*compress(faults, row), strict=True)
        values = [_shortened(product[column]) for column in columns if column and product[column]]
        found.append(("; ".join(reasons), "; ".join(values)))
    return pd.DataFrame(found, unusable.index, ["reason", "value"], dtype="str")


def _shortened(text: str) -> str:
    """The beginning of a text: it may be a description, if a row's columns have moved."""
    return text if len(text) <= MAX_VALUE else text[:MAX_VALUE] + "…"


def is_empty(products: pd.DataFrame) -> pd.Series:
    """Boolean per row: there is no title, no description and no usable image (column has_image, bool)."""
    return is_blank(products["designation"]) & is_blank(products["description"]) & ~products["has_image"]


def is_blank(texts: pd.Series) -> pd.Series:
    """Boolean per text: it is empty or white space."""
    return texts.str.strip() == ""


def check_rejected(
    count_by_reason: Mapping[str, int], n_rows: int, max_rejected: float, examples: Mapping[str, str]
) -> None:
    """Raise UserError if more than the allowed share of the train rows was rejected.

    Args:
        count_by_reason: rows rejected for each reason.
        n_rows: rows of X_train.csv.
        max_rejected: the allowed share, 0 to 1.
        examples: the first row rejected for each reason, as `example` writes it.
    """
    n_rejected = sum(count_by_reason.values())
    if n_rejected > max_rejected * n_rows:
        most_frequent_first = sorted(count_by_reason.items(), key=lambda item: -item[1])
        reasons = "; ".join(f"{count:,}: {reason}, {examples[reason]}" for reason, count in most_frequent_first)
        raise UserError(
            f"{X_TRAIN} and {Y_TRAIN}: {n_rejected:,} of {n_rows:,} rows are unusable, more than "
            f"data.max_rejected ({max_rejected:.1%}) allows ({reasons}); "
            "fix the files or raise data.max_rejected in params.yaml"
        )


def example(row: str, value: str) -> str:
    """A rejected row for a message: its index, and what it has there if that is known."""
    return f"for example index {row}" + (f" with {value!r}" if value else "")


def check_classes(count_by_code: Mapping[int, int]) -> None:
    """Raise UserError unless the usable train rows have at least two classes."""
    if not count_by_code:
        raise UserError(f"{X_TRAIN}: no usable row is left; fix the files")
    if len(count_by_code) == 1:
        raise UserError(
            f"{Y_TRAIN}: every usable row has the label {next(iter(count_by_code))}; at least two classes are needed"
        )


def small_classes(count_by_code: Mapping[int, int]) -> dict[str, int]:
    """Number of rows of each class that has fewer than SMALL_CLASS_ROWS."""
    return {str(code): count for code, count in sorted(count_by_code.items()) if count < SMALL_CLASS_ROWS}


def count_quality_issues(products: pd.DataFrame) -> dict[str, int]:
    """Number of rows with each issue that is reported but does not reject a row.

    Args:
        products: designation, description, and image_error as `image_errors` returns it.
    """
    title, description = products["designation"], products["description"]
    return {
        "missing_title": int(is_blank(title).sum()),
        "missing_description": int(is_blank(description).sum()),
        "missing_picture": int((products["image_error"] == MISSING).sum()),
        "suspected_mojibake": int((is_mojibake(title) | is_mojibake(description)).sum()),
        "text_cut": int(((title.str.len() > MAX_TEXT) | (description.str.len() > MAX_TEXT)).sum()),
    }


def is_mojibake(texts: pd.Series) -> pd.Series:
    """Boolean per text: the part of it that is read looks wrongly decoded."""
    return texts.str[:MAX_TEXT].map(is_bad).astype(bool)


class QualityCounts:
    """Quality issues of one table, counted chunk by chunk."""

    def __init__(self) -> None:
        self._issues = Counter(
            missing_title=0, missing_description=0, missing_picture=0, suspected_mojibake=0, text_cut=0
        )
        self._unusable_images = Counter[str]()
        self._titles = TextHashes()

    def add(self, chunk: pd.DataFrame) -> None:
        """Count the issues of a chunk; for its columns see `count_quality_issues`."""
        self._issues.update(count_quality_issues(chunk))
        self._unusable_images.update(error for error in chunk["image_error"] if error not in ("", MISSING))
        self._titles.add(chunk.loc[~is_blank(chunk["designation"]), "designation"])

    def title_hashes(self) -> HashArray:
        """Hashes of the distinct titles, sorted."""
        return self._titles.unique()

    def as_dict(self) -> dict[str, int | dict[str, int]]:
        """The counts as they are written to data_quality.json."""
        return {
            **self._issues,
            "unusable_picture": dict(sorted(self._unusable_images.items())),
            "repeated_title": len(self._titles) - len(self._titles.unique()),
        }
