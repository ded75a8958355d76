"""Folds that do not leak, scores with intervals, calibration. Pure functions of arrays."""

import warnings
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from sklearn.metrics import f1_score, precision_recall_fscore_support
from sklearn.model_selection import StratifiedGroupKFold

from src.errors import UserError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

LEVEL = 0.95  # of every interval
BINS = 10  # of the reliability diagram


def groups(table: pd.DataFrame) -> pd.Series:
    """What must not be split over folds: the cleaned title, else the description, else the row itself."""
    title = table["designation_clean"].str.casefold()
    text = title.where(title != "", "\n" + table["description_clean"].str.casefold())
    return text.where(text != "\n", "\n\n" + table["productid"] + "," + table["imageid"])


def assign_folds(table: pd.DataFrame, codes: Ints, folds: int, seed: int) -> Ints:
    """Fold number of each row, stratified by code and grouped by `groups`.

    The same rows in another order fall into the same folds.

    Raises:
        UserError: there are fewer distinct titles than folds.
    """
    # sklearn breaks ties by order of appearance, so rows are put into one order first.
    keys = groups(table)
    if keys.nunique() < folds:
        raise UserError(f"train.folds is {folds} but there are only {keys.nunique()} distinct titles; lower it")
    order = np.lexsort((table["imageid"], table["productid"], codes, keys))
    # A class smaller than the number of folds is missing from some: ingest has said so. Where every
    # class is that small sklearn refuses, and stratifying has no meaning.
    enough = np.unique(codes, return_counts=True)[1].max() >= folds
    strata = codes[order] if enough else np.zeros(len(codes), dtype=np.int64)
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    fold = np.empty(len(codes), dtype=np.int64)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class in y", UserWarning)
        for number, (_, held_out) in enumerate(splitter.split(order, strata, keys.to_numpy()[order])):
            fold[order[held_out]] = number
    return fold


def scores(true: Ints, predicted: Ints) -> dict[str, float]:
    """Weighted F1 (the challenge's score), macro F1 over the true codes, accuracy."""
    labels = np.unique(true)
    return {
        "weighted_f1": float(f1_score(true, predicted, labels=labels, average="weighted", zero_division=0.0)),
        "macro_f1": float(f1_score(true, predicted, labels=labels, average="macro", zero_division=0.0)),
        "accuracy": float(np.mean(true == predicted)),
    }


def intervals(true: Ints, predicted: Ints, resamples: int, seed: int) -> dict[str, tuple[float, float]]:
    """95 % percentile bootstrap intervals of `scores`, over rows drawn with replacement."""
    rng = np.random.default_rng(seed)
    classes, encoded = np.unique(np.concatenate([true, predicted]), return_inverse=True)
    count, rows = len(classes), len(true)
    pairs = encoded[:rows] * count + encoded[rows:]
    draws = []
    for _ in range(resamples):
        drawn = pairs[rng.integers(0, rows, rows)]
        draws.append(_scores_of_confusion(np.bincount(drawn, minlength=count * count).reshape(count, count)))
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(np.array(draws), [tail, 1 - tail], axis=0)
    names = ("weighted_f1", "macro_f1", "accuracy")
    return {name: (float(low[at]), float(high[at])) for at, name in enumerate(names)}


def _scores_of_confusion(confusion: NDArray[np.intp]) -> tuple[float, float, float]:
    support, found, right = confusion.sum(axis=1), confusion.sum(axis=0), np.diag(confusion)
    there = support > 0
    f1 = 2 * right[there] / (support + found)[there]
    return float(np.average(f1, weights=support[there])), float(f1.mean()), float(right.sum() / support.sum())


def per_class(true: Ints, predicted: Ints) -> pd.DataFrame:
    """prdtypecode, precision, recall, f1, support of every true code, in order."""
    labels = np.unique(true)
    precision, recall, f1, support = precision_recall_fscore_support(true, predicted, labels=labels, zero_division=0.0)
    return pd.DataFrame({"prdtypecode": labels, "precision": precision, "recall": recall, "f1": f1, "support": support})


def fit_temperature(decision: Floats, true_index: Ints) -> float:
    """Temperature t that makes softmax(decision / t) most likely (Guo et al. 2017).

    Args:
        decision: out-of-fold scores, rows x classes.
        true_index: the true class's column of each row.
    """
    rows = np.arange(len(decision))

    def loss(log_t: float) -> float:
        return float(-log_softmax(decision / np.exp(log_t), axis=1)[rows, true_index].mean())

    return float(np.exp(minimize_scalar(loss, bounds=(-7.0, 5.0), method="bounded").x))


def probabilities(decision: Floats, temperature: float) -> Floats:
    """Rows x classes, each row summing to one."""
    calibrated: Floats = softmax(decision / temperature, axis=1)
    return calibrated


class Reliability(NamedTuple):
    """Mean confidence, accuracy and rows of each bin, and the expected calibration error."""

    table: pd.DataFrame
    error: float


def reliability(confidence: Floats, right: NDArray[np.bool_]) -> Reliability:
    """Equal-width bins of the winning class's confidence; the error is weighted by rows (Guo et al. 2017)."""
    place = np.minimum((confidence * BINS).astype(int), BINS - 1)
    frame = pd.DataFrame({"bin": place, "confidence": confidence, "accuracy": right.astype(float)})
    table = frame.groupby("bin", as_index=False).agg(
        confidence=("confidence", "mean"), accuracy=("accuracy", "mean"), rows=("accuracy", "size")
    )
    error = float(((table["confidence"] - table["accuracy"]).abs() * table["rows"]).sum() / len(frame))
    return Reliability(table.drop(columns="bin"), error)


def coverage_curve(confidence: Floats, right: NDArray[np.bool_], points: int = 100) -> pd.DataFrame:
    """Accuracy of the most confident share of the rows: coverage, precision, threshold."""
    order = np.argsort(-confidence, kind="stable")
    kept = np.unique(np.linspace(1, len(order), min(points, len(order))).round().astype(int))
    precision = np.cumsum(right[order])[kept - 1] / kept
    return pd.DataFrame(
        {"coverage": kept / len(order), "precision": precision, "threshold": confidence[order][kept - 1]}
    )
