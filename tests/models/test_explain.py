import numpy as np
import pytest

from rakuten.features.feature_set import FeatureBatch
from rakuten.models.classifier import ProductClassifier
from rakuten.models.explain import MAX_IMAGES, MAX_TERMS, explain
from rakuten.models.fusion import gating_context
from rakuten.types import IMAGE, NGRAMS
from tests.support.features import feature_table


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
