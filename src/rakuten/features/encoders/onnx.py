"""Encoders: a picture or a text in, a vector out.

A content is always encoded alone, so its vector depends on nothing but itself and the encoder: it
is the same from the cache, in training and in serving. Many are encoded by as many processes on one
thread each; where one picture is waited for, its encoder may use all cores, for the same bytes.
"""

import hashlib
from functools import lru_cache
from typing import Protocol

import numpy as np
import onnxruntime
from joblib import cpu_count
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController
from tokenizers import Tokenizer

from rakuten.config import ROOT, ImageEncoderParams, TextEncoderParams
from rakuten.data.images import decode
from rakuten.errors import UserError
from rakuten.features.embedding_cache import Vector
from rakuten.features.encoders import efficientnet_lite0, use_multilingual
from rakuten.features.encoders.preprocessing import prepare

ImageChoice = str | ImageEncoderParams
TextChoice = str | TextEncoderParams
Array = NDArray[np.float32]

NONE = "none"
# Mean and standard deviation of each channel, of pixels from 0 to 1.
NORMALISATIONS = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "symmetric": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "none": ((0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255)),  # pixels from 0 to 255 as they are
}
PREPARATION = "1"  # raised when `prepare` or the pooling changes: old vectors are then not taken for new


class ImageEncoder:
    """Pictures to vectors."""

    def __init__(self, graph: bytes, size: int, normalisation: str, all_cores: bool = False) -> None:
        self.identity = _identity(graph, str(size), normalisation)
        self._session = _session(graph, all_cores)
        self._size = size
        mean, deviation = NORMALISATIONS[normalisation]
        self._shift = 255 * np.array(mean, dtype=np.float32)[:, None, None]
        self._scale = 255 * np.array(deviation, dtype=np.float32)[:, None, None]
        self.width = len(self._run(np.zeros((3, size, size), dtype=np.uint8)))

    def encode(self, data: bytes) -> Vector:
        """Embedding of a picture file's bytes.

        Raises:
            BadPictureError: they are no usable picture.
        """
        return self._run(prepare(decode(data, at_least=2 * self._size), self._size))

    def _run(self, pixels: NDArray[np.uint8]) -> Vector:
        inputs = {self._session.get_inputs()[0].name: ((pixels - self._shift) / self._scale)[None]}
        return _pooled(self._session.run(None, inputs))


class TextEncoder(Protocol):
    """Texts to vectors; the identity tells whether two encoders give the same ones."""

    identity: str
    width: int

    def encode(self, text: str) -> Vector: ...


class PackagedTextEncoder:
    """The Universal Sentence Encoder that comes in a package."""

    width = use_multilingual.WIDTH
    identity = hashlib.sha256(
        f"{sorted(use_multilingual.SHA256.items())} {use_multilingual.TOKENS} {PREPARATION}".encode()
    ).hexdigest()

    def __init__(self) -> None:
        self._encoder = use_multilingual.UniversalSentenceEncoder()
        self._threads = ThreadpoolController()

    def encode(self, text: str) -> Vector:
        with self._threads.limit(limits=1, user_api="blas"):
            return self._encoder.encode(text).astype(np.float16)


class OnnxTextEncoder:
    """A user's own ONNX graph and tokenizer."""

    def __init__(self, graph: bytes, tokenizer: str, tokens: int, prefix: str) -> None:
        self.identity = _identity(graph, tokenizer, str(tokens), prefix)
        self._session = _session(graph)
        self._tokenizer = Tokenizer.from_str(tokenizer)
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(tokens)
        self._prefix = prefix
        self._inputs = {put.name for put in self._session.get_inputs()}
        self.width = len(self.encode("a"))

    def encode(self, text: str) -> Vector:
        ids = np.array([self._tokenizer.encode(self._prefix + text).ids], dtype=np.int64)
        given = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        return _pooled(self._session.run(None, {name: given[name] for name in self._inputs}))


@lru_cache(maxsize=2)
def image_encoder(choice: ImageChoice, all_cores: bool = False) -> ImageEncoder:
    """The encoder that features.image_encoder names; one of each in a process.

    Args:
        all_cores: for one picture at a time; else one thread.

    Raises:
        UserError: a file is missing or no ONNX graph that takes pictures of this size.
    """
    if choice == "efficientnet-lite0":
        return ImageEncoder(efficientnet_lite0.build(), efficientnet_lite0.SIZE, "none", all_cores)
    assert isinstance(choice, ImageEncoderParams)
    graph = _read(choice.path, "features.image_encoder.path")
    try:
        return ImageEncoder(graph, choice.size, choice.normalisation, all_cores)
    except Exception as error:  # onnxruntime has an exception of its own for each thing that can be wrong
        raise UserError(f"{choice.path}: not an ONNX image encoder for {choice.size} pixels ({error})") from error


@lru_cache(maxsize=2)
def text_encoder(choice: TextChoice) -> TextEncoder:
    """As `image_encoder`, for features.text_encoder."""
    if choice == "use-multilingual":
        return PackagedTextEncoder()
    assert isinstance(choice, TextEncoderParams)
    graph = _read(choice.path, "features.text_encoder.path")
    tokenizer = _read(choice.tokenizer, "features.text_encoder.tokenizer").decode()
    try:
        return OnnxTextEncoder(graph, tokenizer, choice.tokens, choice.prefix)
    except Exception as error:
        raise UserError(f"{choice.path}, {choice.tokenizer}: not an ONNX text encoder ({error})") from error


def _read(path: str, what: str) -> bytes:
    try:
        return (ROOT / path).read_bytes()
    except OSError as error:
        raise UserError(f"{what}: {ROOT / path}: cannot be read ({error.strerror})") from error


def _identity(graph: bytes, *settings: str) -> str:
    return hashlib.sha256("\n".join([hashlib.sha256(graph).hexdigest(), PREPARATION, *settings]).encode()).hexdigest()


def _session(graph: bytes, all_cores: bool = False) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.inter_op_num_threads = 1
    options.intra_op_num_threads = cpu_count() if all_cores else 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # waiting must not burn a core
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def _pooled(outputs: list[Array]) -> Vector:
    """A graph's vector: its first output of rank two, or else its first output averaged over tokens or places."""
    output = next((each for each in outputs if each.ndim == 2), outputs[0])
    if output.ndim == 4:  # 1 x channels x height x width
        output = output.mean(axis=(2, 3))
    elif output.ndim == 3:  # 1 x tokens x width
        output = output.mean(axis=1)
    vector: Vector = output[0].astype(np.float16)
    return vector
