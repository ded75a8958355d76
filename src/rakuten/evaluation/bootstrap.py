"""Confidence intervals by resampling rows. Pure functions of arrays."""

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from rakuten.types import FloatArray, IntArray

CONFIDENCE_LEVEL = 0.95  # of every interval


class ConfidenceIntervals(NamedTuple):
    """95 % percentile bootstrap intervals over rows drawn with replacement."""

    scores: dict[str, tuple[float, float]]  # of weighted_f1, macro_f1, accuracy
    f1: dict[int, tuple[float, float]]  # of the F1 of each true code; resamples without any row of it are ignored


def bootstrap_ci(y_true: IntArray, y_pred: IntArray, n_resamples: int, seed: int) -> ConfidenceIntervals:
    """Intervals of the scores of some predictions.

    Args:
        y_true, y_pred: the prdtypecode of each row.
        n_resamples: how often rows are drawn; each draw has as many rows as there are.
    """
    codes, encoded = np.unique(np.concatenate([y_true, y_pred]), return_inverse=True)
    size, rows = len(codes), len(y_true)
    confusion = np.bincount(encoded[:rows] * size + encoded[rows:], minlength=size * size)
    # Rows drawn with replacement fall into the cells of the confusion matrix as one multinomial draw.
    resampled = np.random.default_rng(seed).multinomial(rows, confusion / rows, n_resamples).reshape(-1, size, size)
    draws = np.array([_scores_of_confusion(matrix) for matrix in resampled])
    tail = (1 - CONFIDENCE_LEVEL) / 2
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "All-NaN slice", RuntimeWarning)
        low, high = np.nanquantile(draws, [tail, 1 - tail], axis=0).tolist()
    names = ("weighted_f1", "macro_f1", "accuracy")
    is_true_code = np.isin(codes, y_true)
    return ConfidenceIntervals(
        {name: (low[i], high[i]) for i, name in enumerate(names)},
        {int(code): (low[3 + i], high[3 + i]) for i, code in enumerate(codes) if is_true_code[i]},
    )


def _scores_of_confusion(confusion: IntArray | FloatArray) -> FloatArray:
    """Weighted F1, macro F1, accuracy, then F1 of each code (NaN for one without rows)."""
    support, predicted, correct = confusion.sum(axis=1), confusion.sum(axis=0), np.diag(confusion)
    has_rows = support > 0
    f1 = np.where(has_rows, 2 * correct / np.where(has_rows, support + predicted, 1), np.nan)
    weighted = np.average(f1[has_rows], weights=support[has_rows])
    return np.array([weighted, f1[has_rows].mean(), correct.sum() / support.sum(), *f1])


def stratified_weighted_f1(
    y_true: Sequence[IntArray], y_pred: Sequence[IntArray], shares: FloatArray, n_resamples: int, seed: int
) -> tuple[float, tuple[float, float]]:
    """Weighted F1 of a population of which some rows of each stratum are known, and its 95 % interval.

    Each row counts by the share of its stratum in the population, divided by the stratum's number of known rows. Rows
    are drawn with replacement within each stratum.

    Args:
        y_true, y_pred: for each stratum the prdtypecode of its known rows, of one at least.
        shares: of each stratum in the population.
        n_resamples: how often rows are drawn.
    """
    codes = np.unique(np.concatenate([*y_true, *y_pred]))
    size, rng = len(codes), np.random.default_rng(seed)
    weighted, resampled = np.zeros((size, size)), np.zeros((n_resamples, size, size))
    for true, predicted, share in zip(y_true, y_pred, shares, strict=True):
        cells = np.searchsorted(codes, true) * size + np.searchsorted(codes, predicted)
        proportions = np.bincount(cells, minlength=size * size) / len(true)
        weighted += share * proportions.reshape(size, size)
        resampled += share / len(true) * rng.multinomial(len(true), proportions, n_resamples).reshape(-1, size, size)
    tail = (1 - CONFIDENCE_LEVEL) / 2
    draws = [_scores_of_confusion(matrix)[0] for matrix in resampled]
    low, high = np.quantile(draws, [tail, 1 - tail]).tolist()
    return float(_scores_of_confusion(weighted)[0]), (low, high)


class PairedComparison(NamedTuple):
    """What one model gains over another on the same rows."""

    gain: float  # in weighted F1
    interval: tuple[float, float]  # of the gain, 95 %
    f1_gain: dict[int, float]  # of each true code
    f1_interval: dict[int, tuple[float, float]]  # of each gain, 95 %; resamples without any row of the code are ignored


def paired_bootstrap(
    y_true: IntArray, challenger: IntArray, champion: IntArray, n_resamples: int, seed: int
) -> PairedComparison:
    """Paired bootstrap: both models are scored on the same resample, so that what is hard for both cancels out.

    Args:
        y_true: the prdtypecode of each row.
        challenger, champion: the prdtypecode that each model predicts.
        n_resamples: how often rows are drawn; each draw has as many rows as there are.
    """
    codes, encoded = np.unique(np.concatenate([y_true, challenger, champion]), return_inverse=True)
    size, rows = len(codes), len(y_true)
    # Rows with the same three codes form one cell: rows drawn with replacement are a multinomial over the cells.
    cells, counts = np.unique(encoded.reshape(3, rows), axis=1, return_counts=True)

    def f1_of(drawn: IntArray, predicted: IntArray) -> FloatArray:
        confusion = np.bincount(cells[0] * size + predicted, weights=drawn, minlength=size * size)
        return _scores_of_confusion(confusion.reshape(size, size))

    def gain_of(drawn: IntArray) -> FloatArray:
        gain: FloatArray = f1_of(drawn, cells[1]) - f1_of(drawn, cells[2])
        return gain

    resampled = np.random.default_rng(seed).multinomial(rows, counts / rows, n_resamples)
    tail = (1 - CONFIDENCE_LEVEL) / 2
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "All-NaN slice", RuntimeWarning)
        low, high = np.nanquantile([gain_of(drawn) for drawn in resampled], [tail, 1 - tail], axis=0).tolist()
    gain = gain_of(counts)
    column_of = {int(code): 3 + i for i, code in enumerate(codes) if code in y_true}
    return PairedComparison(
        float(gain[0]),
        (low[0], high[0]),
        {code: float(gain[i]) for code, i in column_of.items()},
        {code: (low[i], high[i]) for code, i in column_of.items()},
    )
