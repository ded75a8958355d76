import numpy as np
import pytest

from rakuten.evaluation.novelty_flag import is_novel
from rakuten.models import novelty as module
from rakuten.models.fusion import CONTEXT
from rakuten.models.none_class import NoneClass
from rakuten.models.novelty import Novelty, cross_fit_novelty, fit_novelty

N_ROWS = 4000


def make_context(n_rows: int = N_ROWS, seed: int = 0) -> np.ndarray:
    """Half of the products have a description, a fifth a picture; all have a title."""
    rng = np.random.default_rng(seed)
    context = np.zeros((n_rows, len(CONTEXT)))
    context[:, 0] = 1
    context[:, 1], context[:, 2] = rng.random(n_rows) < 0.5, rng.random(n_rows) < 0.2
    return context


def make_evidence(context: np.ndarray, seed: int = 1) -> np.ndarray:
    """A description adds 2, and doubles the spread; a picture adds 5."""
    noise = np.random.default_rng(seed).normal(size=len(context))
    return np.asarray(3 + 2 * context[:, 1] + 5 * context[:, 2] + noise * (1 + context[:, 1]))


def test_the_novelty_is_the_share_of_train_products_that_are_less_unusual() -> None:
    only_always = np.zeros(len(CONTEXT))
    only_always[0] = 1
    fitted = Novelty(10 * only_always, 2 * only_always, np.array([0.1]), np.array([-1.0, 0, 1, 2]))
    evidence, context = np.array([13.0, 10, 9, 8, 0, np.nan]), np.tile(only_always, (6, 1))
    assert fitted.unusualness(evidence, context)[:5].tolist() == [-1.5, 0, 0.5, 1, 5]
    # One is added to the products that are counted: the product itself.
    assert fitted.novelty(evidence, context)[:5].tolist() == [0, 0.2, 0.4, 0.4, 0.8]
    assert np.isnan(fitted.novelty(evidence, context)[5])


def test_the_share_that_is_flagged_is_the_one_asked_for_whatever_a_product_has() -> None:
    fitted = fit_novelty(make_evidence(context := make_context(20_000)), context)
    others = make_context(20_000, seed=2)
    novelty = fitted.novelty(make_evidence(others, seed=3), others)
    for false_alarms in (0.01, 0.05, 0.2):
        flagged = is_novel(novelty, false_alarms)
        assert flagged.mean() == pytest.approx(false_alarms, rel=0.25)
        for column in (1, 2):
            mask = others[:, column] == 1
            assert flagged[mask].mean() == pytest.approx(false_alarms, rel=0.4)


def test_the_less_evidence_the_more_novel() -> None:
    context = make_context()
    fitted = fit_novelty(make_evidence(context), context)
    novelty = fitted.novelty(np.linspace(20, -20, 50), np.tile(context[0], (50, 1)))
    assert (np.diff(novelty) >= 0).all()
    assert novelty[0] == 0
    assert novelty[-1] == pytest.approx(N_ROWS / (N_ROWS + 1), abs=1e-6)


def test_a_fold_is_judged_by_the_others() -> None:
    context, fold = make_context(), np.arange(N_ROWS) % 4
    evidence = make_evidence(context)
    evidence[fold == 3] -= 100  # all of this fold are unlike those of the others
    novelty = cross_fit_novelty(evidence, context, fold)
    assert is_novel(novelty[fold == 3], 0.01).all()
    expected = fit_novelty(evidence[fold != 0], context[fold != 0]).novelty(evidence[fold == 0], context[fold == 0])
    assert (novelty[fold == 0] == expected).all()


def test_products_without_any_view_are_left_out() -> None:
    context, evidence = make_context(), make_evidence(make_context())
    evidence[::3] = np.nan
    present = np.isfinite(evidence)
    fitted, expected = fit_novelty(evidence, context), fit_novelty(evidence[present], context[present])
    assert (fitted.reference == expected.reference).all()
    nothing = fit_novelty(np.full(5, np.nan), context[:5])
    assert nothing.novelty(np.array([-1e9]), context[:1]).tolist() == [0]


def test_of_many_train_products_evenly_spaced_ones_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    context = make_context()
    whole = fit_novelty(make_evidence(context), context)
    monkeypatch.setattr(module, "MAX_REFERENCE", 500)
    small = fit_novelty(make_evidence(context), context)
    assert len(small.reference) == 500
    assert (small.reference[[0, -1]] == whole.reference[[0, -1]]).all()
    evidence = np.linspace(-3, 12, 50)
    assert small.novelty(evidence, context[:50]) == pytest.approx(whole.novelty(evidence, context[:50]), abs=0.005)


def test_evidence_that_never_varies_flags_no_train_product() -> None:
    fitted = fit_novelty(np.ones(300), make_context(300))
    assert not is_novel(fitted.novelty(np.ones(10), make_context(10)), 0.01).any()


def make_none_class(n_rows: int = N_ROWS, seed: int = 5) -> NoneClass:
    """Scores of train products from a normal distribution; a tenth have no text. The first number is the score."""
    rng = np.random.default_rng(seed)
    scores = np.where(rng.random(n_rows) < 0.1, np.nan, rng.normal(size=n_rows))
    return NoneClass(scores, np.empty(0), np.array([1.0, 0.0]), np.array([0.0]))


def test_a_product_like_those_that_no_code_fits_is_novel_though_its_evidence_is_usual() -> None:
    context, none_class = make_context(), make_none_class()
    fitted = fit_novelty(make_evidence(context), context, none_class)
    usual = np.full(3, 3.0)
    none_score = fitted.none_score(np.array([[6.0, 9], [0, 9], [np.nan, np.nan]], dtype=np.float16))
    assert none_score is not None
    assert none_score[:2].tolist() == [6, 0]
    only_always = np.tile([1.0, *[0.0] * (len(CONTEXT) - 1)], (3, 1))
    assert is_novel(fitted.novelty(usual, only_always, none_score), 0.01).tolist() == [True, False, False]
    assert is_novel(fitted.novelty(usual - 20, only_always, none_score), 0.01).all()


def test_the_share_that_is_flagged_is_the_one_asked_for_with_products_that_no_code_fits_too() -> None:
    context, others = make_context(20_000), make_context(20_000, seed=2)
    fitted = fit_novelty(make_evidence(context), context, make_none_class(20_000))
    none_score = make_none_class(20_000, seed=6).train_scores
    novelty = fitted.novelty(make_evidence(others, seed=3), others, none_score)
    for false_alarms in (0.01, 0.05, 0.2):
        assert is_novel(novelty, false_alarms).mean() == pytest.approx(false_alarms, rel=0.25)


def test_a_fold_is_judged_by_the_others_with_products_that_no_code_fits_too() -> None:
    context, fold, none_class = make_context(), np.arange(N_ROWS) % 4, make_none_class()
    evidence = make_evidence(context)
    novelty = cross_fit_novelty(evidence, context, fold, none_class)
    others, held_out = fold != 0, fold == 0
    fitted = fit_novelty(
        evidence[others], context[others], none_class._replace(train_scores=none_class.train_scores[others])
    )
    expected = fitted.novelty(evidence[held_out], context[held_out], none_class.train_scores[held_out])
    assert (novelty[held_out] == expected).all()
    assert (novelty != cross_fit_novelty(evidence, context, fold)).any()
