from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from rakuten.features.encoders.finetuned import NetworkFolder, save_network
from rakuten.features.encoders.finetuned_text import text_input
from rakuten.features.feature_set import FeatureBatch
from rakuten.models.classifier import ProductClassifier
from rakuten.models.explain import MAX_IMAGES, MAX_TERMS, explain
from rakuten.models.fusion import gating_context
from rakuten.types import FINETUNED_TEXT, IMAGE, NGRAMS
from tests.support.features import feature_table
from tests.support.onnx_graphs import score_graph, word_tokenizer
from tests.support.training import fit_batch


@pytest.fixture(scope="module")
def product(red: np.ndarray) -> FeatureBatch:
    """A title between two codes, with an image of code 2583."""
    return FeatureBatch(feature_table(["Pompe roman 3"], has_image=1), None, red)


def test_the_most_probable_code_is_explained_unless_another_is_requested(
    classifier: ProductClassifier, product: FeatureBatch
) -> None:
    explanation, proba = explain(classifier, product), classifier.predict_proba(product)[0]
    assert explanation.prdtypecode == classifier.classes[proba.argmax()]
    assert explanation.confidence == proba.max()
    other = explain(classifier, product, 40)
    assert other.prdtypecode == 40
    assert other.confidence == proba[0]


def test_view_contributions_are_those_of_the_fusion(classifier: ProductClassifier, product: FeatureBatch) -> None:
    views = explain(classifier, product, 2583).views
    assert views["view"].tolist() == [NGRAMS, IMAGE]
    contributions = classifier.fusion.contributions(classifier.scores(product), gating_context(product.table))
    column = classifier.classes.tolist().index(2583)
    assert views["contribution"].tolist() == [contributions[view][0, column] for view in views["view"]]
    assert views.set_index("view")["contribution"][IMAGE] > 0
    shares = views["contribution"].abs() / views["contribution"].abs().sum()
    assert views["share"].tolist() == pytest.approx(shares.tolist())


def test_terms_for_and_against_are_sorted_by_contribution(classifier: ProductClassifier, product: FeatureBatch) -> None:
    explanation = explain(classifier, product, 2583)
    positive, negative = explanation.positive_terms, explanation.negative_terms
    assert "pompe" in positive["term"].tolist()
    assert any("rom" in term for term in negative["term"])
    assert (positive["contribution"] > 0).all()
    assert (negative["contribution"] < 0).all()
    assert positive["contribution"].is_monotonic_decreasing
    assert negative["contribution"].is_monotonic_increasing
    assert len(positive) <= MAX_TERMS
    assert len(negative) <= MAX_TERMS


