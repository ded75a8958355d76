"""Image bases. Those of timm and torchvision are read for real where these are installed."""

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from rakuten.errors import UserError
from rakuten.finetuning.export import check_graph, export_image_network
from rakuten.finetuning.image_bases import LITE0, load_image_base
from rakuten.finetuning.image_network import ImageNetwork

needs_timm = pytest.mark.skipif(find_spec("timm") is None, reason="needs timm: `pip install -e '.[finetune,timm]'`")


def test_the_packaged_base() -> None:
    base = load_image_base(LITE0, None, 64)
    assert base.width == 1280
    assert base.digest() == load_image_base(LITE0, None, 96).digest()


def write_base(folder: Path, config: object, weights: dict[str, torch.Tensor] | None = None) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    if weights is not None:
        save_file({name: tensor.contiguous() for name, tensor in weights.items()}, folder / "model.safetensors")
    return folder


@needs_timm
@pytest.mark.parametrize(("architecture", "width"), [("resnet10t", 512), ("vit_tiny_patch16_224", 192)])
def test_a_folder_in_the_format_of_timm(architecture: str, width: int, tmp_path: Path) -> None:
    import timm

    torch.manual_seed(0)
    source = timm.create_model(architecture)
    timm.models.save_for_hf(source, tmp_path / "base", safe_serialization=True)
    base = load_image_base(str(tmp_path / "base"), None, 64)
    assert (base.width, base.mean, base.deviation) == (width, *(source.pretrained_cfg[key] for key in ("mean", "std")))
    trained = source.state_dict()
    same = [name for name, weight in base.encoder.named_parameters() if torch.equal(weight, trained[name])]
    assert len(same) >= len(list(base.encoder.named_parameters())) - 1  # positions are resized to 64 pixels
    check_export(ImageNetwork(base, 3, 1), 64, tmp_path)


@needs_timm
@pytest.mark.parametrize(("architecture", "width"), [("resnet18", 512), ("mobilenet_v3_small", 1024)])
def test_a_folder_with_the_weights_of_torchvision(architecture: str, width: int, tmp_path: Path) -> None:
    import torchvision

    torch.manual_seed(0)
    source = torchvision.models.get_model(architecture, weights=None)
    config = {"architecture": architecture, "library_name": "torchvision"}
    base = load_image_base(str(write_base(tmp_path / "base", config, source.state_dict())), None, 64)
    assert base.width == width
    assert base.mean == (0.485, 0.456, 0.406)
    check_export(ImageNetwork(base, 3, 2), 64, tmp_path)


def check_export(network: ImageNetwork, size: int, folder: Path) -> None:
    export_image_network(network, size, folder / "graph.onnx")
    rng = np.random.default_rng(0)
    pixels = [torch.from_numpy(rng.integers(0, 256, (rows, 3, size, size)).astype(np.uint8)) for rows in (1, 2)]
    check_graph(folder / "graph.onnx", network, [{"pixels": each} for each in pixels])


@pytest.mark.parametrize("config", [{}, [], {"model_type": "bert"}])
def test_a_folder_that_names_no_architecture(config: object, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"base: has no config\.json that names an architecture of timm or torchvision"):
        load_image_base(str(write_base(tmp_path / "base", config)), None, 64)


def test_a_folder_without_safetensors(tmp_path: Path) -> None:
    folder = write_base(tmp_path / "base", {"architecture": "resnet18"})
    (folder / "pytorch_model.bin").write_bytes(b"a pickle")
    with pytest.raises(UserError, match=r"base: has no model\.safetensors"):
        load_image_base(str(folder), None, 64)


@pytest.mark.skipif(find_spec("timm") is not None, reason="timm is installed")
@pytest.mark.parametrize(("library", "missing"), [("timm", "timm"), ("torchvision", "torchvision")])
def test_without_timm_the_error_says_what_to_install(library: str, missing: str, tmp_path: Path) -> None:
    config = {"architecture": "resnet18", "library_name": library}
    folder = write_base(tmp_path / "base", config, {"a": torch.zeros(1)})
    with pytest.raises(UserError, match=rf"needs {missing}, which is not installed: `pip install"):
        load_image_base(str(folder), None, 64)


@needs_timm
def test_weights_of_another_architecture(tmp_path: Path) -> None:
    config = {"architecture": "resnet18", "library_name": "torchvision"}
    folder = write_base(tmp_path / "base", config, {"a": torch.zeros(1)})
    with pytest.raises(UserError, match=r"finetune\.picture\.base: .*base: cannot be opened"):
        load_image_base(str(folder), None, 64)


def test_a_folder_that_is_not_there() -> None:
    with pytest.raises(UserError, match=r"finetune\.picture\.base: .*nowhere: no such folder"):
        load_image_base("nowhere", None, 64)


def test_a_name_on_the_hub_must_be_pinned() -> None:
    with pytest.raises(UserError, match=r"finetune\.picture\.revision: pin timm/resnet18\.a1_in1k to a commit"):
        load_image_base("timm/resnet18.a1_in1k", "main", 64)
