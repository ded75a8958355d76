"""Fine-tuned networks as they are applied, on graphs whose scores are known."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tokenizers import Tokenizer

from rakuten.errors import UserError
from rakuten.features.encoders import onnx
from rakuten.features.encoders.finetuned import NetworkFolder, read_networks, save_network, write_networks
from rakuten.features.encoders.finetuned_image import ImageInput
from rakuten.features.encoders.finetuned_text import cased_texts, text_input
from rakuten.types import FINETUNED_TEXT
from tests.support.onnx_graphs import pixel_graph, score_graph, word_tokenizer

FILES = ("network.onnx", "settings.json", "tokenizer.json")


@pytest.fixture
def network(tmp_path: Path) -> NetworkFolder:
    (tmp_path / "graph.onnx").write_bytes(score_graph())
    text = text_input(Tokenizer.from_str(word_tokenizer()), {"tokens": 6, "prefix": "query "})
    save_network(tmp_path / "networks" / "text", tmp_path / "graph.onnx", text, {"base": "tiny"})
    return NetworkFolder.of(tmp_path / "networks" / "text")


def test_title_and_description_are_scored_and_a_product_without_text_is_not(network: NetworkFolder) -> None:
    scores = network.text().scores([("a", "b"), ("", ""), ("", "b b"), ("a a", "")])
    assert scores.tolist()[0] == [1, 11] and scores.tolist()[2:] == [[1, 20], [1, 2]]
    assert np.isnan(scores[1]).all()


def test_long_texts_are_cut_but_title_and_description_both_stay(network: NetworkFolder) -> None:
    """Six tokens, query among them: three of the title and three of the description."""
    assert network.text().scores([("a a a a a", "b b b b b")]).tolist() == [[1, 2 + 30]]
    assert network.text().scores([("a", "b b b b b b")]).tolist() == [[1, 1 + 40]]


def test_the_scores_of_a_product_do_not_depend_on_the_others(network: NetworkFolder) -> None:
    texts = [("a", "b"), ("b b b", ""), ("a a", "a")]
    together = network.text().scores(texts)
    assert [network.text().scores([text])[0].tolist() for text in texts] == together.tolist()


@pytest.mark.parametrize(("all_cores", "expected"), [(False, 1), (True, 7)])
def test_a_network_runs_on_one_thread_or_all_cores(
    monkeypatch: pytest.MonkeyPatch, network: NetworkFolder, all_cores: bool, expected: int
) -> None:
    monkeypatch.setattr(onnx, "cpu_count", lambda: 7)
    options = network.text(all_cores)._session.get_session_options()
    assert options.intra_op_num_threads == expected


def test_the_settings_say_what_the_network_is(network: NetworkFolder) -> None:
    settings = network.settings()
    assert (settings["base"], settings["tokens"], settings["prefix"]) == ("tiny", 6, "query ")
    assert tuple(sorted(path.name for path in network.path.iterdir())) == FILES


@pytest.mark.parametrize("name", FILES)
def test_a_changed_file_is_refused(network: NetworkFolder, name: str) -> None:
    path = network.path / name
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(UserError, match=rf"{name}: .*(damaged|another network)"):
        network.open()


def test_a_missing_file(network: NetworkFolder) -> None:
    (network.path / "network.onnx").unlink()
    with pytest.raises(UserError, match=r"network\.onnx: no such file; run `dvc repro`"):
        network.open()


def test_the_networks_of_a_model_are_found_by_view(network: NetworkFolder) -> None:
    folder = network.path.parent
    assert read_networks(folder) == {}
    write_networks(folder, {FINETUNED_TEXT: "text"})
    assert read_networks(folder) == {FINETUNED_TEXT: network}
    assert json.loads((folder / "networks.json").read_text()) == {"fine-tuned text": "text"}


def test_texts_keep_their_case_and_accents() -> None:
    assert cased_texts("<b>Été</b> à Nice", "  Caf&eacute; ") == ("Été à Nice", "Café")


@pytest.fixture
def image_network(tmp_path: Path) -> NetworkFolder:
    (tmp_path / "graph.onnx").write_bytes(pixel_graph())
    save_network(tmp_path / "networks" / "picture", tmp_path / "graph.onnx", ImageInput(8), {"base": "tiny"})
    return NetworkFolder.of(tmp_path / "networks" / "picture")


def png(colour: tuple[int, int, int]) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (20, 20), colour).save(stream, "png")
    return stream.getvalue()


def test_images_are_scored_and_products_without_a_usable_one_are_not(image_network: NetworkFolder) -> None:
    scores = image_network.image().scores([png((10, 20, 30)), None, b"not an image", png((0, 0, 200))])
    assert scores.tolist()[0] == [10, 20, 30] and scores.tolist()[3] == [0, 0, 200]
    assert np.isnan(scores[1:3]).all()
    assert image_network.image().scores([]).shape == (0, 3)


def test_a_network_for_images_has_no_tokenizer(image_network: NetworkFolder) -> None:
    assert sorted(path.name for path in image_network.path.iterdir()) == ["network.onnx", "settings.json"]
    assert image_network.settings()["size"] == 8
