"""Embeddings of many products: each content once, on all workers, through the cache, into a .npy file.

Contents are read as they are needed, more than once, and never held together: of each row only its
content's digest is.
"""

import hashlib
import logging
import mmap
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from rakuten.cli import progress
from rakuten.compute.parallel import each
from rakuten.data.images import BadPictureError, read
from rakuten.errors import UserError
from rakuten.features.embedding_cache import EmbeddingCache, Vector, open_cache
from rakuten.features.encoders.onnx import NONE, ImageChoice, TextChoice, image_encoder, text_encoder

log = logging.getLogger(__name__)

T = TypeVar("T", covariant=True)
C = TypeVar("C")
V = TypeVar("V", bound=np.floating[Any])
Text = tuple[str, str]  # productid, and what its encoder reads
Encoded = tuple[str, Vector | None]  # content's digest, and its vector unless the content is bad
Digests = NDArray[np.bytes_]  # SHA-256 of each row's content; NOTHING where there is none

FILES = 1000  # read for their digest in one task
CONTENTS = 32  # embedded in one task: what a killed process loses
ROWS = 4096  # written at a time
NOTHING, UNREADABLE = bytes(32), b"\xff" * 32


class Rows(Protocol[T]):
    """Something of each product, in order, which can be gone through more than once: a list will do."""

    def __iter__(self) -> Iterator[T]: ...

    def __len__(self) -> int: ...


class Reread(Rows[T]):
    """Rows that are read anew each time."""

    def __init__(self, read: Callable[[], Iterable[T]], rows: int) -> None:
        self._read = read
        self._rows = rows

    def __iter__(self) -> Iterator[T]:
        return iter(self._read())

    def __len__(self) -> int:
        return self._rows


def embed_pictures(paths: Rows[Path | None], choice: ImageChoice, cache: Path, out: Path, what: str) -> int:
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
    keys = _together(each(_digest, paths, FILES), len(paths))
    with open_cache(cache / f"pictures-{encoder.identity[:16]}.sqlite", encoder.width) as embeddings:
        _embed(keys, paths, embeddings, partial(_encode_picture, choice, encoder.identity), str, what)
        written = _write(keys, embeddings, encoder.width, out)
    if lost := int((keys != b"").sum()) - written:
        log.warning("%s: %s changed since ingest read them, and count as missing; run ingest again", what, f"{lost:,}")
    return written


def embed_texts(texts: Rows[Text], choice: TextChoice, cache: Path, out: Path, what: str) -> int:
    """As `embed_pictures`, for texts; a row of NaN where the text is empty."""
    if choice == NONE:
        return _write_nothing(len(texts), out)
    encoder = text_encoder(choice)
    digests = (hashlib.sha256(text.encode()).digest() if text else NOTHING for _, text in texts)
    keys = _together(digests, len(texts))
    with open_cache(cache / f"texts-{encoder.identity[:16]}.sqlite", encoder.width) as embeddings:
        _embed(keys, texts, embeddings, partial(_encode_text, choice, encoder.identity), _named, what)
        return _write(keys, embeddings, encoder.width, out)


def _together(digests: Iterable[bytes], rows: int) -> Digests:
    held = bytearray()
    for digest in digests:
        held += digest
    # numpy takes zeros at the end for padding, which changes no comparison between digests of one length.
    keys: Digests = np.frombuffer(held, dtype="S32")
    if len(keys) != rows:
        raise RuntimeError(f"{len(keys)} contents for {rows} rows")
    return keys


def _hex(keys: Digests) -> list[str]:
    """The digests as the cache has them, "" for nothing."""
    return ["" if key == b"" else key.ljust(32, b"\0").hex() for key in keys.tolist()]


def _embed(
    keys: Digests,
    contents: Rows[C],
    cache: EmbeddingCache,
    task: Callable[[C], Encoded],
    name: Callable[[C], str],
    what: str,
) -> None:
    """Embed what the cache lacks, each content once, and keep vectors as soon as they come."""
    wanted, first = np.unique(keys, return_index=True)
    first = first[wanted != b""]
    unknown = np.zeros(len(keys), dtype=bool)
    for at in range(0, len(first), ROWS):
        rows = first[at : at + ROWS]
        asked = _hex(keys[rows])
        lacking = set(cache.missing(asked))
        unknown[rows] = [key in lacking for key in asked]
    missing = int(unknown.sum())
    log.info("%s: %s to embed, %s known", what, f"{missing:,}", f"{len(first) - missing:,}")
    if not missing:
        return
    new = (content for content, lacking in zip(contents, unknown, strict=True) if lacking)
    done: dict[str, Vector] = {}
    for key, vector in progress(each(task, new, CONTENTS, name, fresh=True), missing, f"embedding {what}"):
        if vector is not None:
            done[key] = vector
        if len(done) == CONTENTS:
            cache.put(done)
            done.clear()
    cache.put(done)


def _write_nothing(rows: int, out: Path) -> int:
    """Rows of no numbers: what stands for an encoder of "none"."""
    with out.open("wb") as stream:
        np.lib.format.write_array(stream, np.empty((rows, 0), dtype="<f2"), version=(1, 0))
    return 0


def _write(keys: Digests, cache: EmbeddingCache, width: int, out: Path) -> int:
    written = 0
    with out.open("wb") as stream:
        header = {"descr": "<f2", "fortran_order": False, "shape": (len(keys), width)}
        np.lib.format.write_array_header_1_0(stream, header)
        for start in range(0, len(keys), ROWS):
            part = _hex(keys[start : start + ROWS])
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


def release(array: NDArray[Any]) -> None:
    """Let go of the pages of a memory-mapped array that were read; they come back from disk when asked for."""
    if isinstance(array.base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        array.base.madvise(mmap.MADV_DONTNEED)


def pick(vectors: NDArray[V], rows: NDArray[np.int64]) -> NDArray[V]:
    """Some rows of an array that may be a mapped one, of which no more is held meanwhile."""
    found = np.empty((len(rows), vectors.shape[1]), dtype=vectors.dtype)
    for at in range(0, len(rows), ROWS):
        found[at : at + ROWS] = vectors[rows[at : at + ROWS]]
        release(vectors)
    return found


def _digest(path: Path | None) -> bytes:
    """Digest of a file's content."""
    if path is None:
        return NOTHING
    try:
        return hashlib.sha256(read(path)).digest()
    except BadPictureError:
        return UNREADABLE


def _encode_picture(choice: ImageChoice, identity: str, path: Path | None) -> Encoded:
    assert path is not None  # it has a digest
    encoder = image_encoder(choice)
    _check(encoder.identity, identity)
    try:
        data = read(path)
        return hashlib.sha256(data).hexdigest(), encoder.encode(data)
    except BadPictureError:
        return "", None


def _encode_text(choice: TextChoice, identity: str, text: Text) -> Encoded:
    encoder = text_encoder(choice)
    _check(encoder.identity, identity)
    return hashlib.sha256(text[1].encode()).hexdigest(), encoder.encode(text[1])


def _named(text: Text) -> str:
    return f"the text of product {text[0]}"


def _check(identity: str, expected: str) -> None:
    if identity != expected:
        raise UserError("a worker's encoder is not this machine's: bring the same file to data/encoders of both")
