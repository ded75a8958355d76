"""Embeddings of products' texts and images.

Every distinct text or image is embedded once, in parallel, through the embedding cache. Contents are read as they are
needed, more than once, so that they need not be held: in memory is only a 32-byte SHA-256 of each row's content.
"""

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from rakuten.cli import progress
from rakuten.compute import parallel_map
from rakuten.data.images import BadImageError, read_image_bytes
from rakuten.disk_array import row_chunks
from rakuten.errors import UserError
from rakuten.features.embedding_cache import EmbeddingCache, open_cache
from rakuten.features.encoders.factory import (
    NO_ENCODER,
    ImageEncoderConfig,
    TextEncoderConfig,
    image_encoder,
    text_encoder,
)
from rakuten.types import Embedding, EmbeddingArray

log = logging.getLogger(__name__)

Content = TypeVar("Content")
Read = Callable[[], Iterable[Content]]  # reads one content for each row, from the first; called more than once
ProductText = tuple[str, str]  # productid, and the text to embed
EncodedContent = tuple[str, Embedding | None]  # hex digest, and the embedding unless the content cannot be used
DigestArray = NDArray[np.bytes_]  # SHA-256 of each row's content; b"" where there is none

DIGEST_CHUNK_FILES = 1000  # files hashed in one task
ENCODE_CHUNK = 32  # contents encoded in one task: what is lost with a killed process
CHUNK_ROWS = 4096  # looked up in the cache, and written, at a time
NO_CONTENT, UNREADABLE = bytes(32), b"\xff" * 32


class _Rows(NamedTuple):
    """The cache that has the embedding of every row's content, and by which digests."""

    digests: DigestArray
    cache: EmbeddingCache
    width: int

    def chunks(self) -> Iterator[EmbeddingArray]:
        """The embeddings, CHUNK_ROWS rows at a time; a row of NaN where there is none."""
        for rows in row_chunks(len(self.digests), CHUNK_ROWS):
            keys = _cache_keys(self.digests[rows])
            found = self.cache.find([key for key in keys if key])
            embeddings = np.full((len(keys), self.width), np.nan, dtype="<f2")
            for row, key in enumerate(keys):
                if key in found:
                    embeddings[row] = found[key]
            yield embeddings


def write_image_embeddings(
    read: Read[Path | None], n_rows: int, config: ImageEncoderConfig, cache: Path, output: Path, description: str
) -> int:
    """Write an array of n_rows x width float16: row i is the embedding of image i, NaN where there is none.

    Args:
        read: reads the path of each product's image, None for a product without image.
        cache: folder of the embedding caches.
        output: the .npy file; of width 0 where `config` is "none".
        description: what the progress bar says.

    Returns:
        How many rows have an embedding.
    """
    if config == NO_ENCODER:
        return _write_empty(n_rows, output)
    with _embedded_images(read, config, cache, description) as rows:
        return _write(rows, n_rows, output)


def write_text_embeddings(
    read: Read[ProductText], n_rows: int, config: TextEncoderConfig, cache: Path, output: Path, description: str
) -> int:
    """As `write_image_embeddings`, for texts; a row of NaN where the text is empty."""
    if config == NO_ENCODER:
        return _write_empty(n_rows, output)
    with _embedded_texts(read, config, cache, description) as rows:
        return _write(rows, n_rows, output)


def embed_images(
    paths: Sequence[Path | None], config: ImageEncoderConfig, cache: Path, description: str
) -> EmbeddingArray | None:
    """The embeddings of a few images in memory: rows x width; None where `config` is "none"."""
    if config == NO_ENCODER:
        return None
    with _embedded_images(lambda: paths, config, cache, description) as rows:
        return _together(rows)


def embed_texts(
    texts: Sequence[ProductText], config: TextEncoderConfig, cache: Path, description: str
) -> EmbeddingArray | None:
    """The embeddings of a few texts in memory: rows x width; None where `config` is "none"."""
    if config == NO_ENCODER:
        return None
    with _embedded_texts(lambda: texts, config, cache, description) as rows:
        return _together(rows)


@contextmanager
def _embedded_images(
    read: Read[Path | None], config: ImageEncoderConfig, cache: Path, description: str
) -> Iterator[_Rows]:
    encoder = image_encoder(config)
    digests = _collect_digests(parallel_map(_image_digest, read(), DIGEST_CHUNK_FILES))
    with open_cache(cache / f"pictures-{encoder.fingerprint[:16]}.sqlite", encoder.width) as embeddings:
        task = partial(_encode_image, config, encoder.fingerprint)
        _encode_missing(digests, read, embeddings, task, str, description)
        yield _Rows(digests, embeddings, encoder.width)


