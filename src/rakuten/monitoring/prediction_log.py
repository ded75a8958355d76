"""Every prediction's watched features, kept for the monitoring: one SQLite file a day, rows only added.

A thread of its own writes what was answered, so no request waits for the disk; the rows themselves are made
by the thread that scored, once it has answered: made all at once every half second they held Python's lock for
a tenth of it. SQLite's transactions make it safe to kill and safe for several servers at once. Where the log
cannot be written, or rows come faster than it writes, they are dropped, counted and said once; an answer never
hangs on it.
"""

import logging
import sqlite3
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

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

FLUSH_SECONDS = 0.5  # seconds between two transactions
BUSY_SECONDS = 10.0  # seconds for another server that writes
RETRIES = 5
MAX_PENDING_ROWS = 20_000  # rows that wait to be written
FILE_SUFFIX = ".sqlite"
ID_COLUMNS = ("time", "prediction_id", "model_version", "designation", "description")  # texts only if asked for
COLUMNS = (*ID_COLUMNS, *MONITORED_COLUMNS)
_TYPES = {"time": "REAL", LANGUAGE_COLUMN: "TEXT", PREDICTED_COLUMN: "INTEGER"} | dict.fromkeys(ID_COLUMNS[1:], "TEXT")
_TYPES |= dict.fromkeys(FLAG_COLUMNS, "INTEGER")
_DECLARED = ", ".join(f"{name} {_TYPES.get(name, 'REAL')}" for name in COLUMNS)
TABLE = f"live_{zlib.crc32(_DECLARED.encode()):08x}"  # other columns, another table: an upgrade at noon loses nothing
_SCHEMA = f"CREATE TABLE IF NOT EXISTS {TABLE} ({_DECLARED})"
_INDEX = f"CREATE INDEX IF NOT EXISTS {TABLE}_time ON {TABLE} (time)"
_INSERT = f"INSERT INTO {TABLE} VALUES ({', '.join('?' * len(COLUMNS))})"


Row = tuple[Any, ...]  # COLUMNS


class PredictionRecord(NamedTuple):
    "FeatureBatchts that were scored together."

    time: float
    names: Sequence[str]  # prediction ids
    model_version: str
    products: FeatureBatch
    texts: Sequence[tuple[str, str]]  # designation and description as they came
    predicted: Sequence[int]
    confidence: Sequence[float]
    needs_review: Sequence[bool]


def prediction_record(
    model_version: str, names: Sequence[str], texts: Sequence[tuple[str, str]], products: FeatureBatch, ranked: TopK
) -> PredictionRecord:
    """What the log is given: nothing is computed yet."""
    first = ranked.codes[:, 0].tolist(), ranked.confidence[:, 0].tolist(), ranked.needs_review.tolist()
    return PredictionRecord(time.time(), names, model_version, products, texts, *first)


