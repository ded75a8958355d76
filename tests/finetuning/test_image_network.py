from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from rakuten.disk_array import DiskArray
from rakuten.finetuning.image_bases import LITE0, ImageBase, load_image_base
from rakuten.finetuning.image_network import ImageExamples, ImageNetwork, augment, encoder_layers

FRAME = np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype(np.uint8)


def lite0(frozen_layers: int = 0) -> ImageNetwork:
    torch.manual_seed(0)
    return ImageNetwork(load_image_base(LITE0, None, 32), 3, frozen_layers)


def test_pixels_are_normalised_as_the_base_expects() -> None:
    base = ImageBase(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), 3, (0.5, 0.5, 0.5), (0.25, 0.5, 1.0))
    network = ImageNetwork(base, 3, 0).eval()
    with torch.no_grad():
        network.head.weight.copy_(torch.eye(3))
        scores = network(torch.full((1, 3, 4, 4), 255, dtype=torch.uint8))
    assert scores.tolist() == [[2.0, 1.0, 0.5]]


def test_training_leaves_the_means_and_variances_of_batch_norms_as_they_were() -> None:
    network = lite0().train()
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    network(torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)).sum().backward()
    assert all(torch.equal(before[name], buffer) for name, buffer in network.named_buffers())
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) == 49 and all(norm.weight.grad is not None for norm in norms)  # their gains are trained


@pytest.mark.parametrize("frozen_layers", [0, 1, 10, 18])
def test_what_is_frozen(frozen_layers: int) -> None:
    network = lite0(frozen_layers)
    assert len(encoder_layers(network.encoder)) == 18  # the stem, 16 blocks, and the head
    trained = [bool(layer) for layer in network.layers()]
    assert trained == [True] * (19 - frozen_layers) + [False] * frozen_layers + [False]
    assert {id(p) for layer in network.layers() for p in layer} == {
        id(p) for p in network.parameters() if p.requires_grad
    }


def test_augmentation_changes_an_image_but_not_its_size_and_depends_on_the_seed_alone() -> None:
    first, again, other = (augment(FRAME, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first.shape == FRAME.shape and first.dtype == np.uint8
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other) and not np.array_equal(first, FRAME)


def test_half_of_the_images_are_mirrored_and_crops_stay_inside() -> None:
    frame = np.zeros((32, 32, 3), dtype=np.uint8)
    frame[:, :16] = 200  # bright on the left
    augmented = [augment(frame, np.random.default_rng(seed)).mean(axis=(0, 2)) for seed in range(200)]
    mirrored = np.mean([columns[:4].mean() < columns[-4:].mean() for columns in augmented])
    assert 0.4 < mirrored < 0.6
    white = np.full((32, 32, 3), 255, dtype=np.uint8)
    darkest = min(augment(white, np.random.default_rng(seed)).min() for seed in range(50))
    assert darkest >= 0.8**2 * 255 - 2  # brightness and contrast alone: nothing from outside the image


def test_batches_are_augmented_in_training_only(tmp_path: Path) -> None:
    frames = DiskArray.full(tmp_path / "frames.npy", (4, 32 * 32 * 3), 0, np.uint8)
    frames[np.arange(4)] = np.stack([np.roll(FRAME, row, axis=0).ravel() for row in range(4)])
    examples = ImageExamples(frames, 32)
    rows = np.array([2, 0])
    plain, augmented, again = (examples.batch(rows, seed)["pixels"] for seed in (None, 5, 5))
    assert torch.equal(plain[1], torch.from_numpy(FRAME).permute(2, 0, 1))
    assert plain.shape == augmented.shape == (2, 3, 32, 32)
    assert torch.equal(augmented, again) and not torch.equal(plain, augmented)
    assert examples.lengths.tolist() == [1, 1, 1, 1]
