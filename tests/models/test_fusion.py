from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.special import softmax

from rakuten.evaluation.calibration import reliability
from rakuten.models.fusion import (
    CONTEXT,
    N_TERMS,
    PRIOR_SD_OFFSETS,
    PRIOR_SD_WEIGHTS,
    PROBA_SCALE,
    Fusion,
    fit_fusion,
    fit_view_temperature,
    gating_context,
    score_terms,
)
from rakuten.types import IMAGE, NGRAMS, FloatArray, IntArray

CLASSES = np.array([10, 40, 50, 60])


def make_products(n_rows: int = 4000) -> tuple[pd.DataFrame, IntArray]:
    """The columns that the context needs, and the true class column of each product."""
    rng = np.random.default_rng(0)
    described = rng.integers(0, 2, n_rows)
    table = pd.DataFrame(
        {
            "designation_len": rng.integers(5, 100, n_rows),
            "description_len": described * 200,
            "has_description": described,
            "has_image": rng.integers(0, 2, n_rows),
        }
    )
    return table, np.random.default_rng(1).integers(0, 4, n_rows)


def make_scores(y: IntArray, skill: FloatArray | float, seed: int, scale: float = 1.0) -> FloatArray:
    """Scores of a view: `skill` for the true class, plus normal noise; all multiplied by `scale`."""
    scores = np.random.default_rng(seed).normal(size=(len(y), len(CLASSES)))
    scores[np.arange(len(y)), y] += skill
    return scores * scale


def accuracy(fusion: Fusion, scores: dict[str, FloatArray], context: FloatArray, y: IntArray) -> float:
    return float((fusion.predict_proba(scores, context).argmax(axis=1) == y).mean())


def test_two_views_are_better_than_one_whatever_the_size_of_their_scores() -> None:
    table, y = make_products()
    context = gating_context(table)
    scores = {NGRAMS: make_scores(y, 1.5, 2), IMAGE: make_scores(y, 0.7, 3, scale=50)}
    alone = (scores[NGRAMS].argmax(axis=1) == y).mean()
    assert accuracy(fit_fusion(scores, context, y, CLASSES), scores, context, y) > alone + 0.04


def test_a_view_of_noise_gets_no_weight() -> None:
    table, y = make_products()
    context = gating_context(table)
    scores = {NGRAMS: make_scores(y, 1.5, 2), IMAGE: make_scores(y, 0.0, 3, scale=50)}
    contributions = fit_fusion(scores, context, y, CLASSES).contributions(scores, context)
    assert contributions[IMAGE].std() < 0.15 * contributions[NGRAMS].std()


def test_weights_depend_on_the_context() -> None:
    """The image helps only where there is no description."""
    table, y = make_products(8000)
    context, described = gating_context(table), table["has_description"].to_numpy() == 1
    scores = {NGRAMS: make_scores(y, 1.0, 2), IMAGE: make_scores(y, np.where(described, 0.0, 2.5), 3)}
    contributions = fit_fusion(scores, context, y, CLASSES).contributions(scores, context)
    assert contributions[IMAGE][~described].std() > 4 * contributions[IMAGE][described].std()


def test_offsets_depend_on_the_class() -> None:
    """The image tells only whether a product is of the first class."""
    table, y = make_products(1000)
    image = make_scores(y, np.where(y == 0, 3.0, 0.0), 3)
    scores = {NGRAMS: make_scores(y, 0.5, 2), IMAGE: image}
    offsets = fit_fusion(scores, gating_context(table), y, CLASSES).class_offsets[1].sum(axis=0)
    assert offsets[0] > offsets[1:].max() + 0.5


