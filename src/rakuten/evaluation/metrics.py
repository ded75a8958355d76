"""Folds that do not leak, scores with intervals, calibration. Pure functions of arrays."""

import warnings
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from sklearn.metrics import f1_score, precision_recall_fscore_support
from sklearn.model_selection import StratifiedKFold

from rakuten.errors import UserError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]
Groups = NDArray[np.uint64]

LEVEL = 0.95  # of every interval
BINS = 10  # of the reliability diagram
NEVER = 1.1  # a threshold that no confidence reaches


def groups(table: pd.DataFrame) -> Groups:
    """What must not be split over folds: the cleaned title, else the description, else the row itself; as 64 bits."""
    title = table["designation_clean"].str.casefold()
    text = title.where(title != "", "\n" + table["description_clean"].str.casefold())
    ids = table["productid"].astype("str") + "," + table["imageid"].astype("str")
    hashed: Groups = pd.util.hash_array(text.where(text != "\n", "\n\n" + ids).to_numpy(dtype=object), categorize=False)
    return hashed


def assign_folds(group: Groups, codes: Ints, folds: int, seed: int) -> Ints:
    """Fold number of each row, stratified by code; rows of one group (`groups`) fall together.

    What is dealt out are the distinct titles, each under the lowest of its codes: a title under
    two codes is rare, and to weigh groups against each other row by row takes a minute at full size.
    The same rows in another order fall into the same folds.

    Raises:
        UserError: there are fewer distinct titles than folds.
    """
    order = np.lexsort((codes, group))
    distinct, first = np.unique(group[order], return_index=True)
    if len(distinct) < folds:
        raise UserError(f"train.folds is {folds} but there are only {len(distinct)} distinct titles; lower it")
    code = codes[order][first]
    # A class smaller than the number of folds is missing from some: ingest has said so. Where every
    # class is that small sklearn refuses, and stratifying has no meaning.
    if np.unique(code, return_counts=True)[1].max() < folds:
        code = np.zeros_like(code)
    fold = np.empty(len(code), dtype=np.int64)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class in y", UserWarning)
        splitter = StratifiedKFold(folds, shuffle=True, random_state=seed)
        for number, (_, held_out) in enumerate(splitter.split(code, code)):
            fold[held_out] = number
    dealt: Ints = fold[np.searchsorted(distinct, group)]
    return dealt


