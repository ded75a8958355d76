"""Two-dimensional arrays in .npy files, which may be larger than memory."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray

from rakuten.files import full_disk_named
from rakuten.types import BoolArray, IntArray

CHUNK_ROWS = 20_000  # rows held in memory at a time by code that reads a whole table or array
MAPPED_ROWS = 4096  # rows copied out of one mapping: of scattered rows, each may map a page of the file

Rows = slice | IntArray | BoolArray


def row_chunks(n_rows: int, size: int | None = None) -> Iterator[slice]:
    """Slices of at most `size` rows (default: CHUNK_ROWS) that cover `n_rows` rows in order."""
    step = size or CHUNK_ROWS
    return (slice(start, min(start + step, n_rows)) for start in range(0, n_rows, step))


class DiskArray:
    """A two-dimensional array in a .npy file. Indexing by rows copies these rows into memory.

    The file is mapped for each access and unmapped after it: a mapping that stays open keeps every page that was read
    through it, so memory would grow to the size of the file. An instance holds only the path and the header, so it can
    be pickled and used in another process.

    Attributes:
        path: the .npy file.
        shape: rows, columns.
        dtype: of the numbers.
    """

    def __init__(self, path: Path) -> None:
        """Open an existing file.

        Raises:
            OSError, ValueError, EOFError: the file is missing, or is not a .npy file of numbers in two dimensions.
        """
        self.path = path
        mapped = self._map("r")
        if mapped.ndim != 2:
            raise ValueError(f"{mapped.ndim} dimensions where there should be 2")
        self.shape: tuple[int, int] = mapped.shape
        self.dtype: np.dtype[Any] = mapped.dtype

    @classmethod
    def full(cls, path: Path, shape: tuple[int, int], fill_value: float, dtype: DTypeLike = np.float64) -> "DiskArray":
        """Write a new file of this shape, filled with `fill_value`, and open it. Creates its folder if needed.

        Raises:
            OSError: also that the disk is full, which would kill the process (SIGBUS) if the file were mapped while
                its blocks are not allocated yet.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
        with full_disk_named([path.parent]), path.open("wb") as stream:
            np.lib.format.write_array_header_1_0(stream, header)
            for rows in row_chunks(shape[0]):
                stream.write(np.full((rows.stop - rows.start, shape[1]), fill_value, dtype).tobytes())
        return cls(path)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Rows) -> NDArray[Any]:
        """A copy of some rows.

        Args:
            rows: a slice, row numbers in any order (ascending ones take least memory), or a mask of all rows.
        """
        if isinstance(rows, slice):
            return np.array(self._map("r")[rows])
        row_numbers = np.flatnonzero(rows) if rows.dtype == bool else rows
        copy = np.empty((len(row_numbers), self.shape[1]), dtype=self.dtype)
        for chunk in row_chunks(len(row_numbers), MAPPED_ROWS):
            copy[chunk] = self._map("r")[row_numbers[chunk]]
        return copy

    def __setitem__(self, rows: Rows, values: NDArray[Any] | float) -> None:
        """Write some rows to the file; `rows` as in `__getitem__`."""
        self._map("r+")[rows] = values

    def missing_rows(self) -> BoolArray:
        """See the function `missing_rows`."""
        chunks = [np.isnan(self._map("r")[rows, 0]) for rows in row_chunks(len(self), MAPPED_ROWS)]
        return np.concatenate(chunks) if chunks else np.empty(0, dtype=bool)

    def _map(self, mode: Literal["r", "r+"]) -> NDArray[Any]:
        mapped: NDArray[Any] = np.load(self.path, mmap_mode=mode, allow_pickle=False)
        return mapped


Array2D = NDArray[Any] | DiskArray


def missing_rows(array: Array2D) -> BoolArray:
    """For each row of an array in memory or on disk, whether it is missing. A missing row is NaN throughout."""
    if isinstance(array, DiskArray):
        return array.missing_rows()
    mask: BoolArray = np.isnan(array[:, 0])
    return mask
