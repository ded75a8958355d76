"""EfficientNet-Lite0 as a torch network with its packaged weights; see `features.encoders.efficientnet_lite0`."""

import torch
from torch import nn
from torch.nn import functional

from rakuten.features.encoders.efficientnet_lite0 import EPSILON, STAGES, Array, read_weights

WIDTH = 1280  # of the head


class _Convolution(nn.Module):
    """A convolution with TensorFlow's SAME padding for even input sizes, its batch norm, and ReLU6 if `relu`."""

    def __init__(self, kernel: Array, norm: dict[str, Array], stride: int = 1, relu: bool = True) -> None:
        super().__init__()
        outputs, inputs, size, _ = kernel.shape
        groups = outputs if inputs == 1 else 1
        before, after = (size - stride) // 2, (size - stride + 1) // 2
        self._padding = [before, after] * 2 if before != after else []  # where the convolution cannot pad itself
        padding = before if before == after else 0
        self.convolution = nn.Conv2d(inputs * groups, outputs, size, stride, padding, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(outputs, eps=EPSILON)
        self._relu = relu
        self.convolution.load_state_dict({"weight": torch.from_numpy(kernel)})
        self.norm.load_state_dict({name: torch.from_numpy(array) for name, array in norm.items()}, strict=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.convolution(functional.pad(x, self._padding) if self._padding else x))
        return functional.relu6(x) if self._relu else x


class _Block(nn.Module):
    """Expansion, depthwise convolution, projection; the input is added where it has the shape of the output."""

    def __init__(self, layers: list[nn.Module], adds_input: bool) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)
        self._adds_input = adds_input

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.layers(x)
        return x + y if self._adds_input else y


def efficientnet_lite0() -> nn.Sequential:
    """The pretrained network from normalised pixels, rows x 3 x height x width, to rows x WIDTH.

    Raises:
        UserError: as `read_weights`.
    """
    weights = read_weights()

    def convolution(layer: str, norm: str, stride: int = 1, relu: bool = True) -> nn.Module:
        names = ("weight", "bias", "running_mean", "running_var")
        return _Convolution(weights[f"{layer}.weight"], {n: weights[f"{norm}.{n}"] for n in names}, stride, relu)

    parts: list[nn.Module] = [convolution("_conv_stem", "_bn0", stride=2)]
    channels = 32
    for repeats, stage_stride, expansion, channels_out in STAGES:
        for repeat in range(repeats):
            block, stride = f"_blocks.{len(parts) - 1}", stage_stride if repeat == 0 else 1
            layers = [convolution(f"{block}._expand_conv", f"{block}._bn0")] if expansion > 1 else []
            layers.append(convolution(f"{block}._depthwise_conv", f"{block}._bn1", stride))
            layers.append(convolution(f"{block}._project_conv", f"{block}._bn2", relu=False))
            parts.append(_Block(layers, stride == 1 and channels == channels_out))
            channels = channels_out
    head = convolution("_conv_head", "_bn1")
    return nn.Sequential(*parts, head, nn.AdaptiveAvgPool2d(1), nn.Flatten())