class PredictionLog:
    """Takes what was answered, from any thread, and writes it down.

    Args:
        folder: where the files of the days stand.
        keep_days: older files are deleted.
        with_text: whether to keep product text.
        dropped: called with a number of rows that are lost.
    """

    def __init__(self, folder: Path, keep_days: int, with_text: bool, dropped: Callable[[int], object]) -> None:
        self._folder, self._keep_days, self._with_text, self._dropped = folder, keep_days, with_text, dropped
        self._waiting: list[Row] = []
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._said = ""
        self._oldest: float | None = None
        self._thread = threading.Thread(target=self._work, name="live-log", daemon=True)
        self._thread.start()

    def put(self, answered: PredictionRecord) -> None:
        """Take rows to be written; never waits for the disk, never raises."""
        try:
            rows = list(self._rows_of(answered))
        except Exception as error:
            self._lose(len(answered.names), error)
            return
        with self._lock:
            taken = len(self._waiting) + len(rows) <= MAX_PENDING_ROWS
            if taken:
                self._waiting += rows
        if not taken:
            self._dropped(len(rows))

    def lag(self) -> float:
        """Seconds that the oldest row has waited to be written."""
        with self._lock:
            oldest = self._waiting[0][0] if self._waiting else None
        waits = [each for each in (oldest, self._oldest) if each is not None]
        return max(0.0, time.time() - min(waits)) if waits else 0.0

    def stop(self) -> None:
        """Write what waits, then end."""
        self._stop.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._stop.wait(FLUSH_SECONDS):
            self._write()
        self._write()

    def _write(self) -> None:
        with self._lock:
            taken, self._waiting = self._waiting, []
            self._oldest = taken[0][0] if taken else None
        if not taken:
            return
        try:
            today = datetime.now(UTC).date()
            _append_with_retries(self._folder / f"{today}{FILE_SUFFIX}", taken)
            _delete_before(self._folder, today - timedelta(days=self._keep_days))
            self._said = ""
        except Exception as error:  # whatever it is, the answers go on
            self._lose(len(taken), error)
        finally:
            self._oldest = None

    def _lose(self, rows: int, error: Exception) -> None:
        self._dropped(rows)
        if str(error) != self._said:  # once, not every half second
            log.warning("%s: the live log cannot be written (%s); rows are dropped", self._folder, error)
        self._said = str(error)

    def _rows_of(self, answered: PredictionRecord) -> Iterator[Row]:
        seen = monitored_values(answered.products, answered.predicted, answered.confidence, answered.needs_review)
        values = zip(*seen.values(), strict=True)
        for name, texts, row in zip(answered.names, answered.texts, values, strict=True):
            kept = texts if self._with_text else (None, None)
            yield (answered.time, name, answered.model_version, *kept, *row)


def _append_with_retries(path: Path, rows: Sequence[Row]) -> None:
    """SQLite does not wait where two servers make the same file at the same moment."""
    for attempt in range(RETRIES):
        try:
            append(path, rows)
            return
        except sqlite3.OperationalError:
            if attempt == RETRIES - 1:
                raise
            time.sleep(FLUSH_SECONDS)


def append(path: Path, rows: Sequence[Row]) -> None:
    """Add rows to a day's file: all of them or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path, timeout=BUSY_SECONDS)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")
        with database:
            database.execute(_SCHEMA)
            database.execute(_INDEX)
            database.executemany(_INSERT, rows)


def read_window(folder: Path, rows: int, model_version: str | None = None) -> pd.DataFrame:
    """The last `rows` predictions (of one model), oldest first, in the columns COLUMNS. Fewer where there are fewer."""
    parts: list[pd.DataFrame] = []
    for path in sorted(_day_files(folder), reverse=True):
        wanted = rows - sum(map(len, parts))
        if wanted <= 0:
            break
        where, given = ("WHERE model_version = ?", [model_version]) if model_version else ("", [])
        query = f"SELECT {', '.join(COLUMNS)} FROM {TABLE} {where} ORDER BY time DESC, rowid DESC LIMIT ?"
        try:
            with closing(
                sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=BUSY_SECONDS)
            ) as database:
                part = pd.read_sql_query(query, database, params=[*given, wanted])
        except (sqlite3.Error, pd.errors.DatabaseError) as error:
            log.warning("%s: left out, not a log of this code (%s)", path, error)
            continue
        if len(part):
            parts.append(with_dtypes(part[::-1]))
    return pd.concat(parts[::-1], ignore_index=True) if parts else with_dtypes(pd.DataFrame(columns=list(COLUMNS)))


def _day_files(folder: Path) -> list[Path]:
    found = []
    for path in folder.glob(f"*{FILE_SUFFIX}"):
        try:
            date.fromisoformat(path.stem)
        except ValueError:
            continue
        found.append(path)
    return found


def _delete_before(folder: Path, before: date) -> None:
    for path in _day_files(folder):
        if date.fromisoformat(path.stem) < before:
            for ending in ("", "-wal", "-shm"):
                path.with_name(path.name + ending).unlink(missing_ok=True)
