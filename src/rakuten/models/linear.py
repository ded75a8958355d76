"""Linear classifiers of one view of a product: an SVM on n-grams, discriminant analysis on embeddings."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve
from scipy.linalg.blas import ssyrk
from scipy.sparse import csr_matrix
from sklearn.svm import LinearSVC

from rakuten.evaluation.metrics import Floats, Ints
from rakuten.features.embedding import release

Numbers = NDArray[np.floating[Any]]

ROWS = 4096  # read at a time, so that memory does not grow with them
UNKNOWN = -1.5  # the SVM's score for a class that it never saw: surely not this one
TOLERANCE = 0.5  # of the solver: 1e-4 takes twice as long for the same score (docs/performance.md)
CAUTION = 2.0  # rows for each column: best or near it by log loss from 108 to 872 pictures


class Linear(NamedTuple):
    """Scores are `features @ coef.T + intercept`; coef is classes x features, float32.

    In Fortran's order, so that sparse features need no copy of it for each product.
    """

    classes: Ints
    coef: NDArray[np.float32]
    intercept: NDArray[np.float32]

    def decision(self, features: csr_matrix | Numbers) -> Floats:
        coef = self.coef
        if isinstance(features, np.ndarray):
            # Embeddings come in float16. In 64 bits a score does not depend on how many rows are scored with it.
            features, coef = features.astype(np.float64), coef.astype(np.float64)
        scores: Floats = np.asarray(features @ coef.T, dtype=np.float64) + self.intercept
        return scores


def fit_svm(matrix: csr_matrix, codes: Ints, svm_c: float, seed: int) -> Linear:
    """One linear SVM per class against the rest, classes weighted by the inverse of their size."""
    svm = LinearSVC(C=svm_c, class_weight="balanced", random_state=seed, tol=TOLERANCE).fit(matrix, codes)
    coef, intercept = svm.coef_, svm.intercept_
    if len(svm.classes_) == 2:  # sklearn keeps one row for two classes
        coef, intercept = np.vstack([-coef, coef]), np.concatenate([-intercept, intercept])
    return Linear(svm.classes_.astype(np.int64), coef.astype(np.float32, order="F"), intercept.astype(np.float32))


class Moments(NamedTuple):
    """What discriminant analysis needs to know of rows. Moments of two sets of rows add and subtract."""

    rows: Floats  # per class
    sums: Floats  # classes x width
    products: Floats  # width x width, uncentred; the upper triangle only

    @classmethod
    def of(cls, vectors: Numbers, rows: Ints, index: Ints, classes: int) -> "Moments":
        """Moments of some rows of embeddings (rows x width), none of them NaN, whose class columns are `index`."""
        width = vectors.shape[1]
        sums, products = np.zeros((classes, width)), np.zeros((width, width))
        for at in range(0, len(rows), ROWS):
            part = np.asarray(vectors[rows[at : at + ROWS]], dtype=np.float32)
            release(vectors)
            member = np.eye(classes, dtype=np.float32)[index[at : at + ROWS]]
            sums += member.T @ part
            products += ssyrk(1.0, part.T)  # half the work of part.T @ part
        return cls(np.bincount(index, minlength=classes).astype(np.float64), sums, products)

    def __sub__(self, other: "Moments") -> "Moments":
        return Moments(self.rows - other.rows, self.sums - other.sums, self.products - other.products)

    @classmethod
    def total(cls, parts: Sequence["Moments"]) -> "Moments":
        return cls(*(np.sum(field, axis=0) for field in zip(*parts, strict=True)))

    def gram(self) -> Floats:
        """Products, both triangles."""
        return self.products + np.triu(self.products, 1).T


def fit_discriminant(moments: Moments, classes: Ints) -> Linear:
    """Linear discriminant analysis with equal priors, cautious by two rules that hold for any number of rows.

    The within-class covariance is drawn to its own diagonal, as if CAUTION rows for each of its
    columns had said so. Each class's mean is drawn to the mean of the classes by so many rows as
    the variance within classes is larger than that between them: a class of few rows is judged
    with caution, and one of none gets the same score, zero, for every product.
    """
    rows, seen = moments.rows, moments.rows > 0
    means = moments.sums / np.maximum(rows, 1)[:, None]
    within = moments.gram() - (means.T * rows) @ means
    freedom = max(float(rows.sum()) - np.count_nonzero(seen), 1.0)
    scale = np.sqrt(np.maximum(np.diag(within), 0.0) / freedom)
    grand = means[seen].mean(axis=0)
    # A column that never moves, but for rounding, must not be blown up.
    scale = np.maximum(scale, max(1e-3 * scale.max(), 1e-3 * np.abs(grand).max(), 1e-9))
    within /= np.outer(scale, scale)
    means = np.where(seen[:, None], (means - grand) / scale, 0.0)
    between = float(np.square(means[seen]).mean() - (1 / rows[seen]).mean())
    means *= (rows / (rows + 1 / max(between, 1e-6)))[:, None]
    width = len(within)
    within.flat[:: width + 1] += CAUTION * width  # in these units the diagonal is one
    coef = solve(within, means.T, assume_a="pos").T * (freedom + CAUTION * width)
    intercept = -0.5 * (coef * means).sum(axis=1)
    coef /= scale
    return Linear(classes, coef.astype(np.float32), (intercept - coef @ grand).astype(np.float32))
