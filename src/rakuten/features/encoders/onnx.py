"""Encoders that run on onnxruntime: an image or a text in, an embedding out.

Every image and every text is encoded alone, so that its embedding does not depend on a batch: it is the same from the
cache, in training and in serving. Many are encoded by several processes with one thread each. An encoder of single
images, whose latency counts, may use all cores; its embeddings are the same to the byte.
"""

import hashlib
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from joblib import cpu_count
from numpy.typing import NDArray
from tokenizers import Tokenizer

from rakuten.features.encoders import use_multilingual
from rakuten.features.encoders.preprocessing import image_pixels
from rakuten.types import Embedding, Float32Array

# Mean and standard deviation of each channel, for pixels scaled to 0..1.
NORMALISATIONS = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "symmetric": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "none": ((0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255)),  # pixels stay 0..255
}

# Parts of the fingerprints. Raise a version when embeddings change although graph and settings do not, so that cached
# embeddings are not reused.
PREPROCESSING_VERSION = "1"  # `prepare_image`, `_pool`; of ImageEncoder and OnnxTextEncoder
PACKAGED_TEXT_VERSION = "2"  # of PackagedTextEncoder; version 1 was computed by numpy


class ImageEncoder:
    """Embeds image files.

    Attributes:
        fingerprint: SHA-256 of everything that the embeddings depend on.
        width: numbers in an embedding.
        size: height and width of its input in pixels.
    """

    def __init__(self, graph: bytes, size: int, normalisation: str, all_cores: bool = False) -> None:
        """
        Args:
            graph: a serialised ONNX model with one input, float32, 1 x 3 x size x size.
            size: height and width of the input in pixels.
            normalisation: key of NORMALISATIONS.
            all_cores: run each image on all cores instead of one thread.
        """
        self.fingerprint = graph_fingerprint(graph, str(size), normalisation)
        self._session = make_session(graph, all_cores)
        self.size = size
        mean, deviation = NORMALISATIONS[normalisation]
        self._shift = 255 * np.array(mean, dtype=np.float32)[:, None, None]
        self._scale = 255 * np.array(deviation, dtype=np.float32)[:, None, None]
        self.width = len(self.encode_pixels(np.zeros((3, size, size), dtype=np.uint8)))

    def encode(self, data: bytes) -> Embedding:
        """The embedding, float16, [width], of an image file's bytes.

        Raises:
            BadImageError: the bytes are not an image that can be used.
        """
        return self.encode_pixels(image_pixels(data, self.size))

    def encode_pixels(self, pixels: NDArray[np.uint8]) -> Embedding:
        """As `encode`, of an image's pixels from `image_pixels`."""
        inputs = {self._session.get_inputs()[0].name: ((pixels - self._shift) / self._scale)[None]}
        return _pool(self._session.run(None, inputs))


def packaged_text_fingerprint(version: str) -> str:
    """The fingerprint of PackagedTextEncoder in a version, see PACKAGED_TEXT_VERSION."""
    parts = f"{sorted(use_multilingual.SHA256.items())} {use_multilingual.MAX_TOKENS} {version}"
    return hashlib.sha256(parts.encode()).hexdigest()


class PackagedTextEncoder:
    """Embeds texts by the multilingual Universal Sentence Encoder of a PyPI package; see `use_multilingual`.

    Attributes as of `ImageEncoder`.
    """

    width = use_multilingual.WIDTH
    fingerprint = packaged_text_fingerprint(PACKAGED_TEXT_VERSION)

    def __init__(self) -> None:
        """
        Raises:
            UserError: the package is not installed, or one of its files is missing or has another SHA-256.
        """
        self._session = make_session(use_multilingual.build())
        self._tokenizer = use_multilingual.tokenizer()

    def encode(self, text: str) -> Embedding:
        """The embedding of a text, float16, [width], of unit length up to rounding. Any str is accepted."""
        ids = np.array(use_multilingual.token_ids(self._tokenizer, text), dtype=np.int64)
        return _pool(self._session.run(["embedding"], {"ids": ids}))


class OnnxTextEncoder:
    """Embeds texts by a user's own ONNX graph and tokenizer. Attributes as of `ImageEncoder`."""

    def __init__(self, graph: bytes, tokenizer: str, tokens: int, prefix: str) -> None:
        """
        Args:
            graph: a serialised ONNX model with inputs among input_ids, attention_mask and token_type_ids.
            tokenizer: content of a tokenizer.json.
            tokens: a text is cut to so many.
            prefix: put before each text.
        """
        self.fingerprint = graph_fingerprint(graph, tokenizer, str(tokens), prefix)
        self._session = make_session(graph)
        self._tokenizer = Tokenizer.from_str(tokenizer)
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(tokens)
        self._prefix = prefix
        self._input_names = {node.name for node in self._session.get_inputs()}
        self.width = len(self.encode("a"))

    def encode(self, text: str) -> Embedding:
        """The embedding of a text, float16, [width]."""
        ids = np.array([self._tokenizer.encode(self._prefix + text).ids], dtype=np.int64)
        inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        return _pool(self._session.run(None, {name: inputs[name] for name in self._input_names}))


def graph_fingerprint(graph: bytes, *settings: str) -> str:
    """SHA-256 of everything that an encoder's embeddings depend on: its graph, its preprocessing, its settings."""
    parts = [hashlib.sha256(graph).hexdigest(), PREPROCESSING_VERSION, *settings]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def make_session(
    graph: bytes, all_cores: bool = False, disabled_optimizers: Sequence[str] = ()
) -> onnxruntime.InferenceSession:
    """A session of a serialised ONNX model on the CPU.

    It is loaded from a temporary file, because a session that is made from bytes keeps them: 79 MB of the packaged
    text encoder.

    Args:
        all_cores: run an operator on all cores instead of one thread.
        disabled_optimizers: onnxruntime's changes to the graph that are not made.

    Raises:
        Exception: onnxruntime has a type for each reason why a graph cannot be loaded.
    """
    options = onnxruntime.SessionOptions()
    options.inter_op_num_threads = 1
    options.intra_op_num_threads = cpu_count() if all_cores else 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # waiting threads must not use a core
    options.log_severity_level = 3
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "encoder.onnx"
        path.write_bytes(graph)
        del graph
        return onnxruntime.InferenceSession(
            path, options, providers=["CPUExecutionProvider"], disabled_optimizers=list(disabled_optimizers)
        )


def _pool(outputs: list[Float32Array]) -> Embedding:
    """The embedding among a graph's outputs: the first of rank 2, else the first output averaged over tokens or pixels.

    Args:
        outputs: 1 x width, 1 x tokens x width, or 1 x channels x height x width.
    """
    output = next((array for array in outputs if array.ndim == 2), outputs[0])
    if output.ndim == 4:
        output = output.mean(axis=(2, 3))
    elif output.ndim == 3:
        output = output.mean(axis=1)
    embedding: Embedding = output[0].astype(np.float16)
    return embedding
