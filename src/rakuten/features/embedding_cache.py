"""Embeddings kept between runs, by the content that they were computed from.

One SQLite file for each encoder. A row holds the SHA-256 of an image or a text, its embedding and a checksum. What a
killed run has committed is kept. A row whose checksum does not match counts as missing, and a file that is not a sound
database is replaced by an empty one.
"""

import logging
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from rakuten.types import Embedding

log = logging.getLogger(__name__)

BUSY_SECONDS = 60.0  # how long to wait while another process writes
KEYS_PER_QUERY = 500
PAGE_BYTES = 32_768  # an embedding of 5 KB would not fit into a page of SQLite's default, 4 KB
_SCHEMA = "CREATE TABLE IF NOT EXISTS embedding (key TEXT PRIMARY KEY, vector BLOB, checksum INTEGER) WITHOUT ROWID"


class EmbeddingCache:
    """Embeddings of one encoder, float16, by key: the hex SHA-256 of a content. Made by `open_cache`."""

    def __init__(self, database: sqlite3.Connection, width: int) -> None:
        self._database = database
        self._width = width

    def find(self, keys: Sequence[str]) -> dict[str, Embedding]:
        """The undamaged embeddings of these keys; a key without one is left out."""
        embeddings = {}
        for start in range(0, len(keys), KEYS_PER_QUERY):
            chunk = keys[start : start + KEYS_PER_QUERY]
            placeholders = ", ".join("?" * len(chunk))
            query = f"SELECT key, vector, checksum FROM embedding WHERE key IN ({placeholders})"
            for key, blob, checksum in self._database.execute(query, chunk):
                if isinstance(blob, bytes) and len(blob) == 2 * self._width and checksum == _checksum(key, blob):
                    embeddings[key] = np.frombuffer(blob, dtype="<f2")
        return embeddings

    def missing(self, keys: Iterable[str]) -> list[str]:
        """The keys that have no undamaged embedding, each once, in the order given."""
        distinct = list(dict.fromkeys(keys))
        missing = []
        for start in range(0, len(distinct), KEYS_PER_QUERY):
            chunk = distinct[start : start + KEYS_PER_QUERY]
            cached = self.find(chunk)
            missing += [key for key in chunk if key not in cached]
        return missing

    def put(self, embeddings: Mapping[str, Embedding]) -> None:
        """Add these embeddings in one transaction, replacing those of the same keys."""
        rows = []
        for key, embedding in embeddings.items():
            blob = np.asarray(embedding, dtype="<f2").tobytes()
            rows.append((key, blob, _checksum(key, blob)))
        with self._database:
            self._database.executemany("INSERT OR REPLACE INTO embedding VALUES (?, ?, ?)", rows)


@contextmanager
def open_cache(path: Path, width: int) -> Iterator[EmbeddingCache]:
    """Open the cache in this file. A missing file is created; a damaged one is replaced by an empty cache.

    Args:
        path: named after the encoder's fingerprint, so that embeddings of two encoders are never mixed.
        width: numbers in an embedding.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        database = _connect(path)
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError) and "locked" in str(error):
            raise
        log.warning("%s: damaged (%s); its embeddings are computed again", path, error)
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
        # Rows have checksums of their own; this checks the B-tree.
        if (message := database.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
            raise sqlite3.DatabaseError(message)
    except BaseException:
        database.close()
        raise
    return database


def _remove(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _checksum(key: str, blob: bytes) -> int:
    return zlib.crc32(blob, zlib.crc32(key.encode()))