def test_on_few_rows_the_priors_keep_the_fusion_from_overfitting() -> None:
    """30 rows and a view of noise, five times; wider priors, or much narrower weights, predict other rows worse."""
    table, y = make_products(3000)
    context, test = gating_context(table), slice(150, None)
    scores = {NGRAMS: make_scores(y, 1.5, 2), IMAGE: make_scores(y, 0.0, 3)}
    log_loss, bias = [], []
    for start in range(0, 150, 30):
        train = slice(start, start + 30)
        fusion = fit_fusion({view: scores[view][train] for view in scores}, context[train], y[train], CLASSES)
        proba = fusion.predict_proba({view: scores[view][test] for view in scores}, context[test])
        log_loss.append(-np.log(proba[np.arange(len(proba)), y[test]]).mean())
        bias.append(np.abs(fusion.bias).max())
    assert np.mean(log_loss) < 0.93
    assert 0.05 < np.mean(bias) < 0.32


def posterior_gradient(
    fusion: Fusion, view: str, scores: dict[str, FloatArray], context: FloatArray, y: IntArray
) -> FloatArray:
    """Gradient of the negative log posterior by the weights and class offsets of one view."""
    residual = fusion.predict_proba(scores, context)
    residual[np.arange(len(y)), y] -= 1
    number, gradient = fusion.views.index(view), []
    for term, weights, offsets in zip(
        score_terms(scores[view], fusion.temperature[number]),
        fusion.view_weights[number],
        fusion.class_offsets[number],
        strict=True,
    ):
        gradient.append(context.T @ (residual * term).sum(axis=1) + weights / PRIOR_SD_WEIGHTS**2)
        gradient.append((residual * term).sum(axis=0) + offsets / PRIOR_SD_OFFSETS**2)
    return np.concatenate(gradient)


@pytest.mark.parametrize("frozen", [False, True])
def test_the_weights_are_the_most_probable_ones(frozen: bool) -> None:
    table, y = make_products(200)
    context, scores = gating_context(table), {NGRAMS: make_scores(y, 1.5, 2), IMAGE: make_scores(y, 1.0, 3)}
    text = fit_fusion({NGRAMS: scores[NGRAMS]}, context, y, CLASSES) if frozen else None
    if text is not None:
        text = replace(text, bias=text.bias + [1.5, 0, 0, 0])  # which the image's weights cannot make up for
    fusion = fit_fusion(scores, context, y, CLASSES, text)
    views = (IMAGE,) if frozen else (NGRAMS, IMAGE)
    for view in views:
        assert posterior_gradient(fusion, view, scores, context, y) == pytest.approx(0, abs=0.25)
        without_weights = replace(
            fusion,
            view_weights=np.zeros_like(fusion.view_weights),
            class_offsets=np.zeros_like(fusion.class_offsets),
        )
        assert np.abs(posterior_gradient(without_weights, view, scores, context, y)).max() > 20


@pytest.mark.parametrize("skill", [0.3, 1.5, 4.0])
def test_the_two_terms_of_a_view_are_of_the_same_size(skill: float) -> None:
    """So the penalty treats both alike."""
    _, y = make_products()
    scores = make_scores(y, skill, 2)
    linear, probability = score_terms(scores, fit_view_temperature(scores, y))
    assert 0.2 < probability.std() / linear.std() < 1.5


def test_probabilities_are_calibrated_even_of_overconfident_views() -> None:
    table, y = make_products(12_000)
    context = gating_context(table)
    scores = {NGRAMS: make_scores(y, 1.5, 2, scale=9), IMAGE: make_scores(y, 1.0, 3, scale=30)}
    train, test = slice(0, 6000), slice(6000, None)
    fusion = fit_fusion({view: scores[view][train] for view in scores}, context[train], y[train], CLASSES)
    proba = fusion.predict_proba({view: scores[view][test] for view in scores}, context[test])
    assert reliability(proba.max(axis=1), proba.argmax(axis=1) == y[test]).error < 0.03
    assert proba.sum(axis=1) == pytest.approx(1)


def test_a_missing_view_adds_nothing() -> None:
    table, y = make_products()
    context = gating_context(table)
    scores = {NGRAMS: make_scores(y, 1.5, 2), IMAGE: make_scores(y, 1.0, 3)}
    fusion = fit_fusion(scores, context, y, CLASSES)
    without_image = {NGRAMS: scores[NGRAMS], IMAGE: np.full_like(scores[IMAGE], np.nan)}
    assert np.isfinite(fusion.predict_proba(without_image, context)).all()
    assert not fusion.contributions(without_image, context)[IMAGE].any()