@contextmanager
def _embedded_texts(
    read: Read[ProductText], config: TextEncoderConfig, cache: Path, description: str
) -> Iterator[_Rows]:
    encoder = text_encoder(config)
    digests = _collect_digests(hashlib.sha256(text.encode()).digest() if text else NO_CONTENT for _, text in read())
    with open_cache(cache / f"texts-{encoder.fingerprint[:16]}.sqlite", encoder.width) as embeddings:
        task = partial(_encode_text, config, encoder.fingerprint)
        _encode_missing(digests, read, embeddings, task, _text_label, description)
        yield _Rows(digests, embeddings, encoder.width)


def _collect_digests(digests: Iterable[bytes]) -> DigestArray:
    buffer = bytearray()
    for digest in digests:
        buffer += digest
    # numpy takes zeros at the end for padding, so NO_CONTENT reads as b"". Between digests it changes no comparison.
    array: DigestArray = np.frombuffer(buffer, dtype="S32")
    return array


def _cache_keys(digests: DigestArray) -> list[str]:
    """The digests as keys of the cache, "" where there is no content."""
    return ["" if digest == b"" else digest.ljust(32, b"\0").hex() for digest in digests.tolist()]


def _encode_missing(
    digests: DigestArray,
    read: Read[Content],
    cache: EmbeddingCache,
    encode: Callable[[Content], EncodedContent],
    label: Callable[[Content], str],
    description: str,
) -> None:
    """Encode the contents that the cache lacks, each once, and cache them as soon as they come."""
    distinct, first_row = np.unique(digests, return_index=True)
    first_row = first_row[distinct != b""]
    is_missing = np.zeros(len(digests), dtype=bool)
    for chunk in row_chunks(len(first_row), CHUNK_ROWS):
        keys = _cache_keys(digests[first_row[chunk]])
        missing = set(cache.missing(keys))
        is_missing[first_row[chunk]] = [key in missing for key in keys]
    n_missing = int(is_missing.sum())
    log.info("%s: %s to embed, %s known", description, f"{n_missing:,}", f"{len(first_row) - n_missing:,}")
    if not n_missing:
        return
    contents = (content for content, missing in zip(read(), is_missing, strict=True) if missing)
    encoded = parallel_map(encode, contents, ENCODE_CHUNK, label, new_processes=True)
    buffer: dict[str, Embedding] = {}
    for key, embedding in progress(encoded, n_missing, f"embedding {description}"):
        if embedding is not None:
            buffer[key] = embedding
        if len(buffer) == ENCODE_CHUNK:
            cache.put(buffer)
            buffer.clear()
    cache.put(buffer)


def _write_empty(n_rows: int, output: Path) -> int:
    """Write rows of no numbers, which stand for the encoder "none"."""
    with output.open("wb") as stream:
        np.lib.format.write_array(stream, np.empty((n_rows, 0), dtype="<f2"), version=(1, 0))
    return 0


def _write(rows: _Rows, n_rows: int, output: Path) -> int:
    if len(rows.digests) != n_rows:
        raise RuntimeError(f"{len(rows.digests)} contents for {n_rows} rows")
    written = 0
    with output.open("wb") as stream:
        header = {"descr": "<f2", "fortran_order": False, "shape": (n_rows, rows.width)}
        np.lib.format.write_array_header_1_0(stream, header)
        for chunk in rows.chunks():
            stream.write(chunk.tobytes())
            written += int((~np.isnan(chunk[:, 0])).sum())
    if lost := int((rows.digests != b"").sum()) - written:
        log.warning("%s: %s files changed since ingest read them and count as missing; run ingest", output, f"{lost:,}")
    return written


def _together(rows: _Rows) -> EmbeddingArray:
    return np.concatenate([np.empty((0, rows.width), dtype="<f2"), *rows.chunks()])


def _image_digest(path: Path | None) -> bytes:
    """SHA-256 of a file's content."""
    if path is None:
        return NO_CONTENT
    try:
        return hashlib.sha256(read_image_bytes(path)).digest()
    except BadImageError:
        return UNREADABLE


def _encode_image(config: ImageEncoderConfig, fingerprint: str, path: Path | None) -> EncodedContent:
    assert path is not None  # it has a digest
    encoder = image_encoder(config)
    _check_fingerprint(encoder.fingerprint, fingerprint)
    try:
        data = read_image_bytes(path)
        return hashlib.sha256(data).hexdigest(), encoder.encode(data)
    except BadImageError:
        return "", None


def _encode_text(config: TextEncoderConfig, fingerprint: str, text: ProductText) -> EncodedContent:
    encoder = text_encoder(config)
    _check_fingerprint(encoder.fingerprint, fingerprint)
    return hashlib.sha256(text[1].encode()).hexdigest(), encoder.encode(text[1])


def _text_label(text: ProductText) -> str:
    return f"the text of product {text[0]}"


def _check_fingerprint(fingerprint: str, expected: str) -> None:
    if fingerprint != expected:
        raise UserError("a worker's encoder is not this machine's: put the same file into data/encoders of both")
