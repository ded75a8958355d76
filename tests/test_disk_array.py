"""Arrays on disk: they read and write like arrays in memory, and take no more memory than the rows in use."""

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rakuten import disk_array
from rakuten.disk_array import DiskArray, missing_rows, row_chunks
from tests.support.project import ROOT, environment

VALUES = np.arange(60, dtype=np.float32).reshape(20, 3)


@pytest.fixture
def array(tmp_path: Path) -> DiskArray:
    """VALUES on disk."""
    np.save(tmp_path / "values.npy", VALUES)
    return DiskArray(tmp_path / "values.npy")


@pytest.mark.parametrize(
    ("n_rows", "size", "expected"),
    [
        (0, 4, []),
        (4, 4, [slice(0, 4)]),
        (9, 4, [slice(0, 4), slice(4, 8), slice(8, 9)]),
    ],
)
def test_chunks_cover_all_rows_in_order(n_rows: int, size: int, expected: list[slice]) -> None:
    assert list(row_chunks(n_rows, size)) == expected


def test_shape_and_dtype_are_those_of_the_file(array: DiskArray) -> None:
    assert array.shape == (20, 3)
    assert array.dtype == np.float32
    assert len(array) == 20


@pytest.mark.parametrize("rows", [slice(None), slice(3, 7), slice(18, 30), slice(5, 5), slice(None, None, 4)])
def test_a_slice_is_a_copy_of_its_rows(array: DiskArray, rows: slice) -> None:
    copy = array[rows]
    assert type(copy) is np.ndarray
    assert copy.tolist() == VALUES[rows].tolist()
    copy[:] = -1
    assert array[rows].tolist() == VALUES[rows].tolist()


@pytest.mark.parametrize("row_numbers", [[4], [7, 2, 19, 0], [3, 3, 1], []])
@pytest.mark.parametrize("mapped_rows", [1, 2, 4096])
def test_row_numbers_may_be_in_any_order(
    array: DiskArray, row_numbers: list[int], mapped_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk_array, "MAPPED_ROWS", mapped_rows)
    rows = np.array(row_numbers, dtype=np.int64)
    assert array[rows].tolist() == VALUES[rows].tolist()
    assert array[rows].dtype == np.float32


def test_a_mask_selects_its_rows(array: DiskArray) -> None:
    mask = VALUES[:, 0] % 2 == 0
    assert array[mask].tolist() == VALUES[mask].tolist()
    assert array[np.zeros(20, dtype=bool)].shape == (0, 3)


@pytest.mark.parametrize("rows", [slice(2, 4), np.array([9, 1]), np.arange(20) > 17], ids=["slice", "numbers", "mask"])
def test_what_is_written_is_in_the_file(array: DiskArray, rows: disk_array.Rows) -> None:
    expected = VALUES.copy()
    expected[rows] = [[1.5, 2.5, 3.5], [4.5, 5.5, 6.5]]
    array[rows] = np.array([[1.5, 2.5, 3.5], [4.5, 5.5, 6.5]])
    assert np.load(array.path).tolist() == expected.tolist()
    array[rows] = 0
    expected[rows] = 0
    assert array[:].tolist() == expected.tolist()


def test_a_new_file_is_filled(tmp_path: Path) -> None:
    path = tmp_path / "new" / "scores.npy"
    array = DiskArray.full(path, (disk_array.CHUNK_ROWS + 5, 2), np.nan, np.float32)
    values = np.load(path)
    assert (values.shape, values.dtype) == (array.shape, np.float32)
    assert np.isnan(values).all()


