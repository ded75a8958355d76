"""The log of predictions: one SQLite file a day, rows are only added. Written by the API, read by the monitoring.

A row has the monitored features of one product, its prediction, and whether it is novel (COLUMNS). A writer thread
inserts the pending rows every half second, so no request waits for the disk. Rows are built in the scoring thread after
it has answered: building them in the writer thread, in bulk, held the GIL for about 10 % of the time. SQLite's
transactions keep the file sound when a server is killed and when several servers write at once. Rows that cannot
be written, or that exceed MAX_PENDING_ROWS, are dropped and counted, with one warning; their neighbours are written,
and predictions never fail because of the log.
"""

import logging
import math
import sqlite3
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from rakuten.features.feature_set import FeatureBatch
from rakuten.features.monitored_columns import (
    FLAG_COLUMNS,
    LANGUAGE_COLUMN,
    MONITORED_COLUMNS,
    PREDICTED_COLUMN,
    monitored_values,
    with_dtypes,
)
from rakuten.models.classifier import TopK

log = logging.getLogger(__name__)

FLUSH_SECONDS = 0.5  # between two transactions
BUSY_SECONDS = 10.0  # SQLite's wait for another server that writes
RETRIES = 5  # attempts to write
MAX_PENDING_ROWS = 20_000  # rows that wait to be written
FILE_SUFFIX = ".sqlite"
ID_COLUMNS = ("time", "prediction_id", "model_version", "designation", "description")  # texts: NULL unless asked for
NOVEL_COLUMN = "is_novel"  # NULL: not known, as for a product without text and image, or by a model of before
COLUMNS = (*ID_COLUMNS, *MONITORED_COLUMNS, NOVEL_COLUMN)
_TYPES = {"time": "REAL", LANGUAGE_COLUMN: "TEXT", PREDICTED_COLUMN: "INTEGER"} | dict.fromkeys(ID_COLUMNS[1:], "TEXT")
_TYPES |= dict.fromkeys((*FLAG_COLUMNS, NOVEL_COLUMN), "INTEGER")


def _declared(columns: Sequence[str]) -> str:
    return ", ".join(f"{name} {_TYPES.get(name, 'REAL')}" for name in columns)


def _table_name(columns: Sequence[str]) -> str:
    """Depends on the columns: servers before and after an upgrade write to the same file, each to its own table."""
    return f"live_{zlib.crc32(_declared(columns).encode()):08x}"


TABLE = _table_name(COLUMNS)
_LOGGED_BEFORE = COLUMNS[:-1]  # by servers of before the novel products were logged
_SELECTED = {  # what is read from each table that a file may have, the earliest first
    _table_name(_LOGGED_BEFORE): f"{', '.join(_LOGGED_BEFORE)}, NULL AS {NOVEL_COLUMN}",
    TABLE: ", ".join(COLUMNS),
}
_SCHEMA = f"CREATE TABLE IF NOT EXISTS {TABLE} ({_declared(COLUMNS)})"
_INDEX = f"CREATE INDEX IF NOT EXISTS {TABLE}_time ON {TABLE} (time)"
_INSERT = f"INSERT INTO {TABLE} VALUES ({', '.join('?' * len(COLUMNS))})"

_BAD_VALUE = (sqlite3.DataError, sqlite3.InterfaceError, sqlite3.ProgrammingError, ValueError, OverflowError)

Row = tuple[Any, ...]  # values of COLUMNS


@dataclass(frozen=True)
class PredictionRecord:
    """Products that were scored together, and their predictions; nothing is computed for the log yet."""

    time: float  # seconds since the epoch
    model_version: str
    prediction_ids: Sequence[str]
    texts: Sequence[tuple[str, str]]  # raw designation and description
    batch: FeatureBatch
    predicted: Sequence[int]  # prdtypecode
    confidence: Sequence[float]
    needs_review: Sequence[bool]
    is_novel: Sequence[bool | None]  # None: not known


