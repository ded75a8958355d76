"""Calibration of confidences: temperature, reliability, coverage, threshold. Pure functions of arrays."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from rakuten.types import BoolArray, FloatArray, IntArray

N_BINS = 10  # of the reliability diagram
NO_THRESHOLD = 1.1  # a threshold that no confidence reaches


def fit_temperature(scores: FloatArray, y: IntArray) -> tuple[float, float]:
    """Temperature t that makes softmax(scores / t) most likely (Guo et al. 2017), and the mean log loss at it.

    scikit-learn's CalibratedClassifierCV(method="temperature") does the same around an estimator; here the
    scores exist already.

    Args:
        scores: out-of-fold scores, rows x classes.
        y: true class column of each row.
    """
    rows = np.arange(len(scores))

    def loss(log_t: float) -> float:
        return float(-log_softmax(scores / np.exp(log_t), axis=1)[rows, y].mean())

    result = minimize_scalar(loss, bounds=(-7.0, 7.0), method="bounded")
    return float(np.exp(result.x)), float(result.fun)


def single_view_proba(scores: FloatArray, temperature: float, class_shares: FloatArray) -> FloatArray:
    """Probabilities (rows x classes) from the scores of one view; the class shares where the view is missing (NaN)."""
    mask = ~np.isnan(scores[:, 0])
    proba = np.tile(class_shares, (len(scores), 1))
    proba[mask] = softmax(scores[mask] / temperature, axis=1)
    return proba


def mean_proba_baseline(proba: Mapping[str, FloatArray], present: Mapping[str, BoolArray]) -> FloatArray:
    """Plain mean of the probabilities of the views that a product has (rows x classes): what a fusion must beat.

    Args:
        proba: for each view, rows x classes.
        present: for each view, the rows that have it.
    """
    weight = np.array([present[view] for view in proba], dtype=np.float64)
    weight[:, weight.sum(axis=0) == 0] = 1.0
    weighted = (
        view_proba * view_weight[:, None] for view_proba, view_weight in zip(proba.values(), weight, strict=True)
    )
    mean: FloatArray = np.sum(list(weighted), axis=0) / weight.sum(axis=0)[:, None]
    return mean


class Reliability(NamedTuple):
    """A reliability diagram, and its expected calibration error."""

    table: pd.DataFrame  # confidence (mean), accuracy, rows of each bin that has rows
    error: float


def reliability(confidence: FloatArray, correct: BoolArray) -> Reliability:
    """Equal-width bins of the confidence; the error is weighted by the rows of each bin (Guo et al. 2017)."""
    bins = np.minimum((confidence * N_BINS).astype(int), N_BINS - 1)
    frame = pd.DataFrame({"bin": bins, "confidence": confidence, "accuracy": correct.astype(float)})
    table = frame.groupby("bin", as_index=False).agg(
        confidence=("confidence", "mean"), accuracy=("accuracy", "mean"), rows=("accuracy", "size")
    )
    error = float(((table["confidence"] - table["accuracy"]).abs() * table["rows"]).sum() / len(frame))
    return Reliability(table.drop(columns="bin"), error)


def coverage_curve(confidence: FloatArray, correct: BoolArray, points: int = 100) -> pd.DataFrame:
    """Accuracy of the most confident rows: coverage (share of the rows), precision, threshold (least confidence)."""
    order = np.argsort(-confidence, kind="stable")
    n_kept = np.unique(np.linspace(1, len(order), min(points, len(order))).round().astype(int))
    precision = np.cumsum(correct[order])[n_kept - 1] / n_kept
    return pd.DataFrame(
        {"coverage": n_kept / len(order), "precision": precision, "threshold": confidence[order][n_kept - 1]}
    )


def threshold_at_precision(confidence: FloatArray, correct: BoolArray, target: float) -> float:
    """The lowest confidence at and above which the share of right predictions reaches the target; 1.1 if none does."""
    order = np.argsort(-confidence, kind="stable")
    precision = np.cumsum(correct[order]) / np.arange(1, len(order) + 1)
    last_of_ties = np.append(np.diff(confidence[order]) < 0, True)
    reached = np.flatnonzero((precision >= target) & last_of_ties)
    return float(confidence[order][reached[-1]]) if len(reached) else NO_THRESHOLD