def test_without_any_view_the_probabilities_are_the_shares_of_the_classes() -> None:
    table, y = make_products()
    context, y = gating_context(table), np.where(np.arange(len(y)) % 2 == 0, 0, y)
    scores = {NGRAMS: make_scores(y, 1.5, 2)}
    scores[NGRAMS][::2] = np.nan  # so that the prior counts for half of the rows
    proba = fit_fusion(scores, context, y, CLASSES).predict_proba({NGRAMS: np.full((4000, 4), np.nan)}, context)
    assert (proba == proba[0]).all()
    assert proba[0].argmax() == 0
    no_bias = fit_fusion({}, context, y, CLASSES).predict_proba({}, context[:1])[0]
    assert no_bias == pytest.approx(np.bincount(y) / len(y), abs=0.001)


def test_the_contributions_and_the_prior_add_up_to_the_fused_scores() -> None:
    table, y = make_products(300)
    context = gating_context(table)
    scores = {NGRAMS: make_scores(y, 1.5, 2), IMAGE: make_scores(y, 1.0, 3)}
    fusion = fit_fusion(scores, context, y, CLASSES)
    total = fusion.prior + fusion.bias + sum(fusion.contributions(scores, context).values())
    assert fusion.decision_function(scores, context) == pytest.approx(total)
    assert fusion.predict_proba(scores, context) == pytest.approx(softmax(total, axis=1))


def test_only_without_text_a_view_changes_nothing_for_products_with_text() -> None:
    table, y = make_products()
    no_text = np.arange(len(table)) % 4 == 0
    table.loc[no_text, ["designation_len", "description_len", "has_description"]] = 0
    context, ngrams = gating_context(table), make_scores(y, 1.0, 2)
    ngrams[no_text] = np.nan
    scores = {NGRAMS: ngrams, IMAGE: make_scores(y, 2.0, 3)}
    text = fit_fusion({NGRAMS: ngrams}, context, y, CLASSES)
    fusion = fit_fusion(scores, context, y, CLASSES, frozen=text, only_without_text=True)
    proba, text_proba = fusion.predict_proba(scores, context), text.predict_proba({NGRAMS: ngrams}, context)
    assert (proba[~no_text] == text_proba[~no_text]).all()
    contributions = fusion.contributions(scores, context)
    assert not contributions[IMAGE][~no_text].any()
    assert contributions[IMAGE][no_text].std() > 0.5
    assert accuracy(fusion, scores, context, y) > 0.6


def test_a_view_beside_a_frozen_fusion_leaves_products_without_it_as_they_were() -> None:
    table, y = make_products()
    context, scores = gating_context(table), {NGRAMS: make_scores(y, 1.0, 2), IMAGE: make_scores(y, 1.0, 3)}
    scores[IMAGE][::2] = np.nan
    text = fit_fusion({NGRAMS: scores[NGRAMS]}, context, y, CLASSES)
    fusion = fit_fusion(scores, context, y, CLASSES, frozen=text)
    assert fusion.views == (NGRAMS, IMAGE)
    proba, text_proba = fusion.predict_proba(scores, context), text.predict_proba(scores, context)
    assert (proba[::2] == text_proba[::2]).all()
    with_image, y = slice(1, None, 2), y[1::2]
    gain = (proba[with_image].argmax(axis=1) == y).mean() - (text_proba[with_image].argmax(axis=1) == y).mean()
    assert gain > 0.05


def test_a_row_has_the_same_probabilities_alone_and_in_a_batch() -> None:
    table, y = make_products(50)
    context, scores = gating_context(table), {NGRAMS: make_scores(y, 1.5, 2), IMAGE: make_scores(y, 1.0, 3)}
    fusion = fit_fusion(scores, context, y, CLASSES)
    assert fusion.view_weights.shape == (2, N_TERMS, len(CONTEXT))
    at_once = fusion.predict_proba(scores, context)
    alone = [
        fusion.predict_proba({view: scores[view][[row]] for view in scores}, context[[row]])[0] for row in range(50)
    ]
    assert np.abs(at_once - alone).max() < 1e-12


