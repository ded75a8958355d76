import numpy as np
import pytest
from scipy.sparse import csr_matrix
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from rakuten.models import linear as module
from rakuten.models.linear import LinearModel, Moments, fit_lda, fit_svm
from rakuten.types import FloatArray, IntArray


def make_clusters(
    n_rows: int, width: int = 6, n_classes: int = 3, distance: float = 2.0
) -> tuple[np.ndarray, IntArray]:
    """Normal clusters of variance one, and the class column of each row."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, n_classes, n_rows)
    centres = rng.normal(size=(n_classes, width)) * distance
    return (centres[y] + rng.normal(size=(n_rows, width))).astype(np.float32), y


def moments_of(values: np.ndarray, y: IntArray, n_classes: int) -> Moments:
    return Moments.from_rows(values, np.arange(len(values)), y, n_classes)


def lda(values: np.ndarray, y: IntArray, n_classes: int = 3) -> LinearModel:
    return fit_lda(moments_of(values, y, n_classes), np.arange(n_classes))


def centred(scores: FloatArray) -> FloatArray:
    return scores - scores.mean(axis=1, keepdims=True)


def test_with_many_rows_it_is_textbook_discriminant_analysis() -> None:
    values, y = make_clusters(20_000)
    model = fit_lda(moments_of(values, y, 3), np.array([10, 40, 50]))
    textbook = LinearDiscriminantAnalysis(solver="lsqr", priors=[1 / 3] * 3).fit(values, y)
    expected = centred(textbook.decision_function(values))
    assert np.abs(centred(model.decision_function(values)) - expected).max() < 0.02 * expected.std()
    assert model.classes.tolist() == [10, 40, 50]


def test_moments_add_and_subtract(monkeypatch: pytest.MonkeyPatch) -> None:
    values, y = make_clusters(500)
    total = moments_of(values, y, 4)
    assert total.rows.tolist() == [*np.bincount(y), 0]
    assert total.gram() == pytest.approx(values.T.astype(np.float64) @ values, rel=1e-5)
    monkeypatch.setattr(module, "MAPPED_ROWS", 33)
    first, second = moments_of(values[:200], y[:200], 4), moments_of(values[200:], y[200:], 4)
    for summed, expected in zip(Moments.total([first, second]), total, strict=True):
        assert summed == pytest.approx(expected, rel=1e-5, abs=1e-4)
    for difference, expected in zip(total - second, first, strict=True):
        assert difference == pytest.approx(expected, rel=1e-4, abs=1e-3)


def test_moments_are_those_of_the_chosen_rows() -> None:
    values, y = make_clusters(100)
    rows = np.array([7, 3, 50])
    chosen = Moments.from_rows(values, rows, y[rows], 3)
    for part, expected in zip(chosen, moments_of(values[rows], y[rows], 3), strict=True):
        assert (part == expected).all()


def test_a_class_without_rows_has_zero_scores() -> None:
    values, y = make_clusters(600)
    model = lda(values, y, 4)
    assert not model.coef[3].any()
    assert model.decision_function(values)[:, 3] == pytest.approx(0)


def test_the_mean_of_a_class_with_few_rows_is_shrunk() -> None:
    values, y = make_clusters(600, distance=0.6)
    only_one_of_last = np.flatnonzero((y != 2) | (np.cumsum(y == 2) == 1))
    many, one = lda(values, y), lda(values[only_one_of_last], y[only_one_of_last])
    assert np.linalg.norm(one.coef[2]) < 0.7 * np.linalg.norm(many.coef[2])


def test_classes_that_do_not_differ_get_scores_near_zero() -> None:
    """Their means differ by chance: as much as means of so few rows do."""
    rng = np.random.default_rng(0)
    values, y = rng.normal(size=(600, 100)).astype(np.float32), np.arange(600) % 3
    scores = centred(lda(values, y).decision_function(values))
    textbook = LinearDiscriminantAnalysis(solver="lsqr", priors=[1 / 3] * 3).fit(values, y)
    assert scores.std() < 0.2 * centred(textbook.decision_function(values)).std()


def test_a_class_without_rows_changes_nothing_for_the_others() -> None:
    values, y = make_clusters(300)
    values += 5
    assert lda(values, y, 4).coef[:3] == pytest.approx(lda(values, y, 3).coef)


def correlated_clusters(n_rows: int, width: int, n_classes: int = 3) -> tuple[np.ndarray, IntArray]:
    """The same number of rows in each class, of correlated columns with variances of all sizes."""
    rng = np.random.default_rng(0)
    y = np.arange(n_rows) % n_classes
    noise = rng.normal(size=(n_rows, width)) @ (np.eye(width) + rng.normal(size=(width, width)) / 6)
    centres = 3 * rng.normal(size=(n_classes, width))
    return ((centres[y] + noise) * rng.uniform(0.2, 5, width)).astype(np.float32), y


def test_the_covariance_is_shrunk_as_by_two_rows_for_each_column() -> None:
    """scikit-learn's shrinkage on columns of variance one, with the share that these rows are of all."""
    n_rows, width, n_classes = 60, 40, 20
    values, y = correlated_clusters(n_rows, width, n_classes)
    centres = np.stack([values[y == k].mean(axis=0) for k in range(n_classes)])
    deviation = np.sqrt(np.square(values - centres[y]).sum(axis=0) / n_rows)
    degrees = n_rows - n_classes
    shrinkage = 2 * width / (degrees + 2 * width)
    textbook = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage, priors=[1 / n_classes] * n_classes)
    expected = centred(textbook.fit(values / deviation, y).coef_.T)
    coef = centred((lda(values, y, n_classes).coef * deviation).T)
    # scikit-learn divides by the number of rows, and the class means are shrunk a little.
    scale = (coef * expected).sum() / np.square(expected).sum()
    assert scale == pytest.approx(degrees / n_rows, rel=0.1)
    assert coef == pytest.approx(scale * expected, abs=0.01 * float(coef.std()))


