"""The linear classifiers under the views."""

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from rakuten.models import linear as module
from rakuten.models.linear import Moments, fit_lda, fit_svm


def clouds(rows: int, width: int = 6, classes: int = 3, apart: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    index = rng.integers(0, classes, rows)
    return (rng.normal(size=(classes, width))[index] * apart + rng.normal(size=(rows, width))).astype(np.float32), index


def moments(vectors: np.ndarray, index: np.ndarray, classes: int) -> Moments:
    return Moments.of(vectors, np.arange(len(vectors)), index, classes)


def test_with_many_rows_it_is_the_textbooks_discriminant_analysis() -> None:
    vectors, index = clouds(20_000)
    found = fit_lda(moments(vectors, index, 3), np.array([10, 40, 50]))
    book = LinearDiscriminantAnalysis(solver="lsqr", priors=[1 / 3] * 3).fit(vectors, index)
    ours, theirs = found.decision(vectors), book.decision_function(vectors)
    ours, theirs = ours - ours.mean(axis=1, keepdims=True), theirs - theirs.mean(axis=1, keepdims=True)
    assert np.abs(ours - theirs).max() < 0.02 * theirs.std()
    assert found.classes.tolist() == [10, 40, 50]


def test_moments_add_and_subtract(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, index = clouds(500)
    whole = moments(vectors, index, 4)
    assert whole.rows.tolist() == [*np.bincount(index), 0]
    assert whole.gram() == pytest.approx(vectors.T.astype(np.float64) @ vectors, rel=1e-5)
    monkeypatch.setattr(module, "ROWS", 33)
    first, second = moments(vectors[:200], index[:200], 4), moments(vectors[200:], index[200:], 4)
    for one, other in zip(Moments.total([first, second]), whole, strict=True):
        assert one == pytest.approx(other, rel=1e-5, abs=1e-4)
    for one, other in zip(whole - second, first, strict=True):
        assert one == pytest.approx(other, rel=1e-4, abs=1e-3)


def test_a_class_without_rows_scores_zero_and_few_rows_are_judged_with_caution() -> None:
    vectors, index = clouds(600, apart=0.6)
    few = np.flatnonzero((index != 2) | (np.cumsum(index == 2) == 1))
    many = fit_lda(moments(vectors, index, 4), np.arange(4))
    scarce = fit_lda(moments(vectors[few], index[few], 4), np.arange(4))
    for model in (many, scarce):
        assert not model.coef[3].any()
        assert model.decision(vectors)[:, 3] == pytest.approx(0)
    assert np.linalg.norm(scarce.coef[2]) < 0.7 * np.linalg.norm(many.coef[2])


def test_a_column_that_never_moves_breaks_nothing() -> None:
    vectors, index = clouds(50)
    vectors[:, 2] = 7
    assert np.isfinite(fit_lda(moments(vectors, index, 3), np.arange(3)).coef).all()
    assert np.isfinite(fit_lda(moments(vectors[:1], index[:1], 3), np.arange(3)).coef).all()


def test_more_columns_than_rows_still_learns() -> None:
    vectors, index = clouds(120, width=400)
    found = fit_lda(moments(vectors[:80], index[:80], 3), np.arange(3))
    assert (found.decision(vectors[80:]).argmax(axis=1) == index[80:]).mean() > 0.9


def test_two_classes_have_two_scores() -> None:
    linear = fit_svm(csr_matrix(np.eye(4, dtype=np.float32)), np.array([10, 10, 40, 40]), 1.0, 0)
    scores = linear.decision(csr_matrix(np.eye(4, dtype=np.float32)))
    assert scores.shape == (4, 2)
    assert linear.classes[scores.argmax(axis=1)].tolist() == [10, 10, 40, 40]