def test_the_terms_of_the_largest_contributions_are_shown(
    classifier: ProductClassifier, product: FeatureBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    all_terms = explain(classifier, product, 2583)
    monkeypatch.setattr("rakuten.models.explain.MAX_TERMS", 2)
    two = explain(classifier, product, 2583)
    assert two.positive_terms.equals(all_terms.positive_terms[:2])
    assert two.negative_terms.equals(all_terms.negative_terms[:2])
    assert len(all_terms.negative_terms) > 2


def test_terms_add_up_to_the_contribution_of_their_view(
    classifier: ProductClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for the share of the intercept, which belongs to no term."""
    monkeypatch.setattr("rakuten.models.explain.MAX_TERMS", 1000)
    product = FeatureBatch(feature_table(["piscine pompe"]))
    explanation = explain(classifier, product, 2583)
    total = explanation.positive_terms["contribution"].sum() + explanation.negative_terms["contribution"].sum()
    linear, column = classifier.linear[NGRAMS], classifier.classes.tolist().index(2583)
    score = classifier.scores(product)[NGRAMS][0]
    intercept = linear.intercept[column] - linear.intercept.mean()
    share = 1 - intercept / (score[column] - score.mean())
    assert total == pytest.approx(explanation.views["contribution"][0] * share, rel=1e-4)


def test_similar_images_are_train_images_in_descending_similarity(
    classifier: ProductClassifier, product: FeatureBatch, batch: FeatureBatch
) -> None:
    images = explain(classifier, product, 2583).similar_images
    assert len(images) == MAX_IMAGES
    assert (images["prdtypecode"] == 2583).all()
    assert images["similarity"].is_monotonic_decreasing
    code = batch.table.set_index("productid")["prdtypecode"]
    assert [code[str(productid)] for productid in images["productid"]] == images["prdtypecode"].tolist()


def test_a_product_without_text_and_image_has_neither_terms_nor_images(classifier: ProductClassifier) -> None:
    explanation = explain(classifier, FeatureBatch(feature_table([""])))
    assert explanation.positive_terms.empty
    assert explanation.negative_terms.empty
    assert explanation.similar_images.empty
    assert list(explanation.similar_images.columns) == ["productid", "imageid", "prdtypecode", "similarity"]
    assert (explanation.views["contribution"] == 0).all()


def test_a_missing_image_has_no_similar_images(classifier: ProductClassifier) -> None:
    missing = np.full((1, 4), np.nan, dtype=np.float16)
    assert explain(classifier, FeatureBatch(feature_table(["jeu"]), None, missing)).similar_images.empty


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> NetworkFolder:
    """A network whose second class speaks of the word b, ten times more than of a; its first class of no word here."""
    folder: Path = tmp_path_factory.mktemp("network")
    (folder / "graph.onnx").write_bytes(score_graph())
    save_network(
        folder / "text",
        folder / "graph.onnx",
        text_input(Tokenizer.from_str(word_tokenizer()), {"tokens": 16, "prefix": ""}),
        {},
    )
    return NetworkFolder.of(folder / "text")


@pytest.fixture(scope="module")
def with_network(network: NetworkFolder, tmp_path_factory: pytest.TempPathFactory) -> ProductClassifier:
    """A classifier of two codes, whose titles say nothing and whose fine-tuned view tells the code."""
    codes = [10] * 30 + [2583] * 30
    scores = np.random.default_rng(0).normal(size=(60, 2)).astype(np.float32)
    scores[np.arange(60), np.array(codes) // 2583] += 4
    table = feature_table([f"objet {number}" for number in range(60)]).assign(prdtypecode=codes)
    batch = FeatureBatch(table, finetuned={FINETUNED_TEXT: scores})
    classifier, _ = fit_batch(batch, tmp_path_factory.mktemp("with_network"))
    classifier.networks = {FINETUNED_TEXT: network}
    return classifier


def test_the_words_that_a_fine_tuned_network_read_explain_its_code(
    with_network: ProductClassifier, network: NetworkFolder
) -> None:
    text = ("a b", "<p>inconnu</p>")
    product = FeatureBatch(feature_table(["objet"]), finetuned={FINETUNED_TEXT: network.text().scores([text])})
    terms = explain(with_network, product, 2583, text).positive_terms
    assert terms["term"].tolist()[0] == "b"
    assert set(terms["term"]) <= {"a", "b"}
    assert set(terms["columns"]) == {"designation_clean"} and set(terms["analyzer"]) == {"left out"}
    without_b = FeatureBatch(product.table, finetuned={FINETUNED_TEXT: network.text().scores([("a", "inconnu")])})
    whole, shorter = (
        explain(with_network, each, 2583).views.set_index("view")["contribution"][FINETUNED_TEXT]
        for each in (product, without_b)
    )
    assert terms["contribution"][0] == pytest.approx(whole - shorter)


def test_without_its_text_the_n_grams_explain_a_product(
    with_network: ProductClassifier, network: NetworkFolder
) -> None:
    product = FeatureBatch(feature_table(["objet 7"]), finetuned={FINETUNED_TEXT: network.text().scores([("b", "")])})
    explanation = explain(with_network, product, 2583)
    assert set(explanation.positive_terms["analyzer"]) | set(explanation.negative_terms["analyzer"]) <= {
        "word",
        "char_wb",
    }
