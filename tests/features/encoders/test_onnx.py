"""Encoders on onnxruntime: embeddings, fingerprints, and sessions."""

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rakuten.data.image_decoding import BadImageError
from rakuten.features.encoders import efficientnet_lite0, onnx, use_multilingual
from rakuten.features.encoders.onnx import ImageEncoder, OnnxTextEncoder, PackagedTextEncoder, make_session
from tests.support.onnx_graphs import SIDE, image_graph, text_graph, word_tokenizer
from tests.support.project import ROOT, environment

KNOWN = json.loads(Path(__file__).with_name("known_embeddings.json").read_text(encoding="utf-8"))


def png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture(scope="module")
def noise() -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (300, 200, 3), dtype=np.uint8)
    return png(Image.fromarray(pixels))


@pytest.fixture(scope="module")
def packaged_graph() -> bytes:
    return efficientnet_lite0.build()


@pytest.fixture(scope="module")
def packaged_text_encoder() -> PackagedTextEncoder:
    return PackagedTextEncoder()


@pytest.mark.parametrize("rank", [2, 3, 4])
@pytest.mark.parametrize(
    ("normalisation", "white"),
    [
        ("none", [255, 255, 255]),
        ("symmetric", [1, 1, 1]),
        ("imagenet", [(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225]),
        ("clip", [(1 - 0.48145466) / 0.26862954, (1 - 0.4578275) / 0.26130258, (1 - 0.40821073) / 0.27577711]),
    ],
)
def test_an_image_encoder_normalises_and_pools(rank: int, normalisation: str, white: list[float]) -> None:
    encoder = ImageEncoder(image_graph(rank), SIDE, normalisation)
    assert encoder.width == 3
    embedding = encoder.encode(png(Image.new("RGB", (50, 70), "white")))
    assert embedding.dtype == np.float16
    assert embedding == pytest.approx(white, rel=2e-3)


def test_bytes_that_are_no_image_are_refused() -> None:
    with pytest.raises(BadImageError):
        ImageEncoder(image_graph(2), SIDE, "none").encode(b"no image")


def test_all_cores_give_the_same_embedding(packaged_graph: bytes, noise: bytes) -> None:
    one, several = (
        ImageEncoder(packaged_graph, efficientnet_lite0.IMAGE_SIDE, "none", all_cores) for all_cores in (False, True)
    )
    assert one.fingerprint == several.fingerprint
    assert one.encode(noise).tobytes() == several.encode(noise).tobytes()


def test_the_packaged_image_encoder_keeps_its_fingerprint(packaged_graph: bytes) -> None:
    """Image caches and saved models of every version hold it."""
    encoder = ImageEncoder(packaged_graph, efficientnet_lite0.IMAGE_SIDE, "none")
    assert encoder.fingerprint == KNOWN["efficientnet-lite0"]["fingerprint"]


def test_a_fingerprint_depends_on_graph_size_and_normalisation() -> None:
    settings: list[tuple[bytes, int, str]] = [
        (image_graph(2), SIDE, "none"),
        (image_graph(4), SIDE, "none"),
        (image_graph(2), SIDE, "clip"),
    ]
    fingerprints = [ImageEncoder(*setting).fingerprint for setting in settings]
    assert len(set(fingerprints)) == 3
    assert ImageEncoder(*settings[0]).fingerprint == fingerprints[0]
    assert onnx.graph_fingerprint(b"graph", "8", "none") != onnx.graph_fingerprint(b"graph", "9", "none")


def test_the_versions_are_of_their_own_encoders(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new version of the packaged text encoder leaves the image caches valid, and the other way round."""
    text, image = PackagedTextEncoder.fingerprint, onnx.graph_fingerprint(b"graph", "8", "none")
    monkeypatch.setattr(onnx, "PREPROCESSING_VERSION", "next")
    assert onnx.graph_fingerprint(b"graph", "8", "none") != image
    assert onnx.packaged_text_fingerprint(onnx.PACKAGED_TEXT_VERSION) == text
    assert onnx.packaged_text_fingerprint("1") != text


def test_packaged_text_embeddings_equal_those_of_the_package(packaged_text_encoder: PackagedTextEncoder) -> None:
    """Within what float16 keeps of numbers up to about 0.2."""
    known = KNOWN["use-multilingual"]
    for text, first in zip(known["texts"], known["first"], strict=True):
        assert np.abs(packaged_text_encoder.encode(text)[:64].astype(float) - first).max() < 3e-4


def test_a_packaged_text_embedding_is_float16_of_unit_length(packaged_text_encoder: PackagedTextEncoder) -> None:
    embedding = packaged_text_encoder.encode("piscine gonflable")
    assert embedding.dtype == np.float16
    assert embedding.shape == (packaged_text_encoder.width,)
    assert np.linalg.norm(embedding.astype(float)) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("text", ["", " ", "\ud800", "日本語", "😀" * 300])
def test_any_text_has_a_packaged_embedding(packaged_text_encoder: PackagedTextEncoder, text: str) -> None:
    assert np.isfinite(packaged_text_encoder.encode(text)).all()


def test_the_packaged_fingerprint_depends_on_files_and_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    fingerprints = {onnx.packaged_text_fingerprint("2")}
    monkeypatch.setattr(use_multilingual, "MAX_TOKENS", 128)
    fingerprints.add(onnx.packaged_text_fingerprint("2"))
    monkeypatch.setattr(use_multilingual, "SHA256", {})
    fingerprints.add(onnx.packaged_text_fingerprint("2"))
    assert len(fingerprints) == 3


def test_a_text_encoder_of_the_user() -> None:
    encoder = OnnxTextEncoder(text_graph(), word_tokenizer(), tokens=4, prefix="query ")
    assert encoder.width == 2
    assert encoder.encode("a b").tolist() == pytest.approx([4 / 3, 4 / 3], rel=1e-3)


def test_a_text_encoder_of_the_user_cuts_long_texts() -> None:
    encoder = OnnxTextEncoder(text_graph(), word_tokenizer(), tokens=4, prefix="query ")
    assert encoder.encode("a b b b b b").tolist() == [1.0, 1.75]


def test_a_session_keeps_no_file_and_no_bytes_of_its_graph(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    graph = image_graph(2)
    session = make_session(graph)
    assert list(tmp_path.iterdir()) == []
    assert all(value != graph for value in vars(session).values())
    (embedding,) = session.run(None, {"x": np.ones((1, 3, SIDE, SIDE), dtype=np.float32)})
    assert embedding.tolist() == [[1, 1, 1]]


@pytest.mark.parametrize(("all_cores", "expected"), [(False, 1), (True, 7)])
def test_a_session_runs_on_one_thread_or_all_cores(
    monkeypatch: pytest.MonkeyPatch, all_cores: bool, expected: int
) -> None:
    monkeypatch.setattr(onnx, "cpu_count", lambda: 7)
    options = make_session(image_graph(2), all_cores).get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (expected, 1)


def test_a_graph_that_cannot_be_loaded_leaves_no_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(Exception, match="INVALID_PROTOBUF"):
        make_session(b"no graph")
    assert list(tmp_path.iterdir()) == []


def test_onnxruntime_keeps_no_number_for_this_machine_and_sends_no_events(tmp_path: Path) -> None:
    """It writes both into its cache as soon as it is imported, unless a continuous integration runs it."""
    home = environment(ROOT, HOME=str(tmp_path), XDG_CACHE_HOME=str(tmp_path), USERPROFILE=str(tmp_path))
    local = {
        name: value for name, value in home.items() if name not in ("CI", "GITHUB_ACTIONS", "ORT_DISABLE_TELEMETRY")
    }
    subprocess.run([sys.executable, "-c", "import rakuten, onnxruntime"], env=local, check=True, timeout=60)
    assert list(tmp_path.iterdir()) == []