def test_a_new_file_is_written_before_it_is_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a full disk a write is an error, but the first use of a mapped page kills the process."""

    def set_rows(*_: object) -> None:
        raise AssertionError("mapped")

    monkeypatch.setattr(DiskArray, "__setitem__", set_rows)
    assert DiskArray.full(tmp_path / "scores.npy", (3, 2), 1)[:].tolist() == [[1, 1]] * 3


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is full")
def test_a_full_disk_is_an_error_with_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "scores.npy").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left") as caught:
        DiskArray.full(tmp_path / "scores.npy", (3, 2), 1)
    assert caught.value.filename == str(tmp_path)


@pytest.mark.parametrize("shape", [(0, 3), (4, 0)])
def test_an_array_without_numbers_can_be_read(tmp_path: Path, shape: tuple[int, int]) -> None:
    np.save(tmp_path / "empty.npy", np.empty(shape))
    array = DiskArray(tmp_path / "empty.npy")
    assert array.shape == array[:].shape == shape


@pytest.mark.parametrize("mapped_rows", [3, 4096])
def test_missing_rows_are_found_on_disk_and_in_memory(
    array: DiskArray, mapped_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk_array, "MAPPED_ROWS", mapped_rows)
    array[np.array([0, 7, 19])] = np.nan
    expected = [row in (0, 7, 19) for row in range(20)]
    assert missing_rows(array).tolist() == expected
    assert missing_rows(array[:]).tolist() == expected


def test_no_rows_are_missing_where_there_are_none(tmp_path: Path) -> None:
    np.save(tmp_path / "empty.npy", np.empty((0, 3)))
    assert missing_rows(DiskArray(tmp_path / "empty.npy")).tolist() == []


def test_it_can_be_pickled(array: DiskArray) -> None:
    copy = pickle.loads(pickle.dumps(array))
    array[slice(0, 1)] = 9
    assert copy[:].tolist() == array[:].tolist()
    assert (copy.shape, copy.dtype) == (array.shape, array.dtype)
    assert len(pickle.dumps(array)) < 1000  # the path, not the numbers


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        DiskArray(tmp_path / "none.npy")


@pytest.mark.parametrize("values", [np.arange(3), np.zeros((2, 2, 2))])
def test_an_array_that_is_not_two_dimensional_is_refused(tmp_path: Path, values: np.ndarray) -> None:
    np.save(tmp_path / "values.npy", values)
    with pytest.raises(ValueError, match=f"{values.ndim} dimensions where there should be 2"):
        DiskArray(tmp_path / "values.npy")


@pytest.mark.parametrize("n_bytes", [0, 5, 60, 130])
def test_a_file_that_was_cut_is_refused(array: DiskArray, n_bytes: int) -> None:
    array.path.write_bytes(array.path.read_bytes()[:n_bytes])
    with pytest.raises((ValueError, OSError, EOFError)):
        DiskArray(array.path)


def test_pickled_objects_in_a_file_are_not_loaded(tmp_path: Path) -> None:
    np.save(tmp_path / "objects.npy", np.array([[object()]]), allow_pickle=True)
    with pytest.raises(ValueError, match="Python objects in dtype"):
        DiskArray(tmp_path / "objects.npy")


MEASURE_PEAK = """
import sys
from pathlib import Path
import numpy as np
from rakuten.disk_array import DiskArray, missing_rows, row_chunks

def peak():
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024

array = DiskArray(Path(sys.argv[1]))
rng = np.random.default_rng(0)
array[:100], array[np.arange(100)], missing_rows(DiskArray(Path(sys.argv[2])))
before = peak()
if sys.argv[3] == "chunks":
    for rows in row_chunks(len(array), 5000):
        array[rows]
elif sys.argv[3] == "fold":
    fold_rows = np.flatnonzero(rng.integers(0, 5, len(array)) == 0)
    for rows in row_chunks(len(fold_rows), 5000):
        array[fold_rows[rows]]
elif sys.argv[3] == "missing":
    missing_rows(array)
else:
    for rows in row_chunks(len(array), 5000):
        array[rows] = 1
print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of memory is read from /proc")
@pytest.mark.parametrize("access", ["chunks", "fold", "missing", "written"])
def test_memory_does_not_grow_with_what_was_accessed(tmp_path: Path, access: str) -> None:
    """A file of 200 MB (sparse, so that it takes no space) is read or written, at most 10 MB at a time."""
    path, small = tmp_path / "large.npy", tmp_path / "small.npy"
    np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=(100_000, 1000))
    np.save(small, VALUES)
    assert path.stat().st_size > 200_000_000
    done = subprocess.run(
        [sys.executable, "-c", MEASURE_PEAK, path, small, access],
        env=environment(ROOT), capture_output=True, text=True, check=True, timeout=300,
    )  # fmt: skip
    assert float(done.stdout) < 100  # MB; a mapping that stays open takes 200
