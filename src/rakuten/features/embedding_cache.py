"""Embeddings by content, kept between runs: what was embedded once is not embedded again.

One SQLite file for each encoder. A row is the SHA-256 of a picture's or text's content, the vector
and its checksum. SQLite's transactions make a killed run go on where it stopped; a row that fails
its checksum is computed anew, and a file that is no database is begun anew.
"""

import logging
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from rakuten.types import Embedding

log = logging.getLogger(__name__)

BUSY_SECONDS = 60.0  # seconds for another process that writes
KEYS_PER_QUERY = 500  # keys asked for in one query
PAGE_BYTES = 32_768  # bytes: a vector of 5 KB would spill out of the usual page of 4 KB
_SCHEMA = "CREATE TABLE IF NOT EXISTS embedding (key TEXT PRIMARY KEY, vector BLOB, checksum INTEGER) WITHOUT ROWID"


class EmbeddingCache:
    """Vectors of one encoder by content; see `open_cache`."""

    def __init__(self, database: sqlite3.Connection, width: int) -> None:
        self._database = database
        self._width = width

    def find(self, keys: Sequence[str]) -> dict[str, Embedding]:
        """The sound vectors among these keys."""
        found = {}
        for at in range(0, len(keys), KEYS_PER_QUERY):
            asked = keys[at : at + KEYS_PER_QUERY]
            marks = ", ".join("?" * len(asked))
            query = f"SELECT key, vector, checksum FROM embedding WHERE key IN ({marks})"
            for key, blob, checksum in self._database.execute(query, asked):
                if isinstance(blob, bytes) and len(blob) == 2 * self._width and checksum == _checksum(key, blob):
                    found[key] = np.frombuffer(blob, dtype="<f2")
        return found

    def missing(self, keys: Iterable[str]) -> list[str]:
        """The keys, each once, that have no sound vector, in the order given."""
        wanted = list(dict.fromkeys(keys))
        missing = []
        for at in range(0, len(wanted), KEYS_PER_QUERY):
            found = self.find(wanted[at : at + KEYS_PER_QUERY])
            missing += [key for key in wanted[at : at + KEYS_PER_QUERY] if key not in found]
        return missing

    def put(self, vectors: Mapping[str, Embedding]) -> None:
        """Keep these vectors: all of them or, where the process is killed, none."""
        rows = []
        for key, vector in vectors.items():
            blob = np.asarray(vector, dtype="<f2").tobytes()
            rows.append((key, blob, _checksum(key, blob)))
        with self._database:
            self._database.executemany("INSERT OR REPLACE INTO embedding VALUES (?, ?, ?)", rows)


@contextmanager
def open_cache(path: Path, width: int) -> Iterator[EmbeddingCache]:
    """The cache in this file, made if there is none, made anew if it is damaged.

    Args:
        path: named after the encoder, for vectors of two encoders must not meet.
        width: numbers in each vector.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        database = _connect(path)
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError) and "locked" in str(error):
            raise
        log.warning("%s: damaged (%s); its embeddings are computed anew", path, error)
        _remove(path)
        database = _connect(path)
    try:
        yield EmbeddingCache(database, width)
    finally:
        database.close()


def _connect(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=BUSY_SECONDS)
    try:
        database.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")
        database.execute(_SCHEMA)
        # The rows have checksums; this is for the tree that they hang in.
        if (verdict := database.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
            raise sqlite3.DatabaseError(verdict)
    except BaseException:
        database.close()
        raise
    return database


def _remove(path: Path) -> None:
    for ending in ("", "-wal", "-shm"):
        with suppress(FileNotFoundError):
            path.with_name(path.name + ending).unlink()


def _checksum(key: str, blob: bytes) -> int:
    return zlib.crc32(blob, zlib.crc32(key.encode()))
