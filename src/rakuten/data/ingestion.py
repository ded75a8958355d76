"""Ingestion: join the raw files, separate the usable train rows from the rejected ones, and report on their quality.

The raw files may be larger than memory: they are read in chunks, and only ids, labels and hashes of titles and image
names are kept, some tens of bytes per row.

1. `RawFiles.open` reads each file once and runs the checks that need all rows (validation.py).
2. `write_train_tables` reads X_train.csv again, joined with its labels, and writes its usable and its rejected rows.
3. `write_test_table` reads X_test.csv again; test rows are never rejected.
4. `make_dataset` does 2 and 3 and returns the quality report, which the stage writes as data_quality.json.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from rakuten.config import DataParams
from rakuten.data import validation
from rakuten.data.corrections import Corrections
from rakuten.data.raw_files import RawFiles
from rakuten.data.schema import INDEX, X_COLUMNS, X_TEST, X_TRAIN, Y_TRAIN, has_valid_ids, image_names, is_synthetic
from rakuten.data.tables import table_writer, write_table
from rakuten.data.taxonomy import Taxonomy
from rakuten.data.text_hashes import TextHashes, find_sorted, hash_texts
from rakuten.data.validation import QualityCounts
from rakuten.types import HashArray

COLUMNS = [*X_COLUMNS, "has_image"]
NONE_FILE = "none_of_the_codes.csv"


class InterimPaths(NamedTuple):
    """The tables that ingestion writes."""

    train: Path  # usable train rows: COLUMNS and prdtypecode
    test: Path  # test rows: COLUMNS
    rejected: Path  # row, file, reason, value
    corrections: Path  # see `Corrections.outcome_table`
    none_of_the_codes: Path  # see `Corrections.none_of_the_codes`

    @classmethod
    def of(cls, folder: Path) -> "InterimPaths":
        """The tables in a folder."""
        names = ("merged_train.csv", "merged_test.csv", "rejected.csv", "corrections.csv", NONE_FILE)
        return cls(*(folder / name for name in names))


@dataclass
class TrainCounts:
    """What is counted over the rows of X_train.csv, chunk by chunk."""

    has_synthetic_rows: bool = False
    count_by_code: Counter[int] = field(default_factory=Counter)  # usable rows
    count_by_reason: Counter[str] = field(default_factory=Counter)  # rejected rows
    example_by_reason: dict[str, str] = field(default_factory=dict)  # of the rejected rows
    quality: QualityCounts = field(default_factory=QualityCounts)  # of the usable rows
    referenced_images: TextHashes = field(default_factory=TextHashes)  # names of image files

    def add(self, chunk: pd.DataFrame, usable: pd.DataFrame, rejected: pd.DataFrame) -> None:
        """Count a chunk of joined rows, and the usable and the rejected rows that `split_rejected` makes of it."""
        self.has_synthetic_rows |= is_synthetic(chunk)
        self.count_by_code.update(usable["prdtypecode"].tolist())
        self.count_by_reason.update(rejected["reason"])
        first = rejected.drop_duplicates("reason")
        for reason, row, value in zip(first["reason"], first["row"], first["value"], strict=True):
            self.example_by_reason.setdefault(reason, validation.example(row, value))
        self.quality.add(usable)
        self.referenced_images.add(_names_of_image_files(chunk))

    def as_dict(self) -> dict[str, Any]:
        """The counts as they are written to data_quality.json."""
        n_usable, n_rejected = self.count_by_code.total(), self.count_by_reason.total()
        return {
            "rows_in": n_usable + n_rejected,
            "rows_out": n_usable,
            "rows_rejected": n_rejected,
            "rejected": dict(self.count_by_reason.most_common()),
            "classes": len(self.count_by_code),
            "small_classes": validation.small_classes(self.count_by_code),
            **self.quality.as_dict(),
        }


@dataclass
class TestCounts:
    """What is counted over the rows of X_test.csv, chunk by chunk."""

    n_rows: int = 0
    n_invalid_ids: int = 0  # rows whose productid or imageid is not an integer
    n_empty: int = 0  # rows without title, description and usable image
    n_titles_in_train: int = 0  # rows whose title a usable train row has too
    quality: QualityCounts = field(default_factory=QualityCounts)
    referenced_images: TextHashes = field(default_factory=TextHashes)  # names of image files

    def add(self, chunk: pd.DataFrame, train_titles: HashArray) -> None:
        """Count a chunk; for `train_titles` see `write_test_table`."""
        _, is_in_train = find_sorted(hash_texts(chunk["designation"]), train_titles)
        self.n_rows += len(chunk)
        self.n_invalid_ids += int((~has_valid_ids(chunk)).sum())
        self.n_empty += int(validation.is_empty(chunk).sum())
        self.n_titles_in_train += int(is_in_train.sum())
        self.quality.add(chunk)
        self.referenced_images.add(_names_of_image_files(chunk))

    def as_dict(self) -> dict[str, Any]:
        """The counts as they are written to data_quality.json."""
        return {
            "rows_in": self.n_rows,
            "rows_out": self.n_rows,
            "ids_not_integers": self.n_invalid_ids,
            "nothing_to_classify_by": self.n_empty,
            "title_in_train": self.n_titles_in_train,
            **self.quality.as_dict(),
        }


def make_dataset(
    raw_files: RawFiles,
    corrections: Corrections,
    error_by_image: Mapping[str, str],
    params: DataParams,
    taxonomy: Taxonomy,
    paths: InterimPaths,
) -> tuple[dict[str, Any], dict[str, str]]:
    """Write the interim tables of all rows.

    Args:
        corrections: of the labels.
        error_by_image: for each file in the image folder, by name, "" or why it cannot be used.

    Returns:
        The quality report, and for each reason for which train rows were rejected an example.

    Raises:
        UserError: too many rows are rejected, or the usable rows have fewer than two classes.
    """
    raw_files, merged = raw_files.follow_mergers(taxonomy)
    known_codes = None if params.unknown_labels == "keep" else taxonomy.codes | corrections.new_codes
    train = write_train_tables(raw_files, corrections, error_by_image, known_codes, paths)
    write_table(corrections.outcome_table(), paths.corrections)
    write_table(corrections.none_of_the_codes(), paths.none_of_the_codes)
    n_rows = raw_files.n_rows[X_TRAIN]
    validation.check_rejected(train.count_by_reason, n_rows, params.max_rejected, train.example_by_reason)
    validation.check_classes(train.count_by_code)
    test = write_test_table(raw_files, error_by_image, train.quality.title_hashes(), paths.test)
    quality = {
        "synthetic": train.has_synthetic_rows,
        "train": train.as_dict(),
        "test": test.as_dict(),
        "corrections": corrections.counts(),
        "merged_codes": {"train": merged, "corrections": dict(corrections.merged)},
        "proposed_codes": dict(corrections.proposed),
        "pictures": {
            "files": len(error_by_image),
            "not_referenced": len(error_by_image) - len(train.referenced_images.union(test.referenced_images)),
        },
    }
    return quality, train.example_by_reason


def write_train_tables(
    raw_files: RawFiles,
    corrections: Corrections,
    error_by_image: Mapping[str, str],
    known_codes: Collection[int] | None,
    paths: InterimPaths,
) -> TrainCounts:
    """Write the usable train rows, corrected, to `paths.train` and the rejected ones to `paths.rejected`."""
    counts = TrainCounts()
    with table_writer(paths.train) as write_usable, table_writer(paths.rejected) as write_rejected:
        for chunk in _corrected_chunks(raw_files, corrections):
            chunk = _with_image_errors(chunk, error_by_image)
            usable, rejected = split_rejected(chunk, known_codes)
            write_usable(usable[[*COLUMNS, "prdtypecode"]])
            write_rejected(rejected)
            counts.add(chunk, usable, rejected)
    return counts


def _corrected_chunks(raw_files: RawFiles, corrections: Corrections) -> Iterator[pd.DataFrame]:
    """The train rows, corrected; at the end those that the corrections add."""
    yield from map(corrections.apply, raw_files.chunks(X_TRAIN))
    added = corrections.added_rows(raw_files.next_index)
    if len(added):
        yield added


def write_test_table(
    raw_files: RawFiles, error_by_image: Mapping[str, str], train_titles: HashArray, path: Path
) -> TestCounts:
    """Write the test rows.

    Args:
        train_titles: sorted hashes of the titles of the usable train rows.
    """
    counts = TestCounts()
    with table_writer(path) as write:
        for chunk in raw_files.chunks(X_TEST):
            chunk = _with_image_errors(chunk, error_by_image)
            write(chunk[COLUMNS])
            counts.add(chunk, train_titles)
    return counts


def split_rejected(chunk: pd.DataFrame, known_codes: Collection[int] | None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Separate the usable rows from the rejected ones; for the arguments see `validation.find_unusable`.

    Returns:
        The usable rows, with prdtypecode as int64; and of each rejected row: row (its index), file, reason, value.
    """
    unusable = validation.find_unusable(chunk, known_codes)
    usable = chunk.drop(unusable.index).astype({"prdtypecode": "int64"})
    files = unusable["reason"].str.startswith("label").map({True: Y_TRAIN, False: X_TRAIN}).astype("str")
    rejected = pd.DataFrame({"row": chunk.loc[unusable.index, INDEX], "file": files, **unusable})
    return usable, rejected


def _with_image_errors(chunk: pd.DataFrame, error_by_image: Mapping[str, str]) -> pd.DataFrame:
    """The chunk with columns image_error (see `validation.image_errors`) and has_image (bool)."""
    errors = validation.image_errors(chunk, error_by_image)
    return chunk.assign(image_error=errors, has_image=errors == "")


def _names_of_image_files(chunk: pd.DataFrame) -> pd.Series:
    """Names of the image files, usable or not, of the rows that have one."""
    return pd.Series(image_names(chunk[chunk["image_error"] != validation.MISSING]), dtype="str")
