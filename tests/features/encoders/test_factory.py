"""The encoders that params.yaml selects, and the fingerprints that models are checked by."""

from pathlib import Path

import pytest

from rakuten.config import FeatureParams, ImageEncoderParams, TextEncoderParams
from rakuten.errors import UserError
from rakuten.features.encoders import efficientnet_lite0, onnx
from rakuten.features.encoders.factory import (
    current_fingerprint,
    encoder_fingerprints,
    image_encoder,
    text_encoder,
)
from rakuten.features.encoders.onnx import OnnxTextEncoder, PackagedTextEncoder
from rakuten.types import IMAGE, TEXT
from tests.support.onnx_graphs import SIDE, image_graph, text_graph, word_tokenizer


@pytest.fixture
def image_params(tmp_path: Path) -> ImageEncoderParams:
    (tmp_path / "image.onnx").write_bytes(image_graph(2))
    return ImageEncoderParams(path=str(tmp_path / "image.onnx"), size=SIDE, normalisation="none")


@pytest.fixture
def text_params(tmp_path: Path) -> TextEncoderParams:
    (tmp_path / "text.onnx").write_bytes(text_graph())
    (tmp_path / "tokenizer.json").write_text(word_tokenizer())
    path, tokenizer = tmp_path / "text.onnx", tmp_path / "tokenizer.json"
    return TextEncoderParams(path=str(path), tokenizer=str(tokenizer), tokens=4, prefix="query ")


def test_the_packaged_encoders_have_names() -> None:
    assert image_encoder("efficientnet-lite0").width == efficientnet_lite0.WIDTH
    assert isinstance(text_encoder("use-multilingual"), PackagedTextEncoder)


def test_an_encoder_is_created_once(image_params: ImageEncoderParams) -> None:
    assert image_encoder(image_params) is image_encoder(image_params)
    assert image_encoder(image_params) is not image_encoder(image_params, all_cores=True)


def test_an_image_encoder_of_the_user_has_its_settings(image_params: ImageEncoderParams) -> None:
    expected = onnx.ImageEncoder(image_graph(2), SIDE, "none").fingerprint
    assert image_encoder(image_params).fingerprint == expected
    assert image_encoder(image_params.model_copy(update={"normalisation": "clip"})).fingerprint != expected


def test_a_text_encoder_of_the_user_has_its_settings(text_params: TextEncoderParams) -> None:
    expected = OnnxTextEncoder(text_graph(), word_tokenizer(), 4, "query ").fingerprint
    assert text_encoder(text_params).fingerprint == expected
    assert text_encoder(text_params.model_copy(update={"tokens": 5})).fingerprint != expected


def test_a_file_that_cannot_be_read_is_an_error_for_the_user(
    image_params: ImageEncoderParams, text_params: TextEncoderParams
) -> None:
    missing = image_params.model_copy(update={"path": "no.onnx"})
    with pytest.raises(UserError, match=r"features\.image_encoder\.path: .*no\.onnx: cannot be read \(No such file"):
        image_encoder(missing)
    with pytest.raises(UserError, match=r"features\.text_encoder\.tokenizer: .*no\.json: cannot be read"):
        text_encoder(text_params.model_copy(update={"tokenizer": "no.json"}))


def test_a_graph_that_is_none_is_an_error_for_the_user(
    image_params: ImageEncoderParams, text_params: TextEncoderParams
) -> None:
    for path in (image_params.path, text_params.path):
        Path(path).write_bytes(b"no graph")
    with pytest.raises(UserError, match=r"image\.onnx: not an ONNX image encoder for 8 pixels"):
        image_encoder(image_params)
    with pytest.raises(UserError, match=r"text\.onnx, .*tokenizer\.json: not an ONNX text encoder"):
        text_encoder(text_params)


def test_a_graph_for_another_size_is_an_error_for_the_user(image_params: ImageEncoderParams) -> None:
    with pytest.raises(UserError, match="not an ONNX image encoder for 16 pixels"):
        image_encoder(image_params.model_copy(update={"size": 16}))


def test_fingerprints_are_by_view(image_params: ImageEncoderParams, text_params: TextEncoderParams) -> None:
    both = FeatureParams(lowercase=True, strip_accents=True, image_encoder=image_params, text_encoder=text_params)
    image, text = image_encoder(image_params).fingerprint, text_encoder(text_params).fingerprint
    assert encoder_fingerprints(both) == {TEXT: text, IMAGE: image}
    assert encoder_fingerprints(both.model_copy(update={"text_encoder": "none"})) == {IMAGE: image}
    assert encoder_fingerprints(both.model_copy(update={"text_encoder": "none", "image_encoder": "none"})) == {}


def test_models_of_the_first_text_encoder_can_be_used_with_todays() -> None:
    assert current_fingerprint(onnx.packaged_text_fingerprint("1")) == PackagedTextEncoder.fingerprint
    assert current_fingerprint(PackagedTextEncoder.fingerprint) == PackagedTextEncoder.fingerprint
    assert current_fingerprint("of another encoder") == "of another encoder"
