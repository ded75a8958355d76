"""Embedding many products: what is computed, what is kept, what a kill or a broken cache costs."""

import logging
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rakuten.config import ImageEncoderParams
from rakuten.errors import UserError
from rakuten.features.embedding import embed_images, embed_texts
from rakuten.features.encoders import efficientnet_lite0
from rakuten.features.encoders.factory import image_encoder, text_encoder
from rakuten.features.feature_set import read_embeddings

LITE = "efficientnet-lite0"
USE = "use-multilingual"


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path | None]:
    """Eight pictures on disk and a gap; the first two have the same bytes."""
    paths: list[Path | None] = []
    for number in range(8):
        path = tmp_path / f"{number}.jpg"
        Image.new("RGB", (300, 300), (30 * max(number, 1), 90, 200)).save(path)
        paths.append(path)
    return [*paths[:4], None, *paths[4:]]


@pytest.fixture
def embedded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Callable[..., int]:
    """Embed pictures; how many were not known already."""
    caplog.set_level(logging.INFO, "src")

    def run(paths: list[Path | None], choice: str | ImageEncoderParams = LITE) -> int:
        caplog.clear()
        embed_images(paths, choice, tmp_path / "cache", tmp_path / "out.npy", "pictures")
        (said,) = (record for record in caplog.records if "to embed" in record.message)
        return int(said.message.split()[1].replace(",", ""))

    return run


def out(tmp_path: Path, rows: int) -> np.ndarray:
    vectors = read_embeddings(tmp_path / "out.npy", rows)
    assert vectors is not None
    return np.array(vectors)


def test_each_row_has_its_own_pictures_embedding(
    pictures: list[Path | None], tmp_path: Path, embedded: Callable[..., int]
) -> None:
    assert embedded(pictures) == 7  # two of the eight are the same picture
    vectors = out(tmp_path, 9)
    assert vectors.dtype == np.float16
    assert np.isnan(vectors).all(axis=1).tolist() == [path is None for path in pictures]
    for path, vector in zip(pictures, vectors, strict=True):
        if path is not None:
            assert (vector == image_encoder(LITE).encode(path.read_bytes())).all()


def test_only_what_is_new_or_changed_is_computed(
    pictures: list[Path | None], tmp_path: Path, embedded: Callable[..., int]
) -> None:
    assert embedded(pictures) == 7
    first = (tmp_path / "out.npy").read_bytes()
    assert embedded(pictures) == 0
    assert (tmp_path / "out.npy").read_bytes() == first
    assert pictures[3] is not None
    Image.new("RGB", (300, 300), "black").save(pictures[3])
    assert embedded([*pictures, pictures[0]]) == 1
    changed = out(tmp_path, 10)
    assert (changed[9] == changed[0]).all()
    assert (changed[3] == image_encoder(LITE).encode(pictures[3].read_bytes())).all()
    assert embedded(pictures[::-1]) == 0


def test_another_encoder_has_a_cache_of_its_own(
    pictures: list[Path | None], tmp_path: Path, embedded: Callable[..., int]
) -> None:
    (tmp_path / "own.onnx").write_bytes(efficientnet_lite0.build())
    own = ImageEncoderParams(path=str(tmp_path / "own.onnx"), size=64, normalisation="none")
    embedded(pictures)
    assert embedded(pictures, own) == 7
    assert embedded(pictures) == 0


def test_a_broken_cache_is_rebuilt_to_the_same_result(
    pictures: list[Path | None], tmp_path: Path, embedded: Callable[..., int]
) -> None:
    embedded(pictures)
    first = (tmp_path / "out.npy").read_bytes()
    (cache,) = (tmp_path / "cache").glob("*.sqlite")
    cache.write_bytes(cache.read_bytes()[:5000])
    for leftover in (tmp_path / "cache").glob("*-wal"):
        leftover.unlink()
    assert embedded(pictures) == 7
    assert (tmp_path / "out.npy").read_bytes() == first