def test_the_context_of_a_product_is_between_zero_and_one() -> None:
    table = pd.DataFrame(
        {
            "designation_len": [5, 80, 0, 0],
            "description_len": [0, 300, 300, 0],
            "has_description": [0, 1, 1, 0],
            "has_image": [1, 0, 1, 0],
        }
    )
    context = pd.DataFrame(gating_context(table), columns=CONTEXT)
    assert (context["always"] == 1).all()
    assert context["has_description"].tolist() == [0, 1, 1, 0]
    assert context["has_image"].tolist() == [1, 0, 1, 0]
    assert context["no_text"].tolist() == [0, 0, 0, 1]
    assert context["short_title"].between(0, 1).all()


def test_a_title_of_a_word_is_short_and_one_of_eighty_characters_is_not() -> None:
    table = pd.DataFrame(
        {"designation_len": [5, 20, 40, 80], "description_len": 0, "has_description": 0, "has_image": 0}
    )
    short_title = gating_context(table)[:, CONTEXT.index("short_title")]
    assert (np.diff(short_title) < 0).all()
    assert short_title[0] > 0.75
    assert short_title[1] == pytest.approx(1 / np.e)
    assert short_title[3] < 0.02


def test_the_terms_are_centred_over_the_classes_and_zero_where_the_view_is_missing() -> None:
    scores = np.array([[3.0, 1.0, -1.0, 0.0], [np.nan] * 4])
    for term in score_terms(scores, 0.5):
        assert term.sum(axis=1) == pytest.approx(0)
        assert term[0].any()
        assert not term[1].any()
    assert score_terms(scores, 0.5)[0][0] == pytest.approx((scores[0] - 0.75) / 0.5)


def test_the_probability_term_is_softer_than_the_view_is_confident() -> None:
    """The odds are the square root of the calibrated ones: 95 % to 5 % becomes 81 % to 19 %."""
    proba, temperature = np.array([[0.95, 0.05], [0.6, 0.4], [0.5, 0.5]]), 3.0
    _, term = score_terms(np.log(proba) * temperature, temperature)
    odds = np.sqrt(proba[:, 0] / proba[:, 1])
    softened = (term[:, 0] - term[:, 1]) / PROBA_SCALE  # the difference of the two probabilities
    assert softened == pytest.approx((odds - 1) / (odds + 1))
    assert softened[0] == pytest.approx(0.627, abs=0.001)


def test_one_extreme_view_cannot_overrule_two_others_by_its_probability() -> None:
    weights = np.zeros((3, N_TERMS, len(CONTEXT)))
    weights[:, 1, 0] = 1.0  # the probability term alone, alike for all views
    views, zeros = ("a", "b", "c"), np.zeros(4)
    fusion = Fusion(views, CLASSES, zeros, zeros, np.ones(3), weights, np.zeros((3, N_TERMS, 4)))
    table, _ = make_products(1)
    moderate, extreme = np.array([[0.0, 5.0, 0.0, 0.0]]), np.array([[1e6, 0.0, 0.0, 0.0]])
    fused = fusion.decision_function({"a": moderate, "b": moderate, "c": extreme}, gating_context(table))
    assert fused[0].argmax() == 1
    assert fused[0].max() < 2 * PROBA_SCALE


def test_the_temperature_of_a_view_is_learnt_from_the_products_that_have_it() -> None:
    _, y = make_products()
    scores = make_scores(y, 1.5, 2, scale=7)
    temperature = fit_view_temperature(scores, y)
    with_missing = np.vstack([scores, np.full((500, 4), np.nan)])
    assert fit_view_temperature(with_missing, np.append(y, np.zeros(500, dtype=int))) == temperature
    assert temperature == pytest.approx(7 * fit_view_temperature(scores / 7, y), rel=0.01)
    assert fit_view_temperature(np.full((5, 4), np.nan), y[:5]) == 1
