"""Linear classifiers of one view of a product: an SVM on n-grams, discriminant analysis on embeddings."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve
from scipy.linalg.blas import ssyrk
from scipy.sparse import csr_matrix
from sklearn.svm import LinearSVC

from rakuten.disk_array import MAPPED_ROWS, Array2D, row_chunks
from rakuten.types import EmbeddingArray, FloatArray, IntArray

UNSEEN_CLASS_SCORE = -1.5  # the SVM's score for a class that it was not trained on: well below its margin
TOLERANCE = 0.5  # of the solver: 1e-4 takes twice as long for the same score (docs/performance.md)
SHRINKAGE_ROWS_PER_COLUMN = 2.0  # best, or nearly, by out-of-fold log loss from 108 to 872 images


class LinearModel(NamedTuple):
    """A linear classifier: scores are `features @ coef.T + intercept`."""

    classes: IntArray
    coef: NDArray[np.float32]  # classes x features, in Fortran order: sparse features then need no copy of it
    intercept: NDArray[np.float32]  # classes

    def decision_function(self, features: csr_matrix | EmbeddingArray) -> FloatArray:
        """Scores, rows x classes, of rows x features."""
        coef = self.coef
        if isinstance(features, np.ndarray):
            # In 64 bits the score of a row does not depend on how many rows are scored at once.
            features, coef = features.astype(np.float64), coef.astype(np.float64)
        scores: FloatArray = np.asarray(features @ coef.T, dtype=np.float64) + self.intercept
        return scores


def fit_svm(features: csr_matrix, y: IntArray, svm_c: float, seed: int) -> LinearModel:
    """One linear SVM per class against the rest, classes weighted by the inverse of their size.

    Args:
        features: rows x features.
        y: the prdtypecode of each row; at least two different ones.
        svm_c: cost of a margin violation.
    """
    svm = LinearSVC(C=svm_c, class_weight="balanced", random_state=seed, tol=TOLERANCE).fit(features, y)
    coef, intercept = svm.coef_, svm.intercept_
    if len(svm.classes_) == 2:  # sklearn keeps one row for two classes
        coef, intercept = np.vstack([-coef, coef]), np.concatenate([-intercept, intercept])
    return LinearModel(svm.classes_.astype(np.int64), coef.astype(np.float32, order="F"), intercept.astype(np.float32))


class Moments(NamedTuple):
    """Sufficient statistics of linear discriminant analysis, which can be added and subtracted over sets of rows."""

    rows: FloatArray  # classes: number of rows
    sums: FloatArray  # classes x width
    products: FloatArray  # width x width, uncentred; the upper triangle only

    @classmethod
    def from_rows(cls, embeddings: Array2D, rows: IntArray, y: IntArray, n_classes: int) -> "Moments":
        """Moments of some rows of embeddings.

        Args:
            embeddings: rows x width, in memory or on disk; no NaN in the chosen rows.
            rows: the chosen row numbers.
            y: the class column of each chosen row.
        """
        width = embeddings.shape[1]
        sums, products = np.zeros((n_classes, width)), np.zeros((width, width))
        for chunk in row_chunks(len(rows), MAPPED_ROWS):
            values = np.asarray(embeddings[rows[chunk]], dtype=np.float32)
            one_hot = np.eye(n_classes, dtype=np.float32)[y[chunk]]
            sums += one_hot.T @ values
            products += ssyrk(1.0, values.T)  # half the work of values.T @ values
        return cls(np.bincount(y, minlength=n_classes).astype(np.float64), sums, products)

    def __sub__(self, other: "Moments") -> "Moments":
        return Moments(self.rows - other.rows, self.sums - other.sums, self.products - other.products)

    @classmethod
    def total(cls, parts: Sequence["Moments"]) -> "Moments":
        """The moments of all parts together."""
        return cls(*(np.sum(field, axis=0) for field in zip(*parts, strict=True)))

    def gram(self) -> FloatArray:
        """The uncentred products, both triangles: width x width."""
        return self.products + np.triu(self.products, 1).T


def fit_lda(moments: Moments, classes: IntArray) -> LinearModel:
    """Linear discriminant analysis with equal priors, from the moments of the train rows.

    Two kinds of shrinkage make it work for any number of rows. The pooled covariance is shrunk towards its diagonal,
    with the weight of SHRINKAGE_ROWS_PER_COLUMN pseudo-observations for each column. The mean of each class is shrunk
    towards the mean of all classes, with the weight of as many rows as the ratio of the variance within classes to
    that between them: a class of few rows gets cautious scores, and one of none gets zero for every product.

    scikit-learn's LinearDiscriminantAnalysis needs all rows in memory and does not subtract a fold's rows.
    """
    rows, has_rows = moments.rows, moments.rows > 0
    means = moments.sums / np.maximum(rows, 1)[:, None]
    within = moments.gram() - (means.T * rows) @ means
    degrees = max(float(rows.sum()) - np.count_nonzero(has_rows), 1.0)
    scale = np.sqrt(np.maximum(np.diag(within), 0.0) / degrees)
    grand_mean = means[has_rows].mean(axis=0)
    # A column that is constant but for rounding must not be blown up.
    scale = np.maximum(scale, max(1e-3 * scale.max(), 1e-3 * np.abs(grand_mean).max(), 1e-9))
    within /= np.outer(scale, scale)
    means = np.where(has_rows[:, None], (means - grand_mean) / scale, 0.0)
    between = float(np.square(means[has_rows]).mean() - (1 / rows[has_rows]).mean())
    means *= (rows / (rows + 1 / max(between, 1e-6)))[:, None]
    width = len(within)
    within.flat[:: width + 1] += SHRINKAGE_ROWS_PER_COLUMN * width  # in these units the diagonal is one
    coef = solve(within, means.T, assume_a="pos").T * (degrees + SHRINKAGE_ROWS_PER_COLUMN * width)
    intercept = -0.5 * (coef * means).sum(axis=1)
    coef /= scale
    return LinearModel(classes, coef.astype(np.float32), (intercept - coef @ grand_mean).astype(np.float32))
