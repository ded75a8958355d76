"""A trained network as an ONNX graph that onnxruntime runs without torch, in floats or with integers for weights."""

import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer
from scipy.special import softmax

from rakuten.errors import UserError
from rakuten.features.encoders.onnx import make_session
from rakuten.finetuning.trainer import Inputs, Network

FLOAT, INT8 = "float32", "int8"
OPSET = 21
MAX_DIFFERENCE = 1e-3  # between the probabilities of torch and of the graph
# Bits of a weight, and how many weights share a scale. Embeddings of tokens are most of the weights and vary little.
MATRIX_BITS, MATRIX_BLOCK = 8, 128
EMBEDDING_BITS, EMBEDDING_BLOCK = 4, 32


def export_text_network(network: Network, path: Path) -> None:
    """Write the graph: input_ids and attention_mask, int64, rows x tokens, to `scores`, float32, rows x classes."""
    ids = torch.ones(2, 8, dtype=torch.long)
    axes = {0: torch.export.Dim("rows"), 1: torch.export.Dim("tokens")}
    _export(network, {"input_ids": ids, "attention_mask": torch.ones_like(ids)}, axes, path)


def export_image_network(network: Network, size: int, path: Path) -> None:
    """Write the graph: pixels, uint8, rows x 3 x size x size, to `scores`, float32, rows x classes."""
    pixels = torch.zeros(2, 3, size, size, dtype=torch.uint8)
    _export(network, {"pixels": pixels}, {0: torch.export.Dim("rows")}, path)


def _export(network: Network, inputs: Inputs, axes: Mapping[int, Any], path: Path) -> None:
    """Write a graph whose inputs all have the same dynamic axes."""
    network = network.eval().cpu()
    noisy = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in noisy]
    try:
        for logger in noisy:
            logger.setLevel(logging.ERROR)  # it warns of torchvision's absence
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what torch will deprecate in its own exporter
            program = torch.onnx.export(
                network,
                tuple(inputs.values()),
                input_names=list(inputs),
                output_names=["scores"],
                dynamic_shapes=tuple(axes for _ in inputs),
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
    finally:
        for logger, level in zip(noisy, levels, strict=True):
            logger.setLevel(level)
    assert program is not None
    program.save(path, external_data=False)


def check_graph(path: Path, network: Network, inputs: Sequence[Inputs]) -> None:
    """Raise UserError unless the graph gives the probabilities that torch gives."""
    session = make_session(path.read_bytes())
    with torch.inference_mode():
        for tensors in inputs:
            expected = network.eval().cpu()(**tensors).numpy()
            found = session.run(None, {name: tensor.numpy() for name, tensor in tensors.items()})[0]
            difference = np.abs(softmax(found, axis=1) - softmax(expected, axis=1)).max()
            if not difference <= MAX_DIFFERENCE:
                raise UserError(
                    f"the ONNX graph of the network differs from torch's by {difference:.4f} in a probability"
                )


def quantize(source: Path, target: Path) -> None:
    """Write a text graph with its weights as integers, in blocks with a scale each.

    Matrices have MATRIX_BITS bits, and onnxruntime also makes integers of what they are multiplied with, block by
    block; embeddings of tokens have EMBEDDING_BITS. `quantize_dynamic`, with one scale for each column of a matrix and
    one for all that it is multiplied with, takes half the time but changes scores five times as much.
    """
    logger = logging.getLogger("onnxruntime.quantization")
    level = logger.level
    try:
        logger.setLevel(logging.ERROR)  # it reports every node
        model = onnx.load(source)
        for operator, bits, block in (
            ("MatMul", MATRIX_BITS, MATRIX_BLOCK),
            ("Gather", EMBEDDING_BITS, EMBEDDING_BLOCK),
        ):
            quantizer = MatMulNBitsQuantizer(
                model,
                bits=bits,
                block_size=block,
                is_symmetric=True,
                accuracy_level=4,  # multiply 8-bit integers
                op_types_to_quantize=(operator,),
                quant_axes=(("MatMul", 0), ("Gather", 1)),
            )
            with np.errstate(invalid="ignore"):  # it divides blocks of zeros, such as a padding token's, by zero
                quantizer.process()
            model = quantizer.model.model
        target.write_bytes(model.SerializeToString(deterministic=True))
    finally:
        logger.setLevel(level)
