"""A pretrained image encoder with a layer on top that scores every class, and its inputs."""

from concurrent.futures import ThreadPoolExecutor
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageEnhance
from torch import nn

from rakuten.disk_array import DiskArray
from rakuten.finetuning.encoder_network import EncoderNetwork
from rakuten.finetuning.image_bases import ImageBase
from rakuten.finetuning.trainer import Inputs
from rakuten.types import IntArray

DROPOUT = 0.2  # before the new layer
MIN_AREA = 0.5  # share of an image that a random crop keeps
MAX_LOG_RATIO = 0.29  # of a crop's width to its height: from 3/4 to 4/3
MAX_CHANGE = 0.2  # of brightness, contrast and saturation
ENHANCERS = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)


class ImageNetwork(EncoderNetwork):
    """Scores of every class from the encoder's vector.

    The means and variances of batch norms stay those of the base: a batch then says nothing of its size, and a
    checkpoint needs only what is trained.
    """

    def __init__(self, base: ImageBase, n_classes: int, frozen_layers: int) -> None:
        """
        Args:
            frozen_layers: lowest layers of the encoder that are not trained.
        """
        encoder = base.encoder.to(memory_format=torch.channels_last)  # in which CPUs convolve eight times faster
        super().__init__(encoder, encoder_layers(encoder), base.width, n_classes)
        self.dropout = nn.Dropout(DROPOUT)
        for name, values in (("mean", base.mean), ("deviation", base.deviation)):
            self.register_buffer(name, 255 * torch.tensor(values, dtype=torch.float32)[:, None, None])
        self.freeze(frozen_layers)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Scores, rows x classes, of rows x 3 x height x width, uint8."""
        normalised = (pixels.float() - self.mean) / self.deviation
        hidden = self.encoder(normalised.contiguous(memory_format=torch.channels_last))
        scores: torch.Tensor = self.head(self.dropout(hidden))
        return scores

    def train(self, mode: bool = True) -> Self:
        """See `nn.Module.train`."""
        super().train(mode)
        for module in self.encoder.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self


def encoder_layers(encoder: nn.Module) -> list[nn.Module]:
    """The parts of an encoder that have parameters, the lowest first: its children, with those of sequences."""
    layers: list[nn.Module] = []
    for child in encoder.children():
        if isinstance(child, (nn.Sequential, nn.ModuleList)):
            layers += encoder_layers(child)
        elif any(True for _ in child.parameters()):
            layers.append(child)
    return layers


class ImageExamples:
    """The pixels of products' images, by row number.

    Attributes:
        lengths: 1 for each product: every image costs the same.
    """

    def __init__(self, frames: DiskArray, size: int) -> None:
        """
        Args:
            frames: rows x (size * size * 3), uint8: the pixels of each product's image, see `write_frames`.
            size: height and width of an image.
        """
        self._frames, self._shape = frames, (size, size, 3)
        self._threads = ThreadPoolExecutor()
        self.lengths: IntArray = np.ones(len(frames), dtype=np.int64)

    def batch(self, rows: IntArray, augmentation: int | None) -> Inputs:
        """See `Examples.batch`; images are augmented by `augment`."""
        frames = self._frames[rows].reshape(-1, *self._shape)
        if augmentation is not None:
            generators = [np.random.default_rng([augmentation, position]) for position in range(len(rows))]
            frames = np.stack(list(self._threads.map(augment, frames, generators)))
        return {"pixels": torch.from_numpy(np.ascontiguousarray(frames.transpose(0, 3, 1, 2)))}

    def describe(self, row: int) -> str:
        """See `Examples.describe`."""
        return f"one picture with a size of {self._shape[0]}"


def augment(frame: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """An image, height x width x 3, cropped at random, mirrored half of the time, and changed a little in colour."""
    height, width, _ = frame.shape
    share, ratio = rng.uniform(MIN_AREA, 1.0) ** 0.5, np.exp(rng.uniform(-MAX_LOG_RATIO, MAX_LOG_RATIO) / 2)
    crop_width, crop_height = width * min(1.0, share * ratio), height * min(1.0, share / ratio)
    left, top = rng.uniform(0, width - crop_width), rng.uniform(0, height - crop_height)
    box = (left, top, left + crop_width, top + crop_height)
    image = Image.fromarray(frame).resize((width, height), Image.Resampling.BILINEAR, box=box)
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    for enhancer in ENHANCERS:
        image = enhancer(image).enhance(rng.uniform(1 - MAX_CHANGE, 1 + MAX_CHANGE))
    return np.asarray(image)
