"""64-bit hashes of texts, so that the texts of all rows can be compared in 8 bytes of memory per row."""

from array import array
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rakuten.types import BoolArray, HashArray, IntArray


def hash_texts(texts: pd.Series) -> HashArray:
    """The hash of each text. Among 10^8 texts, the probability that any two have the same hash is 1 in 4,000."""
    hashes: HashArray = pd.util.hash_array(texts.to_numpy(dtype=object), categorize=False)
    return hashes


class TextHashes:
    """Hashes of texts that arrive chunk by chunk. Its length is the number of texts, repeated ones included."""

    def __init__(self) -> None:
        self._hashes = array("Q")

    def add(self, texts: pd.Series) -> None:
        """Add the hash of each text."""
        self._hashes.frombytes(hash_texts(texts).tobytes())

    def __len__(self) -> int:
        return len(self._hashes)

    def unique(self) -> HashArray:
        """The distinct hashes, sorted."""
        return _sorted_unique(np.frombuffer(self._hashes, dtype=np.uint64))

    def union(self, other: "TextHashes") -> HashArray:
        """The distinct hashes of both, sorted."""
        return _sorted_unique(np.frombuffer(self._hashes + other._hashes, dtype=np.uint64))


def _sorted_unique(hashes: HashArray) -> HashArray:
    # Not np.unique: it builds a hash table of several times their size.
    ordered = np.sort(hashes)
    distinct: HashArray = ordered[np.append(True, ordered[1:] != ordered[:-1])[: len(ordered)]]
    return distinct


def find_sorted(values: NDArray[Any], sorted_values: NDArray[Any]) -> tuple[IntArray, BoolArray]:
    """Look values up in a sorted array.

    Returns:
        For each value: its position in `sorted_values`, and whether it occurs there. If not, the position is arbitrary.
    """
    if not len(sorted_values):
        return np.zeros(len(values), dtype=np.int64), np.zeros(len(values), dtype=np.bool_)
    positions = np.minimum(np.searchsorted(sorted_values, values), len(sorted_values) - 1)
    return positions, sorted_values[positions] == values