def prediction_record(
    model_version: str,
    prediction_ids: Sequence[str],
    texts: Sequence[tuple[str, str]],
    batch: FeatureBatch,
    top_k: TopK,
) -> PredictionRecord:
    """The record of the first choices in `top_k`, made now."""
    return PredictionRecord(
        time=time.time(),
        model_version=model_version,
        prediction_ids=prediction_ids,
        texts=texts,
        batch=batch,
        predicted=top_k.codes[:, 0].tolist(),
        confidence=top_k.confidence[:, 0].tolist(),
        needs_review=top_k.needs_review.tolist(),
        is_novel=known_novel(top_k),
    )


def known_novel(top_k: TopK) -> list[bool | None]:
    """Whether each product is novel; None where it is not known."""
    flagged = zip(top_k.is_novel.tolist(), top_k.novelty.tolist(), strict=True)
    return [None if math.isnan(novelty) else is_novel for is_novel, novelty in flagged]


class PredictionLog:
    """Takes records from any thread and writes them to the day's file from a thread of its own.

    Args:
        folder: of the daily files; made if it is missing.
        keep_days: how many logged days before the latest are kept.
        with_text: whether to log designation and description.
        on_drop: called with the number of rows that were dropped.
    """

    def __init__(self, folder: Path, keep_days: int, with_text: bool, on_drop: Callable[[int], object]) -> None:
        self._folder, self._keep_days, self._with_text, self._on_drop = folder, keep_days, with_text, on_drop
        self._pending: list[Row] = []
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._last_error = ""
        self._writing_since: float | None = None  # time of the oldest row that is being written
        self._thread = threading.Thread(target=self._run, name="prediction-log", daemon=True)
        self._thread.start()

    def enqueue(self, record: PredictionRecord) -> None:
        """Build the rows and leave them to the writer thread. Never waits for the disk, never raises."""
        try:
            rows = list(self._rows(record))
        except Exception as error:
            self._drop(len(record.prediction_ids), error)
            return
        with self._lock:
            has_room = len(self._pending) + len(rows) <= MAX_PENDING_ROWS
            if has_room:
                self._pending += rows
        if not has_room:
            self._on_drop(len(rows))

    def lag(self) -> float:
        """Seconds that the oldest row not yet written has waited; 0 if there is none."""
        with self._lock:
            oldest_pending = self._pending[0][0] if self._pending else None
        times = [moment for moment in (oldest_pending, self._writing_since) if moment is not None]
        return max(0.0, time.time() - min(times)) if times else 0.0

    def stop(self) -> None:
        """Write the pending rows, then end the thread."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(FLUSH_SECONDS):
            self._flush()
        self._flush()

    def _flush(self) -> None:
        with self._lock:
            rows, self._pending = self._pending, []
            self._writing_since = rows[0][0] if rows else None
        if not rows:
            return
        try:
            refused = append_rows(self._folder / f"{datetime.now(UTC).date()}{FILE_SUFFIX}", rows)
            if refused:
                self._drop(len(refused), refused[0])
            _delete_old(self._folder, self._keep_days)
            if not refused:
                self._last_error = ""
        except Exception as error:  # of any kind: the thread must go on
            self._drop(len(rows), error)
        finally:
            self._writing_since = None

    def _drop(self, n_rows: int, error: Exception) -> None:
        self._on_drop(n_rows)
        if str(error) != self._last_error:  # once, not every half second
            log.warning("%s: the prediction log cannot be written (%s); rows are dropped", self._folder, error)
        self._last_error = str(error)

    def _rows(self, record: PredictionRecord) -> Iterator[Row]:
        values = monitored_values(record.batch, record.predicted, record.confidence, record.needs_review)
        logged = zip(*values.values(), record.is_novel, strict=True)
        for prediction_id, texts, monitored in zip(record.prediction_ids, record.texts, logged, strict=True):
            logged_texts = texts if self._with_text else (None, None)
            yield (record.time, prediction_id, record.model_version, *logged_texts, *monitored)


def append_rows(path: Path, rows: Sequence[Row]) -> list[Exception]:
    """Add rows to a day's file, in one transaction.

    Retried: where two servers create the same file at the same moment, SQLite fails at once instead of waiting.

    Returns:
        For each row with a value that cannot be written, why; all others are written.

    Raises:
        sqlite3.Error: the file cannot be written, or is no database.
    """
    for _ in range(RETRIES - 1):
        try:
            return _append(path, rows)
        except sqlite3.OperationalError:
            time.sleep(FLUSH_SECONDS)
    return _append(path, rows)


def _append(path: Path, rows: Sequence[Row]) -> list[Exception]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path, timeout=BUSY_SECONDS)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")
        with database:
            database.execute(_SCHEMA)
            database.execute(_INDEX)
            return _insert(database, rows)


def _insert(database: sqlite3.Connection, rows: Sequence[Row]) -> list[Exception]:
    try:
        database.executemany(_INSERT, rows)
        return []
    except _BAD_VALUE:
        database.rollback()  # of the rows before it
    refused: list[Exception] = []
    for row in rows:
        try:
            database.execute(_INSERT, row)
        except _BAD_VALUE as error:
            refused.append(error)
    return refused


def read_window(folder: Path, max_rows: int, model_version: str | None = None) -> pd.DataFrame:
    """The latest predictions, at most `max_rows`, oldest first, in COLUMNS; NOVEL_COLUMN as `boolean`.

    A file that is no log of this code is left out, with a warning.

    Args:
        model_version: of this model only.
    """
    frames: list[pd.DataFrame] = []
    for path in sorted(_day_files(folder), reverse=True):
        remaining = max_rows - sum(map(len, frames))
        if remaining <= 0:
            break
        try:
            frame = _read_day(path, remaining, model_version)
        except (sqlite3.Error, pd.errors.DatabaseError) as error:
            log.warning("%s: skipped, not a prediction log of this version of the code (%s)", path, error)
            continue
        frames.append(frame)
    frames = [frame for frame in frames[::-1] if len(frame)]
    return pd.concat(frames, ignore_index=True) if frames else _with_dtypes(pd.DataFrame(columns=list(COLUMNS)))


def _read_day(path: Path, max_rows: int, model_version: str | None) -> pd.DataFrame:
    """The latest rows of one file, oldest first."""
    condition, values = ("WHERE model_version = ?", [model_version]) if model_version else ("", [])
    uri = f"{path.resolve().as_uri()}?mode=ro"
    with closing(sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS)) as database:
        found = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        queries = [
            f"SELECT {selected} FROM {table} {condition} ORDER BY time DESC, rowid DESC LIMIT ?"
            for table, selected in _SELECTED.items()
            if table in found
        ]
        if not queries:
            raise sqlite3.OperationalError(f"no table {TABLE}")
        frames = [pd.read_sql_query(query, database, params=[*values, max_rows])[::-1] for query in queries]
    frames = [_with_dtypes(frame) for frame in frames if len(frame)] or frames[:1]
    return pd.concat(frames).sort_values("time", kind="stable").tail(max_rows)


def _with_dtypes(frame: pd.DataFrame) -> pd.DataFrame:
    return with_dtypes(frame).astype({NOVEL_COLUMN: "boolean"})


def _day_files(folder: Path) -> list[Path]:
    """The daily files of a folder: named YYYY-MM-DD.sqlite."""
    paths = []
    for path in folder.glob(f"*{FILE_SUFFIX}"):
        try:
            date.fromisoformat(path.stem)
        except ValueError:
            continue
        paths.append(path)
    return paths


def _delete_old(folder: Path, keep_days: int) -> None:
    """Delete all files but that of the latest day and those of the `keep_days` logged days before it.

    They are counted, and their age is not asked for: a clock that jumps ahead would make all of them old.
    """
    for path in sorted(_day_files(folder))[: -keep_days - 1]:
        for suffix in ("", "-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
