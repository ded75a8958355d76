from pathlib import Path

import numpy as np
import pytest

from rakuten.disk_array import DiskArray
from rakuten.evaluation.metrics import classification_scores
from rakuten.models import fusion_selection as module
from rakuten.models.fusion import fit_fusion, gating_context
from rakuten.models.fusion_selection import CrossFitter, ImageStrategy, TrainingRows, select_fusion
from rakuten.types import FINETUNED_IMAGE, FINETUNED_TEXT, IMAGE, NGRAMS, FloatArray
from tests.support.features import feature_table

N_ROWS, CLASSES = 200, np.array([10, 40, 50, 60])
CONTEXT = gating_context(feature_table(["un titre"] * N_ROWS, has_image=1))


@pytest.fixture(scope="module")
def rows() -> TrainingRows:
    """Every tenth product has no text."""
    y = np.random.default_rng(0).integers(0, 4, N_ROWS)
    return TrainingRows(CLASSES, y, np.arange(N_ROWS) % 5, np.arange(N_ROWS) % 10 > 0, seed=0)


def make_scores(rows: TrainingRows, text_skill: float, image_skill: float, seed: int = 0) -> dict[str, FloatArray]:
    rng = np.random.default_rng(seed)
    scores = {view: rng.normal(size=(N_ROWS, 4)) for view in (NGRAMS, IMAGE)}
    scores[NGRAMS][np.arange(N_ROWS), rows.y] += text_skill
    scores[IMAGE][np.arange(N_ROWS), rows.y] += image_skill
    scores[NGRAMS][~rows.has_text] = np.nan
    return scores


@pytest.fixture
def proba(tmp_path: Path) -> DiskArray:
    return DiskArray.full(tmp_path / "proba.npy", (N_ROWS, 4), np.nan)


def test_the_fusion_that_predicts_a_fold_is_not_fitted_to_it(rows: TrainingRows, proba: DiskArray) -> None:
    scores = make_scores(rows, 1, 1)
    y_pred, evidence = CrossFitter(scores, CONTEXT, rows).predict(ImageStrategy.JOINT, proba)
    order = np.random.default_rng(rows.seed).permutation(N_ROWS)
    for fold in range(5):
        train, held_out = order[rows.fold[order] != fold], rows.fold == fold
        fused = fit_fusion({view: scores[view][train] for view in scores}, CONTEXT[train], rows.y[train], CLASSES)
        arguments = {view: scores[view][held_out] for view in scores}, CONTEXT[held_out]
        assert proba[held_out] == pytest.approx(fused.predict_proba(*arguments), abs=1e-9)
        assert evidence[held_out] == pytest.approx(fused.decision_function(*arguments).max(axis=1), abs=1e-9)
    assert (proba[:].argmax(axis=1) == y_pred).all()


