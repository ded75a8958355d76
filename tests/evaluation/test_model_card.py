from typing import Any

import pytest

from rakuten.config import ImageEncoderParams, Params
from rakuten.evaluation.model_card import model_card
from rakuten.types import IMAGE, TEXT

ENCODERS = {TEXT: "aaa", IMAGE: "bbb"}
DIGESTS = {"data/processed/train_features.csv": "0123", "/home/me/train_texts.npy": "4567"}


@pytest.fixture(scope="module")
def card(scores: dict[str, Any], params: Params) -> str:
    return model_card(scores, params, ENCODERS, DIGESTS)


def test_scores_have_their_intervals(card: str, scores: dict[str, Any]) -> None:
    low, high = scores["interval"]["weighted_f1"]
    assert f"| weighted F1 | {scores['weighted_f1']:.4f} | {low:.3f} to {high:.3f} |" in card
    assert "120 products.\n" in card
    assert "| words | 30 | 1.0000 |" in card
    assert f"| **this model** | 120 | {scores['weighted_f1']:.4f} |" in card


def test_every_class_and_part_has_a_row(card: str, scores: dict[str, Any]) -> None:
    low, high = scores["f1_interval"]["2583"]
    assert f"| 2583 | pools and spas | {scores['f1']['2583']:.4f} | {low:.3f} to {high:.3f} |" in card
    for name, part in scores["parts"].items():
        assert f"| {name} | {part['rows']} | {part['weighted_f1']:.4f} |" in card


def test_data_and_encoders_are_named(card: str, params: Params) -> None:
    assert "| `data/processed/train_features.csv` | `0123` |" in card
    assert "| `train_texts.npy` | `4567` |" in card  # without the folder of an absolute path
    assert f"- text encoder: {params.features.text_encoder};" in card
    assert "- fingerprint of the picture encoder: `bbb`." in card


def test_an_encoder_of_ones_own_is_named_by_its_file(scores: dict[str, Any], params: Params) -> None:
    encoder = ImageEncoderParams(path="data/encoders/dinov2.onnx", size=224, normalisation="imagenet")
    features = params.features.model_copy(update={"image_encoder": encoder})
    card = model_card(scores, params.model_copy(update={"features": features}), ENCODERS, DIGESTS)
    assert "- image encoder: data/encoders/dinov2.onnx;" in card


def test_what_is_decided_is_a_sentence_or_nothing_is(card: str, scores: dict[str, Any], params: Params) -> None:
    assert "with a confidence of at least 0.700 are decided automatically: 70.0% of them out of fold" in card
    assert "of which 100.0% are correct" in card
    undecided = scores | {"decided": scores["decided"] | {"coverage": 0}}
    card = model_card(undecided, params, ENCODERS, DIGESTS)
    assert "No confidence reaches the target precision of 0.95 out of fold" in card


def test_the_share_that_gets_a_parent_is_said_where_there_is_one(
    card: str, scores: dict[str, Any], params: Params
) -> None:
    assert "25.0% of the products below that get the parent of their code" in card
    assert "at least 0.812 together: 96.0% of these are correct." in card
    none = {"threshold": 1.1, "coverage": 0.0, "precision": 1.0}
    assert "parent" not in model_card(scores | {"parents": none}, params, ENCODERS, DIGESTS)


def test_limits_name_the_weakest_classes_and_the_doubtful_labels(scores: dict[str, Any], params: Params) -> None:
    f1 = {"10": 0.9, "40": 0.1, "50": 0.8, "2583": 0.2}
    interval = dict.fromkeys(f1, [0.0, 1.0])
    card = model_card(scores | {"f1": f1, "f1_interval": interval}, params, ENCODERS, DIGESTS)
    weakest = next(line for line in card.splitlines() if line.startswith("- Weakest classes:"))
    assert weakest.index("40 (") < weakest.index("2583 (") < weakest.index("50 (")
    assert "10 (" not in weakest
    assert "- 1,234 labels look wrong" in card


def test_a_model_without_images_is_marked(card: str, scores: dict[str, Any], params: Params) -> None:
    assert "does not use images" not in card
    assert "does not use images" in model_card(scores, params, {TEXT: "aaa"}, DIGESTS)


def test_a_model_of_the_synthetic_catalogue_is_marked(card: str, scores: dict[str, Any], params: Params) -> None:
    assert "synthetic" not in card
    marked = model_card(scores | {"synthetic": True}, params, ENCODERS, DIGESTS)
    assert "**Trained on the synthetic sample catalogue" in marked


def test_the_number_of_shards_is_given_where_there_are_several(scores: dict[str, Any], params: Params) -> None:
    train = params.train.model_copy(update={"shard_rows": 50})
    card = model_card(scores, params.model_copy(update={"train": train}), ENCODERS, DIGESTS)
    assert "averaged over 3 shards;" in card
