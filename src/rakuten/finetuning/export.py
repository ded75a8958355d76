"""A trained text network as an ONNX graph that onnxruntime runs without torch, in floats or in 8-bit integers."""

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from scipy.special import softmax

from rakuten.errors import UserError
from rakuten.features.encoders.onnx import make_session
from rakuten.finetuning.text_network import TextNetwork
from rakuten.finetuning.trainer import Inputs

OPSET = 18
MAX_DIFFERENCE = 1e-3  # between the probabilities of torch and of the graph


def export_text_network(network: TextNetwork, path: Path) -> None:
    """Write the graph: input_ids and attention_mask, int64, rows x tokens, to `scores`, float32, rows x classes."""
    network = network.eval().cpu()
    ids = torch.ones(2, 8, dtype=torch.long)
    axes = {0: torch.export.Dim("rows"), 1: torch.export.Dim("tokens")}
    noisy = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript")]
    levels = [logger.level for logger in noisy]
    try:
        for logger in noisy:
            logger.setLevel(logging.ERROR)  # it warns of torchvision's absence
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what torch will deprecate in its own exporter
            program = torch.onnx.export(
                network,
                (ids, torch.ones_like(ids)),
                input_names=["input_ids", "attention_mask"],
                output_names=["scores"],
                dynamic_shapes=(axes, axes),
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
    finally:
        for logger, level in zip(noisy, levels, strict=True):
            logger.setLevel(level)
    assert program is not None
    program.save(path, external_data=False)


def check_graph(path: Path, network: TextNetwork, inputs: Sequence[Inputs]) -> None:
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
    """Write a graph with the weights of its matrix products and embeddings as 8-bit integers.

    Unsigned weights: signed ones overflow on processors without VNNI, so that scores would depend on the machine.
    """
    logger = logging.getLogger()
    level = logger.level
    try:
        logger.setLevel(logging.ERROR)  # it recommends a step that gains nothing here
        quantize_dynamic(source, target, weight_type=QuantType.QUInt8)
    finally:
        logger.setLevel(level)
