"""The challenge's three CSV files, validated when they are opened and then read in chunks of joined rows."""

import logging
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rakuten.cli import progress
from rakuten.data import validation
from rakuten.data.schema import INDEX, X_COLUMNS, X_TEST, X_TRAIN, Y_COLUMNS, Y_TRAIN, normalise_ids
from rakuten.data.tables import CHUNK_ROWS, check_raw, read_raw_chunks
from rakuten.data.taxonomy import Taxonomy
from rakuten.data.text_hashes import find_sorted
from rakuten.errors import UserError
from rakuten.types import IntArray

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RawFiles:
    """The raw files of a folder, whose indexes and ids are unique and whose X and Y belong together.

    Of the rows only the labels are in memory, 12 bytes per row of Y_train.csv.
    """

    folder: Path
    n_rows: dict[str, int]  # of each file
    row_ids: IntArray  # column index of Y_train.csv, sorted
    label_ids: NDArray[np.int32]  # of each of `row_ids`: position of its label in `labels`
    labels: list[str]  # the distinct texts in column prdtypecode, normalised
    next_index: int  # above the index of every row

    @classmethod
    def open(cls, folder: Path) -> "RawFiles":
        """Read each file once, keep the labels, and check what can only be checked over all rows.

        Raises:
            UserError: a file is broken, an index or a pair (productid, imageid) occurs twice, or X_train.csv and
                Y_train.csv have different indexes.
        """
        columns = {X_TRAIN: X_COLUMNS, Y_TRAIN: Y_COLUMNS, X_TEST: X_COLUMNS}
        warnings = check_raw({folder / file: names for file, names in columns.items()})
        position_by_label: dict[str, int] = {}
        label_ids = array("i")

        def read(file: str) -> Iterator[pd.DataFrame]:
            return map(normalise_ids, read_raw_chunks(folder / file, columns[file]))

        def read_labels() -> Iterator[pd.DataFrame]:
            for chunk in read(Y_TRAIN):
                label_ids.extend(
                    position_by_label.setdefault(label, len(position_by_label)) for label in chunk["prdtypecode"]
                )
                yield chunk

        keys = {
            X_TRAIN: validation.read_row_keys(read(X_TRAIN), X_TRAIN),
            Y_TRAIN: validation.read_row_keys(read_labels(), Y_TRAIN),
            X_TEST: validation.read_row_keys(read(X_TEST), X_TEST),
        }
        for file, file_keys in keys.items():
            validation.check_unique(file_keys, partial(read, file), file)
        validation.check_join(keys[X_TRAIN], keys[Y_TRAIN], read)
        for warning in warnings:
            log.warning(warning)
        order = np.argsort(keys[Y_TRAIN].row_ids)
        return cls(
            folder=folder,
            n_rows={file: len(file_keys.row_ids) for file, file_keys in keys.items()},
            row_ids=keys[Y_TRAIN].row_ids[order],
            label_ids=np.frombuffer(label_ids, dtype=np.int32)[order],
            labels=list(position_by_label),
            next_index=1 + max(int(file_keys.row_ids.max()) for file_keys in keys.values()),
        )

    def follow_mergers(self, taxonomy: Taxonomy) -> tuple["RawFiles", dict[str, int]]:
        """The same with the labels of merged codes replaced by those that they became part of.

        Returns:
            The files, and the number of train rows of each merged code.
        """
        n_rows = np.bincount(self.label_ids, minlength=len(self.labels)).tolist()
        merged = {label: n for label, n in zip(self.labels, n_rows, strict=True) if taxonomy.follow(label) != label}
        return replace(self, labels=list(map(taxonomy.follow, self.labels))), merged

    def chunks(self, file: str) -> Iterator[pd.DataFrame]:
        """Read X_train.csv, with column prdtypecode joined to it, or X_test.csv; all as `normalise_ids` writes it.

        Raises:
            UserError: X_train.csv has changed since it was opened.
        """
        n_chunks = -(-self.n_rows[file] // CHUNK_ROWS)
        chunks = read_raw_chunks(self.folder / file, X_COLUMNS)
        for chunk in progress(chunks, n_chunks, f"joining {file} (chunks of {CHUNK_ROWS:,} rows)"):
            chunk = normalise_ids(chunk)
            if file == X_TRAIN:
                chunk["prdtypecode"] = pd.Series(self._labels_of(chunk[INDEX]), chunk.index, dtype="str")
            yield chunk

    def _labels_of(self, row_ids: pd.Series) -> list[str]:
        positions, is_found = find_sorted(row_ids.astype("int64").to_numpy(), self.row_ids)
        if not is_found.all():
            raise UserError(f"{self.folder / X_TRAIN}: changed while it was read; run ingest again")
        return [self.labels[label_id] for label_id in self.label_ids[positions]]
