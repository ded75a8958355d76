"""The encoders that params.yaml selects, each created once per process."""

from functools import lru_cache
from typing import Protocol

from rakuten.config import ROOT, FeatureParams, ImageEncoderParams, TextEncoderParams
from rakuten.errors import UserError
from rakuten.features.encoders import efficientnet_lite0
from rakuten.features.encoders.onnx import (
    ImageEncoder,
    OnnxTextEncoder,
    PackagedTextEncoder,
    packaged_text_fingerprint,
)
from rakuten.types import IMAGE, TEXT, Embedding

ImageEncoderConfig = str | ImageEncoderParams
TextEncoderConfig = str | TextEncoderParams

NO_ENCODER = "none"

# Fingerprint of an earlier version of an encoder -> of today's, whose embeddings differ in the last digit of float16
# only. A model that was trained on one can be used with the other.
_SUCCESSORS = {packaged_text_fingerprint("1"): PackagedTextEncoder.fingerprint}


class TextEncoder(Protocol):
    """Embeds texts. Two encoders with the same fingerprint give the same embeddings."""

    fingerprint: str
    width: int

    def encode(self, text: str) -> Embedding:
        """The embedding of a text, float16, [width]."""
        ...


@lru_cache(maxsize=2)
def image_encoder(config: ImageEncoderConfig, all_cores: bool = False) -> ImageEncoder:
    """The encoder that features.image_encoder of params.yaml selects. Calls with the same arguments share one.

    Args:
        config: features.image_encoder, not "none".
        all_cores: run each image on all cores, where the latency of one image counts; else on one thread.

    Raises:
        UserError: a file cannot be read, or is not an ONNX graph that takes images of this size.
    """
    if config == "efficientnet-lite0":
        return ImageEncoder(efficientnet_lite0.build(), efficientnet_lite0.IMAGE_SIDE, "none", all_cores)
    assert isinstance(config, ImageEncoderParams)
    graph = _read_file(config.path, "features.image_encoder.path")
    try:
        return ImageEncoder(graph, config.size, config.normalisation, all_cores)
    except Exception as error:  # onnxruntime has a type for each reason
        raise UserError(f"{config.path}: not an ONNX image encoder for {config.size} pixels ({error})") from error


@lru_cache(maxsize=2)
def text_encoder(config: TextEncoderConfig) -> TextEncoder:
    """The encoder that features.text_encoder of params.yaml selects. Calls with the same argument share one.

    Args:
        config: features.text_encoder, not "none".

    Raises:
        UserError: a file cannot be read, or is not an ONNX graph or a tokenizer that can be used.
    """
    if config == "use-multilingual":
        return PackagedTextEncoder()
    assert isinstance(config, TextEncoderParams)
    graph = _read_file(config.path, "features.text_encoder.path")
    tokenizer = _read_file(config.tokenizer, "features.text_encoder.tokenizer").decode()
    try:
        return OnnxTextEncoder(graph, tokenizer, config.tokens, config.prefix)
    except Exception as error:
        raise UserError(f"{config.path}, {config.tokenizer}: not an ONNX text encoder ({error})") from error


def _read_file(path: str, param: str) -> bytes:
    try:
        return (ROOT / path).read_bytes()
    except OSError as error:
        raise UserError(f"{param}: {ROOT / path}: cannot be read ({error.strerror})") from error


def encoder_fingerprints(features: FeatureParams) -> dict[str, str]:
    """For each view that has an encoder, the fingerprint of the encoder.

    Raises:
        UserError: see `image_encoder`.
    """
    fingerprints = {}
    if features.text_encoder != NO_ENCODER:
        fingerprints[TEXT] = text_encoder(features.text_encoder).fingerprint
    if features.image_encoder != NO_ENCODER:
        fingerprints[IMAGE] = image_encoder(features.image_encoder).fingerprint
    return fingerprints


def current_fingerprint(fingerprint: str) -> str:
    """The fingerprint of today's version of an encoder, if its embeddings are the same up to rounding; else the same.

    Models are checked by it; the embedding cache is not, so that cached embeddings of two versions are never mixed.
    """
    return _SUCCESSORS.get(fingerprint, fingerprint)
