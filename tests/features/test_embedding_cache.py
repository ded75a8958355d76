"""The embedding cache: what it keeps, and that nothing damaged is used."""

import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rakuten.features import embedding_cache
from rakuten.features.embedding_cache import open_cache
from rakuten.types import Embedding
from tests.support.project import ROOT, environment


def embeddings(*keys: str) -> dict[str, Embedding]:
    """Embeddings of width 4: zeros for the first key, ones for the second, and so on."""
    return {key: np.full(4, float(number), dtype=np.float16) for number, key in enumerate(keys)}


def test_embeddings_are_kept(tmp_path: Path) -> None:
    with open_cache(tmp_path / "deep" / "a.sqlite", 4) as cache:
        assert cache.missing(["a", "b", "a"]) == ["a", "b"]
        cache.put(embeddings("a", "b"))
    with open_cache(tmp_path / "deep" / "a.sqlite", 4) as cache:
        assert cache.missing(["c", "b", "a"]) == ["c"]
        cached = cache.find([*"abc"] * 400)
        assert {key: embedding.tolist() for key, embedding in cached.items()} == {"a": [0.0] * 4, "b": [1.0] * 4}


def test_many_keys_are_looked_up_in_several_queries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding_cache, "KEYS_PER_QUERY", 3)
    keys = [f"{number:03}" for number in range(20)]
    with open_cache(tmp_path / "a.sqlite", 4) as cache:
        cache.put(embeddings(*keys[::2]))
        assert list(cache.find(keys)) == keys[::2]
        assert cache.missing(reversed(keys)) == keys[1::2][::-1]


def test_an_embedding_is_replaced_by_a_later_one(tmp_path: Path) -> None:
    with open_cache(tmp_path / "a.sqlite", 4) as cache:
        cache.put(embeddings("a"))
        cache.put(embeddings("b", "a"))
        assert cache.find(["a"])["a"].tolist() == [1.0] * 4


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
def test_a_damaged_row_counts_as_missing(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "a.sqlite"
    with open_cache(path, 4) as cache:
        cache.put(embeddings("a", "b"))
    database = sqlite3.connect(path)
    with database:
        database.execute(damage)
    database.close()
    with open_cache(path, 4) as cache:
        assert cache.missing(["a", "b"]) == ["b"]
        cache.put(embeddings("x", "b"))
        assert cache.missing(["a", "b"]) == []


@pytest.mark.parametrize("damage", ["text", "cut", "overwritten"])
def test_a_damaged_file_is_replaced_by_an_empty_cache(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.sqlite"
    with open_cache(path, 4) as cache:
        cache.put(embeddings(*(f"{number:064}" for number in range(2000))))
    data = path.read_bytes()
    middle = data[:8192] + b"\xff" * 40_000 + data[48_192:]
    path.write_bytes({"text": b"not a database" * 100, "cut": data[:30_000], "overwritten": middle}[damage])
    with open_cache(path, 4) as cache:
        assert len(cache.missing(["a"])) == 1
        cache.put(embeddings("a"))
        assert cache.missing(["a"]) == []
    assert "damaged" in caplog.text
    assert "computed again" in caplog.text


def test_embeddings_of_another_width_count_as_missing(tmp_path: Path) -> None:
    with open_cache(tmp_path / "a.sqlite", 4) as cache:
        cache.put(embeddings("a"))
    with open_cache(tmp_path / "a.sqlite", 5) as cache:
        assert cache.missing(["a"]) == ["a"]


def test_a_killed_writer_leaves_complete_batches(tmp_path: Path) -> None:
    script = (
        "import os, sys, numpy as np; from pathlib import Path\n"
        "from rakuten.features.embedding_cache import open_cache\n"
        "with open_cache(Path(sys.argv[1]), 4) as cache:\n"
        "    for batch in range(3):\n"
        "        cache.put({f'{batch}{n}': np.zeros(4, dtype=np.float16) for n in range(5)})\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "a.sqlite")]
    done = subprocess.run(command, env=environment(ROOT), check=False, timeout=300)
    assert done.returncode == -9
    with open_cache(tmp_path / "a.sqlite", 4) as cache:
        assert cache.missing([f"{batch}{n}" for batch in range(4) for n in range(5)]) == [f"3{n}" for n in range(5)]
