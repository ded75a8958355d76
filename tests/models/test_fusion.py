"""The second stage: it learns whom to trust, when, and says how sure it is."""

import numpy as np
import pandas as pd
import pytest

from rakuten.evaluation import calibration
from rakuten.models import fusion
from rakuten.models.fusion import CONTEXT, Fusion, fit_fusion, gating_context

CLASSES = np.array([10, 40, 50, 60])


def table(rows: int, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    described = rng.integers(0, 2, rows)
    return pd.DataFrame(
        {
            "designation_len": rng.integers(5, 100, rows),
            "description_len": described * 200,
            "has_description": described,
            "has_image": rng.integers(0, 2, rows),
        }
    )


def view(truth: np.ndarray, skill: np.ndarray | float, seed: int, loud: float = 1.0) -> np.ndarray:
    """Scores that favour the true class by so much over noise of one."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(len(truth), len(CLASSES)))
    scores[np.arange(len(truth)), truth] += skill
    return scores * loud


def made(rows: int = 4000, seed: int = 0) -> tuple[pd.DataFrame, np.ndarray]:
    return table(rows, seed), np.random.default_rng(seed + 1).integers(0, 4, rows)


def right(fused: Fusion, scores: dict[str, np.ndarray], frame: pd.DataFrame, truth: np.ndarray) -> float:
    return float((fused.predict_proba(scores, gating_context(frame)).argmax(axis=1) == truth).mean())


def test_two_views_are_better_than_one_and_loudness_is_no_skill() -> None:
    frame, truth = made()
    scores = {"words": view(truth, 1.5, 2), "picture": view(truth, 0.7, 3, loud=50)}
    alone = (scores["words"].argmax(axis=1) == truth).mean()
    assert right(fit_fusion(scores, gating_context(frame), truth, CLASSES), scores, frame, truth) > alone + 0.04


def test_noise_gets_no_weight() -> None:
    frame, truth = made()
    scores = {"words": view(truth, 1.5, 2), "picture": view(truth, 0.0, 3, loud=50)}
    fused = fit_fusion(scores, gating_context(frame), truth, CLASSES)
    parts = fused.parts(scores, gating_context(frame))
    assert parts["picture"].std() < 0.15 * parts["words"].std()


def test_trust_depends_on_the_context() -> None:
    """The picture tells only where there is no description."""
    frame, truth = made(8000)
    skill = np.where(frame["has_description"] == 1, 0.0, 2.5)
    scores = {"words": view(truth, 1.0, 2), "picture": view(truth, skill, 3)}
    parts = fit_fusion(scores, gating_context(frame), truth, CLASSES).parts(scores, gating_context(frame))
    described = frame["has_description"].to_numpy() == 1
    assert parts["picture"][~described].std() > 4 * parts["picture"][described].std()


def test_probabilities_are_calibrated_even_of_overconfident_views() -> None:
    frame, truth = made(12_000)
    scores = {"words": view(truth, 1.5, 2, loud=9), "picture": view(truth, 1.0, 3, loud=30)}
    half = 6000
    where = gating_context(frame)
    fused = fit_fusion({name: each[:half] for name, each in scores.items()}, where[:half], truth[:half], CLASSES)
    likely = fused.predict_proba({name: each[half:] for name, each in scores.items()}, where[half:])
    error = calibration.reliability(likely.max(axis=1), likely.argmax(axis=1) == truth[half:]).error
    assert error < 0.03
    assert likely.sum(axis=1) == pytest.approx(1)


def test_a_missing_view_says_nothing_and_nothing_at_all_is_the_prior() -> None:
    frame, truth = made()
    truth = np.where(np.arange(len(truth)) % 2 == 0, 0, truth)
    scores = {"words": view(truth, 1.5, 2), "picture": view(truth, 1.0, 3)}
    fused = fit_fusion(scores, gating_context(frame), truth, CLASSES)
    gone = {name: np.full_like(each, np.nan) for name, each in scores.items()}
    words = {"words": scores["words"], "picture": gone["picture"]}
    assert np.isfinite(fused.predict_proba(words, gating_context(frame))).all()
    assert not fused.parts(words, gating_context(frame))["picture"].any()
    nothing = fused.predict_proba(gone, gating_context(frame))
    assert (nothing == nothing[0]).all()
    assert nothing[0].argmax() == 0


def test_a_last_resort_counts_only_without_text() -> None:
    frame, truth = made()
    bare = np.arange(len(frame)) % 4 == 0
    frame.loc[bare, ["designation_len", "description_len", "has_description"]] = 0
    words = view(truth, 1.0, 2)
    words[bare] = np.nan
    scores = {"words": words, "picture": view(truth, 2.0, 3)}
    text = fit_fusion({"words": words}, gating_context(frame), truth, CLASSES)
    fused = fit_fusion(scores, gating_context(frame), truth, CLASSES, base=text, last_resort=True)
    parts = fused.parts(scores, gating_context(frame))
    by_text = text.predict_proba({"words": words}, gating_context(frame))
    assert (fused.predict_proba(scores, gating_context(frame))[~bare] == by_text[~bare]).all()
    assert not parts["picture"][~bare].any()
    assert parts["picture"][bare].std() > 0.5
    assert right(fused, scores, frame, truth) > 0.6


def test_a_view_beside_a_fusion_leaves_it_as_it_is() -> None:
    frame, truth = made()
    words, picture = view(truth, 1.0, 2), view(truth, 1.0, 3)
    picture[::2] = np.nan
    text = fit_fusion({"words": words}, gating_context(frame), truth, CLASSES)
    scores = {"words": words, "picture": picture}
    fused = fit_fusion(scores, gating_context(frame), truth, CLASSES, base=text)
    likely, by_text = (
        fused.predict_proba(scores, gating_context(frame)),
        text.predict_proba(scores, gating_context(frame)),
    )
    assert (likely[::2] == by_text[::2]).all()
    seen = truth[1::2]
    assert (likely[1::2].argmax(axis=1) == seen).mean() > (by_text[1::2].argmax(axis=1) == seen).mean() + 0.05


def test_it_is_written_as_arrays_and_read_back() -> None:
    frame, truth = made(300)
    scores = {"words": view(truth, 1.5, 2), "picture": view(truth, 1.0, 3)}
    fused = fit_fusion(scores, gating_context(frame), truth, CLASSES)
    again = Fusion.of(fused.views, fused.arrays())
    assert (
        again.predict_proba(scores, gating_context(frame)) == fused.predict_proba(scores, gating_context(frame))
    ).all()
    assert gating_context(frame).shape == (300, len(CONTEXT))
    assert fused.trust.shape == (2, fusion.N_TERMS, len(CONTEXT))


def test_a_row_is_fused_alike_alone_and_in_a_batch() -> None:
    frame, truth = made(50)
    scores = {"words": view(truth, 1.5, 2), "picture": view(truth, 1.0, 3)}
    fused, where = fit_fusion(scores, gating_context(frame), truth, CLASSES), gating_context(frame)
    whole = fused.predict_proba(scores, where)
    alone = [fused.predict_proba({n: s[[at]] for n, s in scores.items()}, where[[at]])[0] for at in range(50)]
    assert np.abs(whole - alone).max() < 1e-12