def test_the_fewer_rows_the_closer_it_is_to_a_model_of_independent_columns() -> None:
    def distance_to_independent(n_rows: int) -> float:
        values, y = correlated_clusters(n_rows, 30)
        centres = np.stack([values[y == k].mean(axis=0) for k in range(3)])
        variance = np.square(values - centres[y]).mean(axis=0)
        independent = centred(((centres - centres.mean(axis=0)) / variance).T).T
        coef = lda(values, y).coef
        return float(1 - (coef * independent).sum() / np.linalg.norm(coef) / np.linalg.norm(independent))

    assert distance_to_independent(12) < 0.1 < distance_to_independent(3000)


def test_a_constant_column_is_no_problem() -> None:
    values, y = make_clusters(50)
    values[:, 2] = 7
    assert np.isfinite(lda(values, y).coef).all()
    assert np.isfinite(lda(values[:1], y[:1]).coef).all()


def test_it_learns_from_fewer_rows_than_columns() -> None:
    values, y = make_clusters(120, width=400)
    model = lda(values[:80], y[:80])
    assert (model.decision_function(values[80:]).argmax(axis=1) == y[80:]).mean() > 0.9


def test_the_score_of_a_row_does_not_depend_on_the_rows_beside_it() -> None:
    values, y = make_clusters(200, width=400)
    model = lda(values, y)
    at_once = model.decision_function(values)
    alone = np.vstack([model.decision_function(values[[row]]) for row in range(20)])
    assert at_once[:20] == pytest.approx(alone, rel=1e-12, abs=1e-10)


def test_the_svm_has_a_score_for_each_class() -> None:
    values, y = make_clusters(300)
    model = fit_svm(csr_matrix(values), np.array([10, 40, 50])[y], 1.0, 0)
    scores = model.decision_function(csr_matrix(values))
    assert scores.shape == (300, 3)
    assert (model.classes[scores.argmax(axis=1)] == np.array([10, 40, 50])[y]).mean() > 0.95
    assert model.coef.flags.f_contiguous


def test_the_svm_of_two_classes_has_two_scores() -> None:
    features = csr_matrix(np.eye(4, dtype=np.float32))
    model = fit_svm(features, np.array([10, 10, 40, 40]), 1.0, 0)
    scores = model.decision_function(features)
    assert scores.shape == (4, 2)
    assert scores[:, 0] == pytest.approx(-scores[:, 1])
    assert model.classes[scores.argmax(axis=1)].tolist() == [10, 10, 40, 40]


def test_the_svm_weighs_classes_by_the_inverse_of_their_size() -> None:
    """Of two overlapping clusters, the small one is found as often as the large one."""
    rng = np.random.default_rng(0)
    y = np.array([0] * 1900 + [1] * 100)
    values = np.column_stack([np.ones(2000), y + rng.normal(size=2000)]).astype(np.float32)
    model = fit_svm(csr_matrix(values), y, 1.0, 0)
    y_pred = model.decision_function(csr_matrix(values)).argmax(axis=1)
    assert (y_pred[y == 1] == 1).mean() > 0.5
    assert (y_pred[y == 0] == 0).mean() > 0.5
