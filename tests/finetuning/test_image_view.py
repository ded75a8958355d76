"""The packaged EfficientNet-Lite0, fine-tuned for real on small images whose colour tells the class."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rakuten import files
from rakuten.config import FinetuneParams, PictureFinetuneParams
from rakuten.disk_array import DiskArray
from rakuten.errors import UserError
from rakuten.features.encoders.finetuned import NetworkFolder
from rakuten.features.encoders.finetuned_image import ImageInput
from rakuten.finetuning.cross_fit import FinetunedView, Labels, finetune_view
from rakuten.finetuning.image_view import ImageView, score_images, write_frames

COLOURS = ((200, 40, 40), (40, 160, 40), (40, 40, 200))
PARAMS = FinetuneParams(
    text="none",
    picture=PictureFinetuneParams(base="efficientnet-lite0", epochs=8, batch=8, size=32, learning_rate=3e-4),
    folds=2,
    device="cpu",
)
Y = np.arange(36) % 3


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path | None]:
    """An image for each of 36 products; two have none, one a broken one."""
    folder: Path = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    found: list[Path | None] = []
    for row, label in enumerate(Y.tolist()):
        noisy = np.clip(np.array(COLOURS[label]) + rng.integers(-30, 30, (40, 40, 3)), 0, 255).astype(np.uint8)
        path = folder / f"image_{row}_product_{row}.jpg"
        Image.fromarray(noisy).save(path)
        found.append(path)
    found[4] = found[5] = None
    (folder / "broken.jpg").write_bytes(b"not an image")
    found[6] = folder / "broken.jpg"
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("learnt")


def finetune(paths: list[Path | None], labels: Labels, folder: Path) -> FinetunedView:
    assert PARAMS.picture != "none"
    with ImageView(paths, PARAMS.picture, folder / "work") as view:
        return finetune_view(view, labels, PARAMS, 1, folder / "work", folder / "network")


@pytest.fixture(scope="module")
def view(paths: list[Path | None], folder: Path) -> FinetunedView:
    return finetune(paths, Labels(Y, 3, np.arange(36) // 3 % 2), folder)


def test_it_learns_what_the_images_show(view: FinetunedView, paths: list[Path | None], folder: Path) -> None:
    assert np.flatnonzero(np.isnan(view.scores).all(axis=1)).tolist() == [4, 5, 6]
    has_image = np.isfinite(view.scores).all(axis=1)
    assert (view.scores.argmax(axis=1) == Y)[has_image].mean() > 0.8
    assert view.measured.keys() == {"float32"} and view.precision == "float32"
    final = score_images(folder / "network", paths, "images")
    assert (final.argmax(axis=1) == Y)[has_image].mean() > 0.9
    assert np.isnan(final[[4, 5, 6]]).all()


def test_what_is_written_scores_an_image_file(view: FinetunedView, folder: Path, tmp_path: Path) -> None:
    network = NetworkFolder.of(folder / "network")
    Image.new("RGB", (60, 60), COLOURS[2]).save(tmp_path / "blue.png")
    assert network.image().scores([(tmp_path / "blue.png").read_bytes()]).argmax() == 2
    assert network.settings()["base"] == "efficientnet-lite0" and network.settings()["size"] == 32


def test_only_the_trained_networks_are_kept(view: FinetunedView, folder: Path) -> None:
    names = ["all-rows.safetensors", "without-fold-0.safetensors", "without-fold-1.safetensors"]
    assert sorted(path.name for path in (folder / "work").iterdir()) == names


@pytest.mark.slow
def test_the_same_settings_give_the_same_bytes(
    view: FinetunedView, paths: list[Path | None], folder: Path, tmp_path: Path
) -> None:
    again = finetune(paths, Labels(Y, 3, np.arange(36) // 3 % 2), tmp_path)
    assert again.scores.tobytes() == view.scores.tobytes()
    assert NetworkFolder.of(tmp_path / "network").sha256 == NetworkFolder.of(folder / "network").sha256


def test_frames_are_the_pixels_that_a_network_is_given_later(paths: list[Path | None], tmp_path: Path) -> None:
    image_input = ImageInput(32)
    mask = write_frames(paths, image_input, tmp_path / "frames.npy")
    assert np.flatnonzero(~mask).tolist() == [4, 5, 6]
    frames = DiskArray(tmp_path / "frames.npy")
    assert frames.shape == (36, 32 * 32 * 3)
    assert paths[7] is not None
    assert np.array_equal(
        frames[np.array([7])].reshape(32, 32, 3).transpose(2, 0, 1), image_input.pixels(paths[7].read_bytes())
    )
    assert (frames[np.array([4])] == 0).all()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_an_error_for_the_user(
    paths: list[Path | None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "full").symlink_to("/dev/full")
    monkeypatch.setattr(files, "partial_path", lambda _: tmp_path / "full")
    with pytest.raises(UserError, match=r"frames\.npy: the pixels of the pictures cannot be written .*take 0 MB: free"):
        write_frames(paths, ImageInput(32), tmp_path / "frames.npy")
    assert not (tmp_path / "frames.npy").exists()


def test_one_class_with_pictures_is_an_error_for_the_user(paths: list[Path | None], tmp_path: Path) -> None:
    mine: list[Path | None] = [path if label == 0 else None for path, label in zip(paths, Y, strict=True)]
    with pytest.raises(UserError, match=r"finetune\.picture: fewer than two classes have products with a picture"):
        finetune(mine, Labels(Y, 3, np.arange(36) // 3 % 2), tmp_path)
