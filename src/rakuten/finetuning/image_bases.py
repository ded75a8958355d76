"""Pretrained image networks to fine-tune: from a package, from a folder, or from Hugging Face's hub.

Weights are read as safetensors only, and no code that comes with them is run. timm and torchvision, which define the
networks of a folder, are imported only for one.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from rakuten.errors import UserError
from rakuten.features.encoders.onnx import NORMALISATIONS
from rakuten.finetuning.bases import base_folder, first_line, weights_digest
from rakuten.finetuning.efficientnet_lite0 import WIDTH, efficientnet_lite0

LITE0 = "efficientnet-lite0"
CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"
INSTALL = "which is not installed: `pip install -e '.[finetune,timm]'`"


class ImageBase(NamedTuple):
    """A pretrained encoder of images."""

    encoder: nn.Module  # normalised pixels, rows x 3 x height x width, to rows x width
    width: int
    mean: Sequence[float]  # of each channel, subtracted from pixels of 0 to 1
    deviation: Sequence[float]  # by which they are divided

    def digest(self) -> str:
        """SHA-256 of the weights."""
        return weights_digest(self.encoder)


def load_image_base(name: str, revision: str | None, size: int) -> ImageBase:
    """The base that finetune.picture.base of params.yaml names.

    Args:
        name: LITE0, a folder in the format of timm or torchvision, or a name on Hugging Face's hub.
        revision: commit on the hub; needed for a name on the hub only.
        size: height and width of its input in pixels.

    Raises:
        UserError: it cannot be found or downloaded, or is not an image network that can be used.
    """
    if name == LITE0:
        return ImageBase(efficientnet_lite0(), WIDTH, (127 / 255,) * 3, (128 / 255,) * 3)
    folder = base_folder(name, revision, "finetune.picture")
    try:
        config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        architecture, library = str(config["architecture"]), str(config.get("library_name", "timm"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise UserError(
            f"finetune.picture.base: {folder}: has no {CONFIG_FILE} that names an architecture of timm or torchvision"
        ) from None
    if not (folder / WEIGHTS_FILE).is_file():
        raise UserError(f"finetune.picture.base: {folder}: has no {WEIGHTS_FILE}")
    try:
        if library == "torchvision":
            encoder, width = _torchvision(architecture, load_file(folder / WEIGHTS_FILE))
        else:
            encoder, width = _timm(folder, size)
        _check(encoder, width, size)
    except ModuleNotFoundError as error:
        raise UserError(f"finetune.picture.base: {folder}: needs {error.name}, {INSTALL}") from None
    except (RuntimeError, ValueError, TypeError, AssertionError, LookupError, SafetensorError, OSError) as error:
        raise UserError(f"finetune.picture.base: {folder}: cannot be opened ({first_line(error)})") from error
    pretrained: dict[str, Any] = config.get("pretrained_cfg", {})
    mean, deviation = NORMALISATIONS["imagenet"]
    return ImageBase(encoder, width, tuple(pretrained.get("mean", mean)), tuple(pretrained.get("std", deviation)))


def _timm(folder: Path, size: int) -> tuple[nn.Module, int]:
    import timm  # type: ignore[import-not-found,unused-ignore]

    name = f"local-dir:{folder}"  # of which timm takes the safetensors first
    try:
        encoder = timm.create_model(name, pretrained=True, num_classes=0, img_size=size)
    except TypeError:  # a network that takes any size
        encoder = timm.create_model(name, pretrained=True, num_classes=0)
    return encoder, int(encoder.num_features)


def _torchvision(architecture: str, weights: dict[str, torch.Tensor]) -> tuple[nn.Module, int]:
    import torchvision  # type: ignore[import-not-found,unused-ignore]

    network = torchvision.models.get_model(architecture, weights=None)
    network.load_state_dict(weights)
    name, classifier = [(n, m) for n, m in network.named_modules() if isinstance(m, nn.Linear)][-1]
    parent, _, child = name.rpartition(".")
    setattr(network.get_submodule(parent), child, nn.Identity())
    return network, classifier.in_features


def _check(encoder: nn.Module, width: int, size: int) -> None:
    with torch.inference_mode():
        found = encoder.eval()(torch.zeros(1, 3, size, size))
    if tuple(found.shape) != (1, width):
        raise ValueError(f"it gives {tuple(found.shape)} for one picture, not (1, {width})")
