"""Encoders as ONNX graphs: an image or a text in, an embedding out.

A content is always encoded alone, so that its embedding depends on nothing else: it is the same from the cache, in
training and in serving. Many contents are encoded by several processes on one thread each. Where a single image is
waited for, its encoder may use all cores, for the same bytes.
"""

import hashlib

import numpy as np
import onnxruntime
from joblib import cpu_count
from numpy.typing import NDArray
from tokenizers import Tokenizer

from rakuten.data.images import decode
from rakuten.features.encoders.preprocessing import prepare_image
from rakuten.types import Embedding

FloatArray32 = NDArray[np.float32]

# Mean and standard deviation of each channel, of pixels from 0 to 1.
NORMALISATIONS = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "symmetric": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "none": ((0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255)),  # pixels from 0 to 255 as they are
}
PREPROCESSING_VERSION = "1"  # raise it when `prepare_image` or the pooling changes, so that old embeddings are not used


class ImageEncoder:
    """Image files to embeddings."""

    def __init__(self, graph: bytes, size: int, normalisation: str, all_cores: bool = False) -> None:
        self.fingerprint = graph_fingerprint(graph, str(size), normalisation)
        self._session = make_session(graph, all_cores)
        self._size = size
        mean, deviation = NORMALISATIONS[normalisation]
        self._shift = 255 * np.array(mean, dtype=np.float32)[:, None, None]
        self._scale = 255 * np.array(deviation, dtype=np.float32)[:, None, None]
        self.width = len(self._run(np.zeros((3, size, size), dtype=np.uint8)))

    def encode(self, data: bytes) -> Embedding:
        """The embedding (width, float16) of an image file's bytes.

        Raises:
            BadImageError: they are not an image that can be used.
        """
        return self._run(prepare_image(decode(data, min_side=2 * self._size), self._size))

    def _run(self, pixels: NDArray[np.uint8]) -> Embedding:
        inputs = {self._session.get_inputs()[0].name: ((pixels - self._shift) / self._scale)[None]}
        return _pool(self._session.run(None, inputs))


class OnnxTextEncoder:
    """Texts to embeddings by a user's own ONNX graph and tokenizer."""

    def __init__(self, graph: bytes, tokenizer: str, tokens: int, prefix: str) -> None:
        self.fingerprint = graph_fingerprint(graph, tokenizer, str(tokens), prefix)
        self._session = make_session(graph)
        self._tokenizer = Tokenizer.from_str(tokenizer)
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(tokens)
        self._prefix = prefix
        self._inputs = {put.name for put in self._session.get_inputs()}
        self.width = len(self.encode("a"))

    def encode(self, text: str) -> Embedding:
        """The embedding (width, float16) of a text."""
        ids = np.array([self._tokenizer.encode(self._prefix + text).ids], dtype=np.int64)
        inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        return _pool(self._session.run(None, {name: inputs[name] for name in self._inputs}))


def graph_fingerprint(graph: bytes, *settings: str) -> str:
    """SHA-256 of all that an encoder's embeddings depend on: its graph, its preprocessing, its settings."""
    parts = [hashlib.sha256(graph).hexdigest(), PREPROCESSING_VERSION, *settings]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def make_session(graph: bytes, all_cores: bool = False) -> onnxruntime.InferenceSession:
    """A session on one thread, or on all cores."""
    options = onnxruntime.SessionOptions()
    options.inter_op_num_threads = 1
    options.intra_op_num_threads = cpu_count() if all_cores else 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # waiting threads must not use a core
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def _pool(outputs: list[FloatArray32]) -> Embedding:
    """The embedding among a graph's outputs: the first of rank two, or else the first, averaged over tokens or pixels."""
    output = next((array for array in outputs if array.ndim == 2), outputs[0])
    if output.ndim == 4:  # 1 x channels x height x width
        output = output.mean(axis=(2, 3))
    elif output.ndim == 3:  # 1 x tokens x width
        output = output.mean(axis=1)
    embedding: Embedding = output[0].astype(np.float16)
    return embedding
