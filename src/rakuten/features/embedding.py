"""Embeddings of products' texts and images.

Every distinct text or image is embedded once, in parallel, and kept in the embedding cache. Contents are read twice,
once to hash them and once to embed them, so that memory holds only a 32-byte SHA-256 per row.
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
from rakuten.data.image_decoding import BadImageError
from rakuten.data.images import read_image_bytes
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
Read = Callable[[], Iterable[Content]]  # reads one content for each row, from the first row; called more than once
ProductText = tuple[str, str]  # productid, and the text to embed
EncodedContent = tuple[str, Embedding | None]  # hex digest and embedding; ("", None) if the content cannot be used
DigestArray = NDArray[np.bytes_]  # SHA-256 of each row's content; b"" where there is none

DIGEST_CHUNK_FILES = 1000  # files hashed in one task
ENCODE_CHUNK = 32  # contents encoded in one task, and written to the cache together: what a killed process loses
CHUNK_ROWS = 4096  # rows looked up in the cache, and written, at a time
NO_CONTENT, UNREADABLE = bytes(32), b"\xff" * 32


class _CachedEmbeddings(NamedTuple):
    """Embeddings of all rows, in the cache.

    Attributes:
        digests: keys of the embeddings, one for each row.
        cache: holds the embedding of every content that could be encoded.
        width: numbers in an embedding.
    """

    digests: DigestArray
    cache: EmbeddingCache
    width: int

    def chunks(self) -> Iterator[EmbeddingArray]:
        """The embeddings, CHUNK_ROWS rows at a time; a row of NaN where there is none."""
        for rows in row_chunks(len(self.digests), CHUNK_ROWS):
            keys = _cache_keys(self.digests[rows])
            cached = self.cache.find([key for key in keys if key])
            embeddings = np.full((len(keys), self.width), np.nan, dtype="<f2")
            for row, key in enumerate(keys):
                if key in cached:
                    embeddings[row] = cached[key]
            yield embeddings


def write_image_embeddings(
    read: Read[Path | None], n_rows: int, config: ImageEncoderConfig, cache: Path, output: Path, description: str
) -> int:
    """Write an array of n_rows x width float16: row i is the embedding of image i, NaN where there is none.

    Args:
        read: reads the path of each product's image, None for a product without image.
        n_rows: number of products.
        config: features.image_encoder of params.yaml.
        cache: folder of the embedding caches.
        output: the .npy file; its width is 0 if `config` is "none".
        description: of the images, in the log and on the progress bar.

    Returns:
        Number of rows that have an embedding.

    Raises:
        UserError: see `factory.image_encoder`; or a worker has another encoder, or is killed by an image.
    """
    if config == NO_ENCODER:
        return _write_empty(n_rows, output)
    with _embedded_images(read, config, cache, description) as embeddings:
        return _write(embeddings, n_rows, output)


def write_text_embeddings(
    read: Read[ProductText], n_rows: int, config: TextEncoderConfig, cache: Path, output: Path, description: str
) -> int:
    """As `write_image_embeddings`, for texts; a row is NaN if the text is empty."""
    if config == NO_ENCODER:
        return _write_empty(n_rows, output)
    with _embedded_texts(read, config, cache, description) as embeddings:
        return _write(embeddings, n_rows, output)


def embed_images(
    paths: Sequence[Path | None], config: ImageEncoderConfig, cache: Path, description: str
) -> EmbeddingArray | None:
    """As `write_image_embeddings`, in memory: rows x width, float16; None if `config` is "none"."""
    if config == NO_ENCODER:
        return None
    with _embedded_images(lambda: paths, config, cache, description) as embeddings:
        return _load(embeddings)


def embed_texts(
    texts: Sequence[ProductText], config: TextEncoderConfig, cache: Path, description: str
) -> EmbeddingArray | None:
    """As `write_text_embeddings`, in memory: rows x width, float16; None if `config` is "none"."""
    if config == NO_ENCODER:
        return None
    with _embedded_texts(lambda: texts, config, cache, description) as embeddings:
        return _load(embeddings)


@contextmanager
def _embedded_images(
    read: Read[Path | None], config: ImageEncoderConfig, cache: Path, description: str
) -> Iterator[_CachedEmbeddings]:
    encoder = image_encoder(config)
    digests = _collect_digests(parallel_map(_image_digest, read(), DIGEST_CHUNK_FILES))
    with open_cache(cache / f"pictures-{encoder.fingerprint[:16]}.sqlite", encoder.width) as embedding_cache:
        encode = partial(_encode_image, config, encoder.fingerprint)
        _encode_missing(digests, read, embedding_cache, encode, str, description)
        yield _CachedEmbeddings(digests, embedding_cache, encoder.width)


@contextmanager
def _embedded_texts(
    read: Read[ProductText], config: TextEncoderConfig, cache: Path, description: str
) -> Iterator[_CachedEmbeddings]:
    encoder = text_encoder(config)
    digests = _collect_digests(hashlib.sha256(text.encode()).digest() if text else NO_CONTENT for _, text in read())
    with open_cache(cache / f"texts-{encoder.fingerprint[:16]}.sqlite", encoder.width) as embedding_cache:
        encode = partial(_encode_text, config, encoder.fingerprint)
        _encode_missing(digests, read, embedding_cache, encode, _text_label, description)
        yield _CachedEmbeddings(digests, embedding_cache, encoder.width)


def _collect_digests(digests: Iterable[bytes]) -> DigestArray:
    buffer = bytearray()
    for digest in digests:
        buffer += digest
    # numpy drops trailing zero bytes of each item: NO_CONTENT becomes b"", and digests compare as before.
    array: DigestArray = np.frombuffer(buffer, dtype="S32")
    return array


def _cache_keys(digests: DigestArray) -> list[str]:
    """The digests as keys of the cache; "" for a row without content."""
    return ["" if digest == b"" else digest.ljust(32, b"\0").hex() for digest in digests.tolist()]


def _encode_missing(
    digests: DigestArray,
    read: Read[Content],
    cache: EmbeddingCache,
    encode: Callable[[Content], EncodedContent],
    label: Callable[[Content], str],
    description: str,
) -> None:
    """Encode each distinct content that is not in the cache, and add its embedding to the cache.

    Args:
        digests: one for each row.
        read: reads the contents of the same rows.
        encode: task for `parallel_map`.
        label: names a content in an error.
        description: of the contents, for the log.
    """
    distinct, first_row = np.unique(digests, return_index=True)
    first_row = first_row[distinct != b""]
    is_missing = np.zeros(len(digests), dtype=bool)
    for chunk in row_chunks(len(first_row), CHUNK_ROWS):
        keys = _cache_keys(digests[first_row[chunk]])
        missing = set(cache.missing(keys))
        is_missing[first_row[chunk]] = [key in missing for key in keys]
    n_missing = int(is_missing.sum())
    log.info("%s: %s to embed, %s cached", description, f"{n_missing:,}", f"{len(first_row) - n_missing:,}")
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
    """Write an array of n_rows x 0, which stands for the encoder "none"."""
    with output.open("wb") as stream:
        np.lib.format.write_array(stream, np.empty((n_rows, 0), dtype="<f2"), version=(1, 0))
    return 0


def _write(embeddings: _CachedEmbeddings, n_rows: int, output: Path) -> int:
    """Write a .npy file in chunks and return the number of rows that are not NaN."""
    if len(embeddings.digests) != n_rows:
        raise RuntimeError(f"{len(embeddings.digests)} contents for {n_rows} rows")
    n_written = 0
    with output.open("wb") as stream:
        header = {"descr": "<f2", "fortran_order": False, "shape": (n_rows, embeddings.width)}
        np.lib.format.write_array_header_1_0(stream, header)
        for chunk in embeddings.chunks():
            stream.write(chunk.tobytes())
            n_written += int((~np.isnan(chunk[:, 0])).sum())
    if n_failed := int((embeddings.digests != b"").sum()) - n_written:
        log.warning(
            "%s: %s files changed since ingest read them and count as missing; run ingest", output, f"{n_failed:,}"
        )
    return n_written


def _load(embeddings: _CachedEmbeddings) -> EmbeddingArray:
    return np.concatenate([np.empty((0, embeddings.width), dtype="<f2"), *embeddings.chunks()])


def _image_digest(path: Path | None) -> bytes:
    """SHA-256 of a file's content; NO_CONTENT without a file, UNREADABLE if it cannot be read."""
    if path is None:
        return NO_CONTENT
    try:
        return hashlib.sha256(read_image_bytes(path)).digest()
    except BadImageError:
        return UNREADABLE


def _encode_image(config: ImageEncoderConfig, fingerprint: str, path: Path | None) -> EncodedContent:
    assert path is not None  # only contents that have a digest are encoded
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
        raise UserError("a worker has another encoder than this machine: use the same file in data/encoders on both")
