"""What is counted of a table that is read a part at a time."""

from array import array
from collections import Counter

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rakuten.data import validation

Hashes = NDArray[np.uint64]


class Tally:
    """What is counted of the rows of one table, a part at a time."""

    def __init__(self) -> None:
        self.counts = Counter[str]()
        self.unusable = Counter[str]()
        self._titles = array("Q")

    def add(self, part: pd.DataFrame) -> None:
        self.counts += validation.describe(part)
        self.unusable.update(word for word in part["picture"] if word not in ("", validation.MISSING))
        titles = part.loc[~validation.blank(part["designation"]), "designation"]
        self._titles.frombytes(validation.hashes(titles).tobytes())

    def titles(self) -> Hashes:
        """The different titles, in order."""
        return distinct(np.frombuffer(self._titles, dtype=np.uint64))

    def told(self) -> dict[str, int | dict[str, int]]:
        zero = dict.fromkeys(("missing_title", "missing_description", "missing_picture", "suspected_mojibake"), 0)
        repeated = len(self._titles) - len(self.titles())
        return {
            **zero,
            **self.counts,
            "unusable_picture": dict(sorted(self.unusable.items())),
            "repeated_title": repeated,
        }


def distinct(values: Hashes) -> Hashes:
    """The different values, in order; numpy's own `unique` makes a hash table of several times their size."""
    ordered = np.sort(values)
    first: Hashes = ordered[np.append(True, ordered[1:] != ordered[:-1])[: len(ordered)]]
    return first