def test_a_picture_that_breaks_after_ingest_is_said_and_its_row_is_empty(
    pictures: list[Path | None], tmp_path: Path, embedded: Callable[..., int], caplog: pytest.LogCaptureFixture
) -> None:
    assert pictures[2] is not None
    pictures[2].write_bytes(b"gone bad")
    assert pictures[5] is not None
    pictures[5].unlink()
    embedded(pictures)
    assert "2 changed since ingest read them" in caplog.text
    assert np.isnan(out(tmp_path, 9)).all(axis=1).tolist() == [at in (2, 4, 5) for at in range(9)]


def test_a_killed_run_goes_on_where_it_stopped(tmp_path: Path, embedded: Callable[..., int]) -> None:
    paths: list[Path | None] = []
    rng = np.random.default_rng(0)
    for number in range(400):
        paths.append(tmp_path / f"{number}.jpg")
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(str(paths[-1]))
    script = (
        "import sys; from pathlib import Path; from rakuten.features.embeddings import embed_pictures\n"
        "folder = Path(sys.argv[1]); paths = [folder / f'{n}.jpg' for n in range(400)]\n"
        "embed_pictures(paths, 'efficientnet-lite0', folder / 'cache', folder / 'out.npy', 'pictures')\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], start_new_session=True)
    deadline = time.monotonic() + 120
    while _known(tmp_path) < 32 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.kill()
    process.wait()
    known = _known(tmp_path)
    assert 32 <= known < 400
    assert not (tmp_path / "out.npy").exists()
    assert embedded(paths) <= 400 - known
    assert not np.isnan(out(tmp_path, 400)).any()


def _known(folder: Path) -> int:
    found = list((folder / "cache").glob("*.sqlite"))
    if not found:
        return 0
    database = sqlite3.connect(f"file:{found[0]}?mode=ro", uri=True)
    try:
        return int(database.execute("SELECT count(*) FROM embedding").fetchone()[0])
    except sqlite3.OperationalError:  # not made yet
        return 0
    finally:
        database.close()


def test_texts_are_embedded_once_each_and_the_empty_one_is_nan(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "src")
    texts = [("1", "piscine"), ("2", ""), ("3", "roman"), ("4", "piscine")]
    assert embed_texts(texts, USE, tmp_path / "cache", tmp_path / "out.npy", "texts") == 3
    assert "texts: 2 to embed, 0 known" in caplog.text
    vectors = out(tmp_path, 4)
    assert np.isnan(vectors[1]).all()
    assert (vectors[0] == vectors[3]).all()
    assert (vectors[2] == text_encoder(USE).encode("roman")).all()


def test_no_encoder_means_no_numbers(tmp_path: Path) -> None:
    assert embed_texts([("1", "a")] * 3, "none", tmp_path, tmp_path / "out.npy", "texts") == 0
    assert embed_images([None] * 3, "none", tmp_path, tmp_path / "two.npy", "pictures") == 0
    assert read_embeddings(tmp_path / "out.npy", 3) is None


def test_no_pictures_at_all(tmp_path: Path) -> None:
    assert embed_images([None] * 3, LITE, tmp_path, tmp_path / "out.npy", "pictures") == 0
    assert np.isnan(out(tmp_path, 3)).all()


def test_embeddings_of_another_table_are_refused(tmp_path: Path) -> None:
    embed_texts([("1", "a"), ("2", "b")], USE, tmp_path, tmp_path / "out.npy", "texts")
    with pytest.raises(UserError, match="2 rows for a table of 3"):
        read_embeddings(tmp_path / "out.npy", 3)
    shutil.copy(tmp_path / "out.npy", tmp_path / "cut.npy")
    (tmp_path / "cut.npy").write_bytes((tmp_path / "out.npy").read_bytes()[:300])
    with pytest.raises(UserError, match="not what the features stage wrote"):
        read_embeddings(tmp_path / "cut.npy", 2)
    with pytest.raises(UserError, match="run `dvc repro`"):
        read_embeddings(tmp_path / "none.npy", 2)
