"""Tiny encoders as a user would plug them in: ONNX graphs whose embeddings are known."""

import numpy as np
from onnx import GraphProto, TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, pre_tokenizers

SIDE = 8  # pixels of the image encoder


def image_graph(rank: int) -> bytes:
    """An image encoder whose embedding is the mean of each channel, by an output of rank 2, 3 or 4."""
    name = {2: "pooled", 3: "tokens", 4: "map"}[rank]
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["pooled"], axes=[2, 3], keepdims=0),
        helper.make_node("Unsqueeze", ["pooled", "one"], ["tokens"]),
        helper.make_node("Identity", ["x"], ["map"]),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, SIDE, SIDE])]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None)]
    one = numpy_helper.from_array(np.array([1], dtype=np.int64), "one")
    return _serialize(helper.make_graph(nodes, "tiny", inputs, outputs, [one]))


def text_graph() -> bytes:
    """A text encoder of width 2: the mean of its tokens' rows of a table."""
    table = numpy_helper.from_array(np.array([[0, 0], [4, 0], [0, 1], [0, 3]], dtype=np.float32), "table")
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, [1, "tokens"])
        for name in ("input_ids", "attention_mask")
    ]
    nodes = [helper.make_node("Gather", ["table", "input_ids"], ["last_hidden_state"])]
    outputs = [helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, [1, "tokens", 2])]
    return _serialize(helper.make_graph(nodes, "tiny", inputs, outputs, [table]))


def score_graph() -> bytes:
    """A fine-tuned network of two classes for `word_tokenizer`: the sum of query (1, 0), a (0, 1) and b (0, 10)."""
    table = numpy_helper.from_array(np.array([[0, 0], [1, 0], [0, 1], [0, 10]], dtype=np.float32), "table")
    axis = numpy_helper.from_array(np.array([1], dtype=np.int64), "axis")
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["rows", "tokens"])
        for name in ("input_ids", "attention_mask")
    ]
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["states"]),
        helper.make_node("ReduceSum", ["states", "axis"], ["scores"], keepdims=0),
    ]
    outputs = [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["rows", 2])]
    return _serialize(helper.make_graph(nodes, "tiny", inputs, outputs, [table, axis]))


def pixel_graph() -> bytes:
    """A fine-tuned image network of three classes: the mean of each channel."""
    inputs = [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["rows", 3, SIDE, SIDE])]
    nodes = [
        helper.make_node("Cast", ["pixels"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["floats"], ["scores"], axes=[2, 3], keepdims=0),
    ]
    outputs = [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["rows", 3])]
    return _serialize(helper.make_graph(nodes, "tiny", inputs, outputs))


def word_tokenizer() -> str:
    """A tokenizer.json for `text_graph`, which knows the words query, a and b: [4, 0], [0, 1] and [0, 3]."""
    tokenizer = Tokenizer(models.WordLevel({"<unk>": 0, "query": 1, "a": 2, "b": 3}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return str(tokenizer.to_str())


def _serialize(graph: GraphProto) -> bytes:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())
