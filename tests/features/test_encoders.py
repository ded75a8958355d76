"""Encoders: the packaged ones against known outputs, and a team's own ONNX plugged in."""

import hashlib
import io
import json
import pickle
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers

from rakuten.config import ImageEncoderParams, TextEncoderParams
from rakuten.data.images import BadImageError
from rakuten.errors import UserError
from rakuten.features.encoders import efficientnet_lite0, factory, use_multilingual
from rakuten.features.encoders.factory import image_encoder, text_encoder
from rakuten.features.encoders.preprocessing import content_box, prepare_image

KNOWN = json.loads(Path(__file__).with_name("known_embeddings.json").read_text(encoding="utf-8"))


def known_pictures() -> np.ndarray:
    """The recipe in known_embeddings.json."""
    noise = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3)).astype(np.uint8)
    y, x = np.mgrid[0:224, 0:224]
    gradient = np.stack([x * 255 // 223, y * 255 // 223, (x + y) * 255 // 446], -1).astype(np.uint8)
    disc = np.full((224, 224, 3), 255, np.uint8)
    disc[(x - 100) ** 2 + (y - 120) ** 2 < 70**2] = (200, 40, 90)
    return np.concatenate([noise, gradient[None], disc[None]])


def test_the_converted_picture_encoder_gives_what_the_original_gave() -> None:
    """Against the original weights run by their own code in torch: within 1e-4 of values up to about six."""
    pixels = known_pictures()
    known = KNOWN["efficientnet-lite0"]
    assert hashlib.sha256(pixels.tobytes()).hexdigest() == known["sha256_of_pixels"]
    session = onnxruntime.InferenceSession(efficientnet_lite0.build(), providers=["CPUExecutionProvider"])
    (roots,) = session.run(None, {"pixels": pixels.transpose(0, 3, 1, 2).astype(np.float32)})
    head, expansion = np.split(roots.astype(np.float64) ** 2, [1280], axis=1)
    for name, part in (("", head), ("expansion_", expansion)):
        assert np.abs(part[:, :64] - [image[f"{name}first"] for image in known["images"]]).max() < 1e-4
        assert np.linalg.norm(part, axis=1) == pytest.approx([image[f"{name}norm"] for image in known["images"]], 1e-5)


def test_the_conversion_is_the_same_bytes_each_time() -> None:
    """A change here changes every embedding's identity: known_embeddings.json must then be made anew."""
    assert hashlib.sha256(efficientnet_lite0.build()).hexdigest() == KNOWN["efficientnet-lite0"]["sha256_of_onnx"]


def test_the_packaged_text_encoder_gives_what_the_package_gives() -> None:
    """Within what float16 keeps of numbers up to about 0.2."""
    known = KNOWN["use-multilingual"]
    for text, first in zip(known["texts"], known["first"], strict=True):
        assert np.abs(text_encoder("use-multilingual").encode(text)[:64].astype(float) - first).max() < 3e-4


def test_text_is_cut_but_never_an_error() -> None:
    encoder = text_encoder("use-multilingual")
    long = "piscine gonflable " * 400
    assert (encoder.encode(long) == encoder.encode(long + "de jardin")).all()
    for text in (" ", "\ud800", "日本語", "😀" * 300):
        assert np.isfinite(encoder.encode(text)).all()


@pytest.mark.parametrize("module", [efficientnet_lite0, use_multilingual])
def test_altered_weights_are_refused(module: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before a byte of them is unpickled or decoded."""
    wrong = dict.fromkeys(use_multilingual.SHA256, "0" * 64) if module is use_multilingual else "0" * 64
    monkeypatch.setattr(module, "SHA256", wrong)
    with pytest.raises(UserError, match="install"):
        efficientnet_lite0.build() if module is efficientnet_lite0 else use_multilingual.UniversalSentenceEncoder()


def test_a_foreign_pickle_runs_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Foreign:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (tmp_path / "ran",))  # type: ignore[return-value]

    with pytest.raises(pickle.UnpicklingError, match="no place in a weights file"):
        efficientnet_lite0._Unpickler(io.BytesIO(pickle.dumps(Foreign()))).load()
    assert not (tmp_path / "ran").exists()


def white_png() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (50, 70), "white").save(stream, "PNG")
    return stream.getvalue()


def graph(path: Path, rank: int) -> str:
    """An ONNX encoder whose features are each channel's mean, then a constant; of rank 2, 3 or 4."""
    name = {2: "pooled", 3: "tokens", 4: "map"}[rank]
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["pooled"], axes=[2, 3], keepdims=0),
        helper.make_node("Unsqueeze", ["pooled", "one"], ["tokens"]),
        helper.make_node("Identity", ["x"], ["map"]),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 8, 8])]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None)]
    one = numpy_helper.from_array(np.array([1], dtype=np.int64), "one")
    body = helper.make_graph(nodes, "tiny", inputs, outputs, [one])
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return str(path)


