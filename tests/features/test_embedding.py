"""Embedding many products: what is computed, what is kept, and what a kill or a broken cache costs."""

import logging
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
from rakuten.features import embedding
from rakuten.features.embedding import embed_images, embed_texts, write_image_embeddings, write_text_embeddings
from rakuten.features.encoders import efficientnet_lite0
from rakuten.features.encoders.factory import image_encoder, text_encoder
from rakuten.features.feature_set import open_embeddings
from tests.support.project import ROOT, environment

LITE = "efficientnet-lite0"
USE = "use-multilingual"

Paths = list[Path | None]
Embed = Callable[..., int]


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    """Nine products: eight images, of which the first two have the same bytes, and one product without image."""
    images: Paths = []
    for number in range(8):
        path = tmp_path / f"{number}.jpg"
        Image.new("RGB", (300, 300), (30 * max(number, 1), 90, 200)).save(path)
        images.append(path)
    return [*images[:4], None, *images[4:]]


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "images.npy"


@pytest.fixture
def embed(tmp_path: Path, output: Path, caplog: pytest.LogCaptureFixture) -> Embed:
    """Writes the embeddings of images to `output`; returns how many were not in the cache."""
    caplog.set_level(logging.INFO, "rakuten")

    def run(paths: Paths, config: str | ImageEncoderParams = LITE) -> int:
        caplog.clear()
        write_image_embeddings(lambda: paths, len(paths), config, tmp_path / "cache", output, "images")
        (message,) = (record.message for record in caplog.records if "to embed" in record.message)
        return int(message.removeprefix("images: ").split()[0].replace(",", ""))

    return run


def test_each_row_has_the_embedding_of_its_own_image(paths: Paths, output: Path, embed: Embed) -> None:
    assert embed(paths) == 7  # two of the eight are the same image
    embeddings = np.load(output)
    assert embeddings.dtype == np.float16
    assert np.isnan(embeddings).all(axis=1).tolist() == [path is None for path in paths]
    for path, row in zip(paths, embeddings, strict=True):
        if path is not None:
            assert (row == image_encoder(LITE).encode(path.read_bytes())).all()


def test_the_number_of_embedded_rows_is_returned(paths: Paths, tmp_path: Path, output: Path) -> None:
    assert write_image_embeddings(lambda: paths, 9, LITE, tmp_path / "cache", output, "images") == 8


def test_what_is_cached_is_not_computed_again(paths: Paths, output: Path, embed: Embed) -> None:
    embed(paths)
    first = output.read_bytes()
    assert embed(paths) == 0
    assert output.read_bytes() == first
    assert embed(paths[::-1]) == 0


def test_only_new_and_changed_images_are_computed(paths: Paths, output: Path, embed: Embed) -> None:
    embed(paths)
    assert paths[3] is not None
    Image.new("RGB", (300, 300), "black").save(paths[3])
    assert embed([*paths, paths[0]]) == 1
    embeddings = np.load(output)
    assert (embeddings[9] == embeddings[0]).all()
    assert (embeddings[3] == image_encoder(LITE).encode(paths[3].read_bytes())).all()


def test_rows_line_up_over_chunks(paths: Paths, output: Path, embed: Embed, monkeypatch: pytest.MonkeyPatch) -> None:
    embed(paths)
    expected = output.read_bytes()
    monkeypatch.setattr(embedding, "CHUNK_ROWS", 2)
    embed(paths)
    assert output.read_bytes() == expected


def test_another_encoder_has_a_cache_of_its_own(paths: Paths, tmp_path: Path, embed: Embed) -> None:
    (tmp_path / "own.onnx").write_bytes(efficientnet_lite0.build())
    own = ImageEncoderParams(path=str(tmp_path / "own.onnx"), size=64, normalisation="none")
    embed(paths)
    assert embed(paths, own) == 7
    assert embed(paths) == 0


def test_a_broken_cache_is_replaced_with_the_same_result(
    paths: Paths, tmp_path: Path, output: Path, embed: Embed
) -> None:
    embed(paths)
    first = output.read_bytes()
    (cache,) = (tmp_path / "cache").glob("*.sqlite")
    cache.write_bytes(cache.read_bytes()[:5000])
    for leftover in (tmp_path / "cache").glob("*-wal"):
        leftover.unlink()
    assert embed(paths) == 7
    assert output.read_bytes() == first


def test_an_image_that_breaks_after_ingest_is_logged_and_counts_as_missing(
    paths: Paths, output: Path, embed: Embed, caplog: pytest.LogCaptureFixture
) -> None:
    assert paths[2] is not None and paths[5] is not None
    paths[2].write_bytes(b"gone bad")
    paths[5].unlink()
    embed(paths)
    assert "2 files changed since ingest read them" in caplog.text
    assert np.isnan(np.load(output)).all(axis=1).tolist() == [row in (2, 4, 5) for row in range(9)]