def deal(rows: int, shares: int, seed: int) -> Ints:
    """Which of so many equal shares each row falls into.

    Every run of `shares` rows is dealt out in an order drawn by the seed: a table that is sorted, or that takes its
    classes in turn, makes no share unlike the others.
    """
    runs = np.tile(np.arange(shares), (-(-rows // shares), 1))
    share: Ints = np.random.default_rng(seed).permuted(runs, axis=1).ravel()[:rows]
    return share


def scores(true: Ints, predicted: Ints) -> dict[str, float]:
    """Weighted F1 (the challenge's score), macro F1 over the true codes, accuracy."""
    labels = np.unique(true)
    return {
        "weighted_f1": float(f1_score(true, predicted, labels=labels, average="weighted", zero_division=0.0)),
        "macro_f1": float(f1_score(true, predicted, labels=labels, average="macro", zero_division=0.0)),
        "accuracy": float(np.mean(true == predicted)),
    }


class Intervals(NamedTuple):
    """95 % percentile bootstrap intervals over rows drawn with replacement."""

    scores: dict[str, tuple[float, float]]  # of each of `scores`
    f1: dict[int, tuple[float, float]]  # of each true code; a code that a draw lacks has no say in it


def intervals(true: Ints, predicted: Ints, resamples: int, seed: int) -> Intervals:
    codes, encoded = np.unique(np.concatenate([true, predicted]), return_inverse=True)
    size, rows = len(codes), len(true)
    confusion = np.bincount(encoded[:rows] * size + encoded[rows:], minlength=size * size)
    # Rows drawn with replacement fall into the cells of the confusion matrix as one multinomial draw.
    drawn = np.random.default_rng(seed).multinomial(rows, confusion / rows, resamples).reshape(-1, size, size)
    draws = np.array([_scores_of_confusion(each) for each in drawn])
    tail = (1 - LEVEL) / 2
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "All-NaN slice", RuntimeWarning)
        low, high = np.nanquantile(draws, [tail, 1 - tail], axis=0).tolist()
    names = ("weighted_f1", "macro_f1", "accuracy")
    known = np.isin(codes, true)
    return Intervals(
        {name: (low[at], high[at]) for at, name in enumerate(names)},
        {int(code): (low[3 + at], high[3 + at]) for at, code in enumerate(codes) if known[at]},
    )


def _scores_of_confusion(confusion: Ints) -> Floats:
    """Weighted F1, macro F1, accuracy, then F1 of each code (NaN for one without rows)."""
    support, found, right = confusion.sum(axis=1), confusion.sum(axis=0), np.diag(confusion)
    there = support > 0
    f1 = np.where(there, 2 * right / np.maximum(support + found, 1), np.nan)
    weighted = np.average(f1[there], weights=support[there])
    return np.array([weighted, f1[there].mean(), right.sum() / support.sum(), *f1])


class Paired(NamedTuple):
    """What one model gains over another on the same rows."""

    gain: float  # in weighted F1
    interval: tuple[float, float]  # of the gain, 95 %
    f1_gain: dict[int, float]  # of each true code
    f1_interval: dict[int, tuple[float, float]]  # of each gain, 95 %; a draw that lacks the code has no say in it


def paired(true: Ints, challenger: Ints, champion: Ints, resamples: int, seed: int) -> Paired:
    """Paired bootstrap: both models are judged on the same draw of rows, so what is hard for both cancels out."""
    codes, encoded = np.unique(np.concatenate([true, challenger, champion]), return_inverse=True)
    size, rows = len(codes), len(true)
    # Rows alike in all three fall into one cell: a draw with replacement is a multinomial over the cells.
    cells, counts = np.unique(encoded.reshape(3, rows), axis=1, return_counts=True)

    def f1_of(drawn: Ints, predicted: Ints) -> Floats:
        confusion = np.bincount(cells[0] * size + predicted, weights=drawn, minlength=size * size)
        return _scores_of_confusion(confusion.reshape(size, size))

    def gain_of(drawn: Ints) -> Floats:
        gain: Floats = f1_of(drawn, cells[1]) - f1_of(drawn, cells[2])
        return gain

    draws = np.random.default_rng(seed).multinomial(rows, counts / rows, resamples)
    tail = (1 - LEVEL) / 2
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "All-NaN slice", RuntimeWarning)
        low, high = np.nanquantile([gain_of(drawn) for drawn in draws], [tail, 1 - tail], axis=0).tolist()
    gain = gain_of(counts)
    known = {3 + at: int(code) for at, code in enumerate(codes) if code in true}
    return Paired(
        float(gain[0]),
        (low[0], high[0]),
        {code: float(gain[at]) for at, code in known.items()},
        {code: (low[at], high[at]) for at, code in known.items()},
    )


def per_class(true: Ints, predicted: Ints) -> pd.DataFrame:
    """prdtypecode, precision, recall, f1, support of every true code, in order."""
    labels = np.unique(true)
    precision, recall, f1, support = precision_recall_fscore_support(true, predicted, labels=labels, zero_division=0.0)
    return pd.DataFrame({"prdtypecode": labels, "precision": precision, "recall": recall, "f1": f1, "support": support})


def fit_temperature(decision: Floats, true_index: Ints) -> tuple[float, float]:
    """Temperature t that makes softmax(decision / t) most likely (Guo et al. 2017), and the mean log loss at it.

    Args:
        decision: out-of-fold scores, rows x classes.
        true_index: the true class's column of each row.
    """
    rows = np.arange(len(decision))

    def loss(log_t: float) -> float:
        return float(-log_softmax(decision / np.exp(log_t), axis=1)[rows, true_index].mean())

    found = minimize_scalar(loss, bounds=(-7.0, 7.0), method="bounded")
    return float(np.exp(found.x)), float(found.fun)


def alone(decision: Floats, temperature: float, shares: Floats) -> Floats:
    """Probabilities from one view's scores by one temperature; the classes' shares where the view is absent (NaN)."""
    there = ~np.isnan(decision[:, 0])
    likely = np.tile(shares, (len(decision), 1))
    likely[there] = softmax(decision[there] / temperature, axis=1)
    return likely


def equal_average(likely: Mapping[str, Floats], there: Mapping[str, Flags]) -> Floats:
    """Plain mean of the views' probabilities, of those that a product has; what a fusion must beat."""
    weight = np.array([there[view] for view in likely], dtype=np.float64)
    weight[:, weight.sum(axis=0) == 0] = 1.0
    parts = (part * own[:, None] for part, own in zip(likely.values(), weight, strict=True))
    mean: Floats = np.sum(list(parts), axis=0) / weight.sum(axis=0)[:, None]
    return mean


class Reliability(NamedTuple):
    """Mean confidence, accuracy and rows of each bin, and the expected calibration error."""

    table: pd.DataFrame
    error: float


def reliability(confidence: Floats, right: Flags) -> Reliability:
    """Equal-width bins of the winning class's confidence; the error is weighted by rows (Guo et al. 2017)."""
    place = np.minimum((confidence * BINS).astype(int), BINS - 1)
    frame = pd.DataFrame({"bin": place, "confidence": confidence, "accuracy": right.astype(float)})
    table = frame.groupby("bin", as_index=False).agg(
        confidence=("confidence", "mean"), accuracy=("accuracy", "mean"), rows=("accuracy", "size")
    )
    error = float(((table["confidence"] - table["accuracy"]).abs() * table["rows"]).sum() / len(frame))
    return Reliability(table.drop(columns="bin"), error)


def coverage_curve(confidence: Floats, right: Flags, points: int = 100) -> pd.DataFrame:
    """Accuracy of the most confident share of the rows: coverage, precision, threshold."""
    order = np.argsort(-confidence, kind="stable")
    kept = np.unique(np.linspace(1, len(order), min(points, len(order))).round().astype(int))
    precision = np.cumsum(right[order])[kept - 1] / kept
    return pd.DataFrame(
        {"coverage": kept / len(order), "precision": precision, "threshold": confidence[order][kept - 1]}
    )


def threshold_for(confidence: Floats, right: Flags, target: float) -> float:
    """The lowest confidence from which on the share of right predictions reaches the target; 1.1 if none does."""
    order = np.argsort(-confidence, kind="stable")
    precision = np.cumsum(right[order]) / np.arange(1, len(order) + 1)
    last_of_ties = np.append(np.diff(confidence[order]) < 0, True)
    reached = np.flatnonzero((precision >= target) & last_of_ties)
    return float(confidence[order][reached[-1]]) if len(reached) else NEVER
