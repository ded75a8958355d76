"""The raw files as a whole: read once for what must be known of every row at once, then a part at a time."""

from array import array
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rakuten.cli import progress
from rakuten.data import validation
from rakuten.data.schema import INDEX, X_COLUMNS, Y_COLUMNS
from rakuten.data.tables import CHUNK_ROWS, read_raw_chunks
from rakuten.errors import UserError


class RawFiles(NamedTuple):
    """The raw files, their keys checked."""

    raw: Path
    rows: dict[str, int]  # of each file
    indexes: NDArray[np.int64]  # of Y_train.csv, in order
    label: NDArray[np.int32]  # of each index, by its place in `labels`
    labels: list[str]

    @classmethod
    def open(cls, raw: Path) -> "RawFiles":
        """Read what must be known of all rows at once.

        Raises:
            UserError: a file is broken, an index or a pair of ids stands twice, X and Y do not belong together.
        """
        known: dict[str, int] = {}
        place = array("i")

        def read(file: str) -> Iterator[pd.DataFrame]:
            return read_raw_chunks(raw / file, Y_COLUMNS if file == "Y_train.csv" else X_COLUMNS)

        def labelled() -> Iterator[pd.DataFrame]:
            for part in read("Y_train.csv"):
                place.extend(known.setdefault(text, len(known)) for text in part["prdtypecode"])
                yield part

        x = validation.read_row_keys(read("X_train.csv"), "X_train.csv")
        y = validation.read_row_keys(labelled(), "Y_train.csv")
        test = validation.read_row_keys(read("X_test.csv"), "X_test.csv")
        found = {"X_train.csv": x, "Y_train.csv": y, "X_test.csv": test}
        for file, keys in found.items():
            validation.check_unique(keys, partial(read, file), file)
        validation.check_join(x, y, read)
        order = np.argsort(y.indexes)
        index, label = y.indexes[order], np.frombuffer(place, dtype=np.int32)[order]
        return cls(raw, {file: len(keys.indexes) for file, keys in found.items()}, index, label, list(known))

    def parts(self, file: str) -> Iterator[pd.DataFrame]:
        """Rows of X_train.csv, with their label, or of X_test.csv; ids in their plain spelling."""
        parts = read_raw_chunks(self.raw / file, X_COLUMNS)
        for part in progress(
            parts, -(-self.rows[file] // CHUNK_ROWS), f"joining {file} (parts of {CHUNK_ROWS:,} rows)"
        ):
            part = validation.normalise_ids(part)
            if file == "X_train.csv":
                part["prdtypecode"] = pd.Series(self._labels(part[INDEX]), part.index, dtype="str")
            yield part

    def _labels(self, index: pd.Series) -> list[str]:
        wanted = index.astype("int64").to_numpy()
        at = np.minimum(np.searchsorted(self.indexes, wanted), len(self.indexes) - 1)
        if (self.indexes[at] != wanted).any():
            raise UserError(f"{self.raw / 'X_train.csv'}: changed while it was read; run it again")
        return [self.labels[place] for place in self.label[at]]