def test_contents_for_another_number_of_rows_are_an_error(paths: Paths, tmp_path: Path, output: Path) -> None:
    with pytest.raises(RuntimeError, match="9 contents for 8 rows"):
        write_image_embeddings(lambda: paths, 8, LITE, tmp_path / "cache", output, "images")
    assert not output.exists()


def test_products_without_images_are_all_nan(tmp_path: Path, output: Path, embed: Embed) -> None:
    assert embed([None] * 3) == 0
    assert np.load(output).shape == (3, efficientnet_lite0.WIDTH)
    assert np.isnan(np.load(output)).all()


def test_texts_are_embedded_once_each_and_an_empty_one_is_nan(
    tmp_path: Path, output: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "rakuten")
    texts = [("1", "piscine"), ("2", ""), ("3", "roman"), ("4", "piscine")]
    assert write_text_embeddings(lambda: texts, 4, USE, tmp_path / "cache", output, "texts") == 3
    assert "texts: 2 to embed, 0 cached" in caplog.text
    embeddings = np.load(output)
    assert np.isnan(embeddings[1]).all()
    assert (embeddings[0] == embeddings[3]).all()
    assert (embeddings[2] == text_encoder(USE).encode("roman")).all()


def test_embeddings_in_memory_are_those_of_the_file(paths: Paths, tmp_path: Path, output: Path, embed: Embed) -> None:
    embed(paths)
    in_memory = embed_images(paths, LITE, tmp_path / "cache", "images")
    assert in_memory is not None
    assert in_memory.tobytes() == np.load(output).tobytes()
    assert in_memory.dtype == np.float16


def test_texts_can_be_embedded_in_memory(tmp_path: Path) -> None:
    embeddings = embed_texts([("1", ""), ("2", "roman")], USE, tmp_path / "cache", "texts")
    assert embeddings is not None
    assert np.isnan(embeddings[0]).all()
    assert (embeddings[1] == text_encoder(USE).encode("roman")).all()


def test_nothing_to_embed_in_memory_has_the_width_of_the_encoder(tmp_path: Path) -> None:
    images, texts = embed_images([], LITE, tmp_path, "images"), embed_texts([], USE, tmp_path, "texts")
    assert images is not None and texts is not None
    assert images.shape == (0, efficientnet_lite0.WIDTH)
    assert texts.shape == (0, 512)


def test_no_encoder_means_no_embeddings(tmp_path: Path) -> None:
    texts, images = tmp_path / "texts.npy", tmp_path / "images.npy"
    assert write_text_embeddings(lambda: [("1", "a")] * 3, 3, "none", tmp_path, texts, "texts") == 0
    assert write_image_embeddings(lambda: [None] * 3, 3, "none", tmp_path, images, "images") == 0
    for path in (texts, images):
        assert np.load(path).shape == (3, 0)
        assert open_embeddings(path) is None
    assert embed_texts([("1", "a")], "none", tmp_path, "texts") is None
    assert embed_images([None], "none", tmp_path, "images") is None


def test_a_worker_with_another_encoder_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a worker has another encoder than this machine"):
        embedding._encode_text(USE, "another fingerprint", ("1", "roman"))


N_IMAGES = 200  # long enough to be killed in between
SCRIPT = """
import sys
from pathlib import Path
from rakuten.features.embedding import write_image_embeddings

folder = Path(sys.argv[1])
paths = [folder / f"{number}.jpg" for number in range(int(sys.argv[2]))]
output = folder / "images.npy"
write_image_embeddings(lambda: paths, len(paths), "efficientnet-lite0", folder / "cache", output, "images")
"""


@pytest.mark.heavy
def test_a_killed_run_continues_where_it_stopped(tmp_path: Path, output: Path, embed: Embed) -> None:
    paths: Paths = []
    rng = np.random.default_rng(0)
    for number in range(N_IMAGES):
        path = tmp_path / f"{number}.jpg"
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
        paths.append(path)
    command = [sys.executable, "-c", SCRIPT, str(tmp_path), str(N_IMAGES)]
    process = subprocess.Popen(command, env=environment(ROOT), start_new_session=True)
    deadline = time.monotonic() + 120
    while count_cached(tmp_path / "cache") < 32 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.kill()
    process.wait()
    n_cached = count_cached(tmp_path / "cache")
    assert 32 <= n_cached < N_IMAGES
    assert not output.exists()
    assert embed(paths) == N_IMAGES - n_cached
    assert not np.isnan(np.load(output)).any()


def count_cached(folder: Path) -> int:
    """The number of embeddings in the only cache of a folder; 0 without a cache."""
    files = list(folder.glob("*.sqlite"))
    if not files:
        return 0
    database = sqlite3.connect(f"file:{files[0]}?mode=ro", uri=True)
    try:
        return int(database.execute("SELECT count(*) FROM embedding").fetchone()[0])
    except sqlite3.OperationalError:  # the table is not there yet
        return 0
    finally:
        database.close()
