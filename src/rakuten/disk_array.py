"""Two-dimensional arrays in .npy files, which may be larger than memory."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray

from rakuten.types import BoolArray, IntArray

CHUNK_ROWS = 20_000  # rows held in memory at a time, where there may be more than memory holds
MAPPED_ROWS = 4096  # rows copied out of one mapping: scattered rows bring in a page of the file each

Rows = slice | IntArray | BoolArray


def row_chunks(n_rows: int, size: int = CHUNK_ROWS) -> Iterator[slice]:
    """Slices of at most `size` rows that cover `n_rows` rows in order."""
    return (slice(start, min(start + size, n_rows)) for start in range(0, n_rows, size))


class DiskArray:
    """A two-dimensional array in a .npy file. Indexing by rows copies these rows into memory.

    The file is mapped anew for each access and unmapped after it: a mapping that stays open keeps every page that
    was read through it, so memory would grow to the size of the file. An instance holds only the path and the header,
    so it can be sent to another process.
    """

    def __init__(self, path: Path) -> None:
        """Open an existing file.

        Raises:
            OSError, ValueError: there is no such file, or it is not a .npy file of numbers in two dimensions.
        """
        self.path = path
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
        if mapped.ndim != 2:
            raise ValueError(f"{mapped.ndim} dimensions where there should be 2")
        self.shape: tuple[int, int] = mapped.shape
        self.dtype: np.dtype[Any] = mapped.dtype

    @classmethod
    def full(cls, path: Path, shape: tuple[int, int], fill_value: float, dtype: DTypeLike = np.float64) -> "DiskArray":
        """Write a new file of this shape in which every number is `fill_value`; its folder is made if need be."""
        path.parent.mkdir(parents=True, exist_ok=True)
        np.lib.format.open_memmap(path, mode="w+", dtype=np.dtype(dtype), shape=shape)
        array = cls(path)
        for rows in row_chunks(shape[0]):
            array[rows] = fill_value
        return array

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Rows) -> NDArray[Any]:
        """A copy of some rows: a slice, row numbers, or a mask."""
        if isinstance(rows, slice):
            return np.array(self._mapped("r")[rows])
        numbers = np.flatnonzero(rows) if rows.dtype == bool else rows
        copy = np.empty((len(numbers), self.shape[1]), dtype=self.dtype)
        for chunk in row_chunks(len(numbers), MAPPED_ROWS):
            copy[chunk] = self._mapped("r")[numbers[chunk]]
        return copy

    def __setitem__(self, rows: Rows, values: NDArray[Any] | float) -> None:
        self._mapped("r+")[rows] = values

    def is_nan(self) -> BoolArray:
        """For each row, whether it is missing, that is, begins with NaN."""
        parts = [np.isnan(self._mapped("r")[rows, 0]) for rows in row_chunks(len(self), MAPPED_ROWS)]
        return np.concatenate(parts) if parts else np.empty(0, dtype=bool)

    def _mapped(self, mode: Literal["r", "r+"]) -> NDArray[Any]:
        mapped: NDArray[Any] = np.load(self.path, mmap_mode=mode, allow_pickle=False)
        return mapped


Array2D = NDArray[Any] | DiskArray


def missing_rows(array: Array2D) -> BoolArray:
    """For each row of an array in memory or on disk, whether it is missing, that is, begins with NaN."""
    if isinstance(array, DiskArray):
        return array.is_nan()
    mask: BoolArray = np.isnan(array[:, 0])
    return mask


def concatenate_rows(parts: Sequence[NDArray[Any]], width: int) -> NDArray[Any]:
    """The parts one below another; no rows of `width` columns where there is none."""
    return np.concatenate(parts) if parts else np.empty((0, width))