@pytest.mark.parametrize("rank", [2, 3, 4])
@pytest.mark.parametrize(
    ("normalisation", "white"),
    [
        ("none", [255, 255, 255]),
        ("symmetric", [1, 1, 1]),
        ("imagenet", [(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225]),
    ],
)
def test_an_own_picture_encoder_in_three_lines(
    tmp_path: Path, rank: int, normalisation: str, white: list[float]
) -> None:
    choice = ImageEncoderParams.model_validate(
        {"path": graph(tmp_path / "own.onnx", rank), "size": 8, "normalisation": normalisation}
    )
    encoder = image_encoder(choice)
    assert encoder.width == 3
    assert encoder.encode(white_png()) == pytest.approx(white, rel=2e-3)
    with pytest.raises(BadImageError):
        encoder.encode(b"no picture")


def test_the_identity_is_that_of_graph_and_settings(tmp_path: Path) -> None:
    path = graph(tmp_path / "own.onnx", 2)

    def identity(**change: object) -> str:
        settings = {"path": path, "size": 8, "normalisation": "clip", **change}
        return factory.image_encoder.__wrapped__(ImageEncoderParams.model_validate(settings)).identity  # type: ignore[attr-defined, no-any-return]

    first = identity()
    assert identity() == first
    assert identity(normalisation="imagenet") != first
    graph(tmp_path / "own.onnx", 4)
    assert identity() != first


def test_an_own_text_encoder(tmp_path: Path) -> None:
    words = {"<unk>": 0, "query": 1, "a": 2, "b": 3}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    (tmp_path / "tokenizer.json").write_text(tokenizer.to_str())
    table = numpy_helper.from_array(np.array([[0, 0], [4, 0], [0, 1], [0, 3]], dtype=np.float32), "table")
    inputs = [
        helper.make_tensor_value_info(n, TensorProto.INT64, [1, "tokens"]) for n in ("input_ids", "attention_mask")
    ]
    nodes = [helper.make_node("Gather", ["table", "input_ids"], ["last_hidden_state"])]
    outputs = [helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, [1, "tokens", 2])]
    body = helper.make_graph(nodes, "tiny", inputs, outputs, [table])
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (tmp_path / "own.onnx").write_bytes(model.SerializeToString())
    choice = TextEncoderParams(
        path=str(tmp_path / "own.onnx"), tokenizer=str(tmp_path / "tokenizer.json"), tokens=4, prefix="query "
    )
    encoder = text_encoder(choice)
    assert encoder.encode("a b").tolist() == pytest.approx([4 / 3, 4 / 3], rel=1e-3)
    assert encoder.encode("a b b b b b").tolist() == [1.0, 1.75]  # cut after four tokens


def test_an_encoder_that_is_none_is_one_clear_line(tmp_path: Path) -> None:
    missing = ImageEncoderParams(path=str(tmp_path / "no.onnx"), size=8, normalisation="none")
    with pytest.raises(UserError, match=r"features\.image_encoder\.path: .*no\.onnx: cannot be read"):
        image_encoder(missing)
    (tmp_path / "bad.onnx").write_bytes(b"no graph")
    with pytest.raises(UserError, match=r"bad\.onnx: not an ONNX image encoder for 8 pixels"):
        image_encoder(missing.model_copy(update={"path": str(tmp_path / "bad.onnx")}))
    text = TextEncoderParams(path=str(tmp_path / "bad.onnx"), tokenizer=str(tmp_path / "bad.onnx"), tokens=8)
    with pytest.raises(UserError, match="not an ONNX text encoder"):
        text_encoder(text)


def test_pictures_are_cut_to_their_content_and_half_stretched() -> None:
    white = Image.new("RGB", (500, 500), "white")
    assert content_box(white) == (0, 0, 500, 500)
    white.paste((200, 0, 0), (100, 200, 500, 300))
    assert content_box(white) == (100, 200, 500, 300)
    pixels = prepare_image(white, 64)
    assert pixels.shape == (3, 64, 64)
    rows = np.flatnonzero((pixels[1] < 128).any(axis=1))
    columns = np.flatnonzero((pixels[1] < 128).any(axis=0))
    assert len(columns) == 64
    assert len(rows) == 32  # four to one has become two to one
    assert rows[0] == 16
    for size in ((1, 1), (1, 500), (3000, 2)):
        assert prepare_image(Image.new("RGB", size, "black"), 32).shape == (3, 32, 32)


def test_all_cores_give_the_same_bytes() -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (300, 200, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    one, all_cores = (image_encoder("efficientnet-lite0", all_cores=each) for each in (False, True))
    assert one.identity == all_cores.identity
    assert one.encode(stream.getvalue()).tobytes() == all_cores.encode(stream.getvalue()).tobytes()
