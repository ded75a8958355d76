"""Embeddings of many products: each content once, on all cores, through the cache, into a .npy file."""

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from joblib import Parallel, delayed
from joblib.externals.loky import get_reusable_executor
from numpy.typing import NDArray

from src.cli import progress
from src.data.pictures import BadPictureError, read
from src.errors import UserError
from src.features.cache import EmbeddingCache, Vector, open_cache
from src.features.encoders import NONE, ImageChoice, TextChoice, image_encoder, text_encoder

log = logging.getLogger(__name__)

C = TypeVar("C", Path, str)
Encoded = list[tuple[str, Vector | None]]  # content's digest, and its vector unless the content is bad

FILES = 1000  # read for their digest in one task
CONTENTS = 32  # embedded in one task: what a killed run loses
ROWS = 4096  # written at a time


def embed_pictures(paths: Sequence[Path | None], choice: ImageChoice, cache: Path, out: Path, what: str) -> int:
    """Write rows x width float16: row i is the embedding of picture i, NaN where there is none.

    Args:
        paths: one for each product, None for a product without picture.
        cache: folder of the embedding caches.
        out: the .npy file.
        what: named on the progress bar.

    Returns:
        How many rows have an embedding.
    """
    if choice == NONE:
        return _write_nothing(len(paths), out)
    encoder = image_encoder(choice)
    there = [path for path in paths if path is not None]
    tasks = (delayed(_digests)(part) for part in _cut(there, FILES))
    digests = iter([key for keys in Parallel(n_jobs=-1, return_as="generator")(tasks) for key in keys])
    keys = [next(digests) if path is not None else "" for path in paths]
    with open_cache(cache / f"pictures-{encoder.identity[:16]}.sqlite", encoder.width) as embeddings:
        _embed(keys, paths, embeddings, lambda part: delayed(_encode_pictures)(choice, part), what)
        written = _write(keys, embeddings, encoder.width, out)
    if lost := len(there) - written:
        log.warning("%s: %s changed since ingest read them, and count as missing; run ingest again", what, f"{lost:,}")
    return written


def embed_texts(texts: Sequence[str], choice: TextChoice, cache: Path, out: Path, what: str) -> int:
    """As `embed_pictures`, for texts; a row of NaN where the text is empty."""
    if choice == NONE:
        return _write_nothing(len(texts), out)
    encoder = text_encoder(choice)
    keys = [hashlib.sha256(text.encode()).hexdigest() if text else "" for text in texts]
    with open_cache(cache / f"texts-{encoder.identity[:16]}.sqlite", encoder.width) as embeddings:
        _embed(keys, texts, embeddings, lambda part: delayed(_encode_texts)(choice, part), what)
        return _write(keys, embeddings, encoder.width, out)


def _embed(
    keys: Sequence[str],
    contents: Sequence[C | None],
    cache: EmbeddingCache,
    task: Callable[[list[C]], Any],
    what: str,
) -> None:
    """Embed what the cache lacks, and keep each task's vectors as soon as they come."""
    by_key = {key: content for key, content in zip(keys, contents, strict=True) if key and content is not None}
    missing = cache.missing(by_key)
    log.info("%s: %s to embed, %s known", what, f"{len(missing):,}", f"{len(by_key) - len(missing):,}")
    if not missing:
        return
    # A loky worker that has grown by 300 MB since its first task is taken for a leak and replaced, with a
    # warning. Workers that begin with these tasks have the encoder from the first.
    get_reusable_executor().shutdown()
    parts = list(_cut([by_key[key] for key in missing], CONTENTS))
    workers = Parallel(n_jobs=-1 if len(parts) > 1 else 1, return_as="generator_unordered")
    for encoded in progress(
        workers(task(part) for part in parts), len(parts), f"embedding {what} (batches of {CONTENTS})"
    ):
        cache.put({key: vector for key, vector in encoded if vector is not None})


def _write_nothing(rows: int, out: Path) -> int:
    """Rows of no numbers: what stands for an encoder of "none"."""
    with out.open("wb") as stream:
        np.lib.format.write_array(stream, np.empty((rows, 0), dtype="<f2"), version=(1, 0))
    return 0


def _write(keys: Sequence[str], cache: EmbeddingCache, width: int, out: Path) -> int:
    written = 0
    with out.open("wb") as stream:
        header = {"descr": "<f2", "fortran_order": False, "shape": (len(keys), width)}
        np.lib.format.write_array_header_1_0(stream, header)
        for part in _cut(keys, ROWS):
            found = cache.find([key for key in part if key])
            rows = np.full((len(part), width), np.nan, dtype="<f2")
            for at, key in enumerate(part):
                if key in found:
                    rows[at] = found[key]
                    written += 1
            stream.write(rows.tobytes())
    return written


def read_embeddings(path: Path, rows: int) -> NDArray[np.float16] | None:
    """The embeddings that belong to a table of so many rows, read from disk as they are used; None without encoder.

    Raises:
        UserError: the file is missing, broken, or of another table.
    """
    try:
        vectors = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; run `dvc repro`, which makes it") from error
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path}: not what the features stage wrote ({error}); run `dvc repro`") from error
    if vectors.ndim != 2 or len(vectors) != rows:
        raise UserError(f"{path}: {len(vectors):,} rows for a table of {rows:,}; run `dvc repro`")
    return vectors if vectors.shape[1] else None


def _digests(paths: Sequence[Path]) -> list[str]:
    """Digest of each file; that of nothing for one that cannot be read."""
    found = []
    for path in paths:
        try:
            found.append(hashlib.sha256(read(path)).hexdigest())
        except BadPictureError:
            found.append("")
    return found


def _encode_pictures(choice: ImageChoice, paths: Sequence[Path]) -> Encoded:
    encoder, encoded = image_encoder(choice), []
    for path in paths:
        key = ""
        vector: Vector | None = None
        try:
            data = read(path)
            key = hashlib.sha256(data).hexdigest()
            vector = encoder.encode(data)
        except BadPictureError:
            pass
        encoded.append((key, vector))
    return encoded


def _encode_texts(choice: TextChoice, texts: Sequence[str]) -> Encoded:
    encoder = text_encoder(choice)
    return [(hashlib.sha256(text.encode()).hexdigest(), encoder.encode(text)) for text in texts]


def _cut(items: Sequence[Any], size: int) -> Iterator[Any]:
    return (items[at : at + size] for at in range(0, len(items), size))
