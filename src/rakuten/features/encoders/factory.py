"""The encoders that params.yaml names; one of each in a process."""

import hashlib
from functools import lru_cache
from typing import Protocol

import numpy as np
from threadpoolctl import ThreadpoolController

from rakuten.config import ROOT, FeatureParams, ImageEncoderParams, TextEncoderParams
from rakuten.errors import UserError
from rakuten.features.encoders import efficientnet_lite0, use_multilingual
from rakuten.features.encoders.onnx import PREPROCESSING_VERSION, ImageEncoder, OnnxTextEncoder
from rakuten.types import IMAGE, TEXT, Embedding

ImageEncoderConfig = str | ImageEncoderParams
TextEncoderConfig = str | TextEncoderParams

NO_ENCODER = "none"


class TextEncoder(Protocol):
    """Texts to embeddings. Two encoders of the same fingerprint give the same embeddings."""

    fingerprint: str
    width: int

    def encode(self, text: str) -> Embedding: ...


class PackagedTextEncoder:
    """The Universal Sentence Encoder that comes in a package."""

    width = use_multilingual.WIDTH
    fingerprint = hashlib.sha256(
        f"{sorted(use_multilingual.SHA256.items())} {use_multilingual.MAX_TOKENS} {PREPROCESSING_VERSION}".encode()
    ).hexdigest()

    def __init__(self) -> None:
        self._encoder = use_multilingual.UniversalSentenceEncoder()
        self._threads = ThreadpoolController()

    def encode(self, text: str) -> Embedding:
        with self._threads.limit(limits=1, user_api="blas"):
            return self._encoder.encode(text).astype(np.float16)


@lru_cache(maxsize=2)
def image_encoder(config: ImageEncoderConfig, all_cores: bool = False) -> ImageEncoder:
    """The encoder that features.image_encoder names; one of each in a process.

    Args:
        all_cores: for one image at a time; else one thread.

    Raises:
        UserError: a file is missing, or is not an ONNX graph that takes images of this size.
    """
    if config == "efficientnet-lite0":
        return ImageEncoder(efficientnet_lite0.build(), efficientnet_lite0.IMAGE_SIDE, "none", all_cores)
    assert isinstance(config, ImageEncoderParams)
    graph = _read_file(config.path, "features.image_encoder.path")
    try:
        return ImageEncoder(graph, config.size, config.normalisation, all_cores)
    except Exception as error:  # onnxruntime has a type of its own for each thing that can be wrong
        raise UserError(f"{config.path}: not an ONNX image encoder for {config.size} pixels ({error})") from error


@lru_cache(maxsize=2)
def text_encoder(config: TextEncoderConfig) -> TextEncoder:
    """As `image_encoder`, for features.text_encoder."""
    if config == "use-multilingual":
        return PackagedTextEncoder()
    assert isinstance(config, TextEncoderParams)
    graph = _read_file(config.path, "features.text_encoder.path")
    tokenizer = _read_file(config.tokenizer, "features.text_encoder.tokenizer").decode()
    try:
        return OnnxTextEncoder(graph, tokenizer, config.tokens, config.prefix)
    except Exception as error:
        raise UserError(f"{config.path}, {config.tokenizer}: not an ONNX text encoder ({error})") from error


def _read_file(path: str, what: str) -> bytes:
    try:
        return (ROOT / path).read_bytes()
    except OSError as error:
        raise UserError(f"{what}: {ROOT / path}: cannot be read ({error.strerror})") from error


def encoder_fingerprints(features: FeatureParams) -> dict[str, str]:
    """For each view that has an encoder, the fingerprint of the encoder."""
    fingerprints = {}
    if features.text_encoder != NO_ENCODER:
        fingerprints[TEXT] = text_encoder(features.text_encoder).fingerprint
    if features.image_encoder != NO_ENCODER:
        fingerprints[IMAGE] = image_encoder(features.image_encoder).fingerprint
    return fingerprints
