"""The embedding cache: what it keeps, and that it trusts nothing that is damaged."""

import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rakuten.features.embedding_cache import open_cache
from rakuten.types import Embedding


def vectors(*keys: str) -> dict[str, Embedding]:
    return {key: np.full(4, float(at), dtype=np.float16) for at, key in enumerate(keys)}


def test_what_is_put_is_found_later(tmp_path: Path) -> None:
    with open_cache(tmp_path / "deep" / "a.sqlite", 4) as cache:
        assert cache.missing(["a", "b", "a"]) == ["a", "b"]
        cache.put(vectors("a", "b"))
    with open_cache(tmp_path / "deep" / "a.sqlite", 4) as cache:
        assert cache.missing(["c", "b", "a"]) == ["c"]
        found = cache.find([*"abc"] * 400)
        assert {key: vector.tolist() for key, vector in found.items()} == {"a": [0.0] * 4, "b": [1.0] * 4}


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE embedding SET vector = zeroblob(8) WHERE key = 'b'",
        "UPDATE embedding SET vector = zeroblob(3) WHERE key = 'b'",
        "UPDATE embedding SET vector = NULL WHERE key = 'b'",
        "UPDATE embedding SET checksum = checksum + 1 WHERE key = 'b'",
        "UPDATE embedding SET vector = (SELECT vector FROM embedding WHERE key = 'a') WHERE key = 'b'",
    ],
)
def test_a_damaged_row_is_not_trusted(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "a.sqlite"
    with open_cache(path, 4) as cache:
        cache.put(vectors("a", "b"))
    database = sqlite3.connect(path)
    with database:
        database.execute(damage)
    database.close()
    with open_cache(path, 4) as cache:
        assert cache.missing(["a", "b"]) == ["b"]
        cache.put(vectors("x", "b"))
        assert cache.missing(["a", "b"]) == []


@pytest.mark.parametrize("damage", ["text", "cut", "overwritten"])
def test_a_damaged_file_is_begun_anew(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "a.sqlite"
    with open_cache(path, 4) as cache:
        cache.put(vectors(*(f"{n:064}" for n in range(2000))))
    data = path.read_bytes()
    middle = data[:8192] + b"\xff" * 40_000 + data[48_192:]
    path.write_bytes({"text": b"not a database" * 100, "cut": data[:30_000], "overwritten": middle}[damage])
    with open_cache(path, 4) as cache:
        assert len(cache.missing(["a"])) == 1
        cache.put(vectors("a"))
        assert cache.missing(["a"]) == []
    assert "damaged" in caplog.text
    assert "computed anew" in caplog.text


def test_another_encoders_width_is_not_taken(tmp_path: Path) -> None:
    with open_cache(tmp_path / "a.sqlite", 4) as cache:
        cache.put(vectors("a"))
    with open_cache(tmp_path / "a.sqlite", 5) as cache:
        assert cache.missing(["a"]) == ["a"]


def test_a_killed_writer_leaves_whole_batches(tmp_path: Path) -> None:
    script = (
        "import os, sys, numpy as np; from pathlib import Path; from rakuten.features.cache import open_cache\n"
        "with open_cache(Path(sys.argv[1]), 4) as cache:\n"
        "    for batch in range(3):\n"
        "        cache.put({f'{batch}{n}': np.zeros(4, dtype=np.float16) for n in range(5)})\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "a.sqlite")], check=False, timeout=60)
    assert done.returncode == -9
    with open_cache(tmp_path / "a.sqlite", 4) as cache:
        assert cache.missing([f"{batch}{n}" for batch in range(4) for n in range(5)]) == [f"3{n}" for n in range(5)]