def test_a_sample_of_the_rows_is_enough_to_fit(rows: TrainingRows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FUSION_ROWS", 50)
    fitter, scores = CrossFitter(make_scores(rows, 1, 1), CONTEXT, rows), make_scores(rows, 1, 1)
    assert len(set(fitter.sample.tolist())) == 50
    expected = fit_fusion(
        {view: scores[view][fitter.sample] for view in scores}, CONTEXT[fitter.sample], rows.y[fitter.sample], CLASSES
    )
    assert (fitter.fit(ImageStrategy.JOINT).view_weights == expected.view_weights).all()


def test_the_strategies_differ_in_what_the_image_may_change(rows: TrainingRows) -> None:
    fitter = CrossFitter(make_scores(rows, 1, 1), CONTEXT, rows)
    text = fitter.fit(ImageStrategy.NONE)
    assert text.views == (NGRAMS,)
    joint, additive = fitter.fit(ImageStrategy.JOINT), fitter.fit(ImageStrategy.ADDITIVE)
    assert joint.views == additive.views == (NGRAMS, IMAGE)
    assert (additive.view_weights[0] == text.view_weights[0]).all()
    assert (joint.view_weights[0] != text.view_weights[0]).any()
    contributions = fitter.fit(ImageStrategy.NO_TEXT_ONLY).contributions(fitter.scores, CONTEXT)
    assert not contributions[IMAGE].any()  # by their lengths all of these products have a text


def test_images_that_help_are_weighed_together_with_the_text(rows: TrainingRows, proba: DiskArray) -> None:
    fusion, out_of_fold = select_fusion(CrossFitter(make_scores(rows, 0.5, 2), CONTEXT, rows), proba)
    assert fusion.views == (NGRAMS, IMAGE)
    text_alone = out_of_fold.baselines["text alone"].y_pred == rows.y
    assert out_of_fold.correct.mean() > text_alone.mean() + 0.1
    assert (out_of_fold.confidence == proba[:].max(axis=1)).all()


def test_images_that_do_not_help_are_left_to_products_without_text(
    rows: TrainingRows, proba: DiskArray, caplog: pytest.LogCaptureFixture
) -> None:
    """Images of noise: out of fold the model is no worse than its text, whatever the draw."""
    n_without_images = 0
    for seed in range(8):
        scores = make_scores(rows, 1, 0, seed)
        caplog.clear()
        fusion, out_of_fold = select_fusion(CrossFitter(scores, CONTEXT, rows), proba)
        score, text_score = (
            classification_scores(rows.y[rows.has_text], y_pred[rows.has_text])["weighted_f1"]
            for y_pred in (out_of_fold.y_pred, out_of_fold.baselines["text alone"].y_pred)
        )
        assert score >= text_score
        if "images do not help" in caplog.text:
            n_without_images += 1
            assert not fusion.contributions(scores, CONTEXT)[IMAGE].any()
    assert n_without_images


def test_at_the_same_score_the_first_strategy_is_chosen(
    rows: TrainingRows, proba: DiskArray, caplog: pytest.LogCaptureFixture
) -> None:
    """Images that tell nothing at all change no prediction."""
    scores = make_scores(rows, 1, 0) | {IMAGE: np.zeros((N_ROWS, 4))}
    _, out_of_fold = select_fusion(CrossFitter(scores, CONTEXT, rows), proba)
    assert (out_of_fold.y_pred == out_of_fold.baselines["text alone"].y_pred).all()
    assert "image" not in caplog.text


def test_without_images_text_alone_is_used(rows: TrainingRows, proba: DiskArray) -> None:
    scores = {NGRAMS: make_scores(rows, 1, 0)[NGRAMS]}
    fusion, out_of_fold = select_fusion(CrossFitter(scores, CONTEXT, rows), proba)
    assert fusion.views == (NGRAMS,)
    assert (out_of_fold.y_pred == out_of_fold.baselines["text alone"].y_pred).all()


def test_the_score_that_decides_is_that_of_products_with_text(rows: TrainingRows) -> None:
    fitter = CrossFitter(make_scores(rows, 1, 1), CONTEXT, rows)
    y_pred = np.where(rows.has_text, rows.y, (rows.y + 1) % 4)
    assert fitter.weighted_f1(y_pred) == 1
    none = TrainingRows(CLASSES, rows.y, rows.fold, np.zeros(N_ROWS, dtype=bool), 0)
    assert CrossFitter(make_scores(none, 1, 1), CONTEXT, none).weighted_f1(y_pred) == 0


def test_baselines_are_judged_on_the_products_that_have_the_view(rows: TrainingRows, proba: DiskArray) -> None:
    scores = make_scores(rows, 1, 2)
    _, out_of_fold = select_fusion(CrossFitter(scores, CONTEXT, rows), proba)
    baselines = out_of_fold.baselines
    assert list(baselines) == [NGRAMS, IMAGE, "equal average", "text alone"]
    assert (baselines[NGRAMS].mask == rows.has_text).all()
    assert baselines["equal average"].mask.all()
    mask = rows.has_text
    assert (baselines[NGRAMS].y_pred[mask] == scores[NGRAMS][mask].argmax(axis=1)).all()
    assert (baselines[IMAGE].y_pred == scores[IMAGE].argmax(axis=1)).all()
    # Without text, the mean is over the image alone, and the n-gram view gives the most common class.
    assert (baselines["equal average"].y_pred[~mask] == scores[IMAGE][~mask].argmax(axis=1)).all()
    assert set(baselines[NGRAMS].y_pred[~mask]) == {np.bincount(rows.y).argmax()}


def with_finetuned(rows: TrainingRows, skill: float) -> dict[str, FloatArray]:
    """Scores of n-grams, images and a fine-tuned network; a negative skill is wrong on purpose on half of the folds."""
    scores = make_scores(rows, 1, 1)
    finetuned = np.random.default_rng(9).normal(size=(N_ROWS, 4))
    wrong = (rows.fold % 2 == 0) if skill < 0 else np.zeros(N_ROWS, dtype=bool)
    finetuned[np.arange(N_ROWS), np.where(wrong, (rows.y + 1) % 4, rows.y)] += abs(skill)
    finetuned[~rows.has_text] = np.nan
    return {**scores, FINETUNED_TEXT: finetuned}


def test_a_fine_tuned_view_that_helps_is_used_and_compared(rows: TrainingRows, proba: DiskArray) -> None:
    scores = with_finetuned(rows, 3)
    fusion, out_of_fold = select_fusion(CrossFitter(scores, CONTEXT, rows), proba)
    assert set(fusion.views) == {NGRAMS, IMAGE, FINETUNED_TEXT}
    without = out_of_fold.baselines["without fine-tuned text"]
    assert out_of_fold.correct.mean() > (without.y_pred == rows.y).mean() + 0.05
    two_views = {view: scores[view] for view in (NGRAMS, IMAGE)}
    other = DiskArray.full(proba.path.with_name("other.npy"), (N_ROWS, 4), np.nan)
    assert (select_fusion(CrossFitter(two_views, CONTEXT, rows), other)[1].y_pred == without.y_pred).all()
    assert out_of_fold.baselines[FINETUNED_TEXT].mask.sum() == rows.has_text.sum()


def test_a_fine_tuned_view_that_does_not_help_is_left_out_and_compared(
    rows: TrainingRows, proba: DiskArray, caplog: pytest.LogCaptureFixture
) -> None:
    scores = with_finetuned(rows, -3)
    fusion, out_of_fold = select_fusion(CrossFitter(scores, CONTEXT, rows), proba)
    assert set(fusion.views) == {NGRAMS, IMAGE}
    assert "fine-tuned text does not help out of fold and is left out" in caplog.text
    f1 = {
        name: classification_scores(rows.y, each.y_pred)["weighted_f1"] for name, each in out_of_fold.baselines.items()
    }
    assert f1["with fine-tuned text"] < classification_scores(rows.y, out_of_fold.y_pred)["weighted_f1"]
    assert FINETUNED_TEXT in f1 and "without fine-tuned text" not in f1
    assert (proba[:].argmax(axis=1) == out_of_fold.y_pred).all()
    assert (out_of_fold.confidence == proba[:].max(axis=1)).all()


def test_of_two_fine_tuned_views_only_the_one_that_helps_is_used(rows: TrainingRows, proba: DiskArray) -> None:
    good, bad = with_finetuned(rows, 3), with_finetuned(rows, -3)
    scores = {**good, FINETUNED_IMAGE: bad[FINETUNED_TEXT]}
    fusion, out_of_fold = select_fusion(CrossFitter(scores, CONTEXT, rows), proba)
    assert set(fusion.views) == {NGRAMS, IMAGE, FINETUNED_TEXT}
    names = [name for name in out_of_fold.baselines if name.startswith("with")]
    assert names == [
        "with fine-tuned text and fine-tuned picture",
        "without fine-tuned text",
        "without fine-tuned text and fine-tuned picture",
    ]
    assert {FINETUNED_TEXT, FINETUNED_IMAGE} < set(out_of_fold.baselines)


def test_a_fine_tuned_network_of_images_is_weighed_as_images_are(rows: TrainingRows, proba: DiskArray) -> None:
    """Without the view of frozen embeddings, too: what the text says alone is compared with it."""
    finetuned = with_finetuned(rows, 3)
    scores = {NGRAMS: finetuned[NGRAMS], FINETUNED_IMAGE: finetuned[FINETUNED_TEXT]}
    fusion, out_of_fold = select_fusion(CrossFitter(scores, CONTEXT, rows), proba)
    assert set(fusion.views) == {NGRAMS, FINETUNED_IMAGE}
    alone = out_of_fold.baselines["text alone"].y_pred
    assert out_of_fold.correct.mean() > (alone == rows.y).mean() + 0.05
