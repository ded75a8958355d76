"""The score of live predictions, by labels that were added later. Pure functions.

Products that needed review are the hard ones, and often the only ones that get a label. So the decided products and
those to review are scored separately, each against the same part of the training data, and a score for all products is
an average in which each part counts by its share of the traffic, not by its number of labels.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from rakuten.config import Params
from rakuten.evaluation.bootstrap import stratified_weighted_f1
from rakuten.evaluation.metrics import classification_scores
from rakuten.features.monitored_columns import PREDICTED_COLUMN

ALL, DECIDED, TO_REVIEW = "all", "decided", "to review"
# People see the least certain products first, and whoever labels by hand may choose too. So the products to review are
# split by confidence, each stratum counts by its share of the traffic, and all must have labels. In a simulation of the
# desk's order, by the labels of the first 1,200 of 1,500 products the share of right ones was 0.06 too low with one
# stratum and 0.01 with four; with eight, a stratum had too few labels.
N_STRATA, MIN_STRATUM_LABELS = 4, 10
AUDIT_COLUMNS = ("prediction_id", "prdtypecode", PREDICTED_COLUMN, "confidence", "designation", "description")


@dataclass(frozen=True)
class LiveScore:
    """Weighted F1 of live predictions, of all products or of a part of them."""

    products: str  # ALL, DECIDED or TO_REVIEW
    n_labels: int
    weighted_f1: float
    interval: tuple[float, float]  # 95 %, by bootstrap
    expected: float  # weighted F1 of the out-of-fold predictions

    def as_json(self) -> dict[str, Any]:
        return {
            "products": self.products,
            "labels": self.n_labels,
            "weighted_f1": self.weighted_f1,
            "interval": list(self.interval),
            "promised": self.expected,
        }

    def is_below_expected(self, max_drop: float) -> bool:
        """Whether the score is lower than expected by more than `max_drop`, and chance does not explain it."""
        return self.expected - self.weighted_f1 > max_drop and self.interval[1] < self.expected


def label_predictions(window: pd.DataFrame, labels: pd.DataFrame) -> pd.DataFrame:
    """The predictions of a window with a column prdtypecode: their label, NaN without one.

    Args:
        window: predictions of live products, with a column prediction_id.
        labels: prediction_id and prdtypecode; the last row of a prediction_id counts.
    """
    label_by_id = labels.drop_duplicates("prediction_id", keep="last").set_index("prediction_id")["prdtypecode"]
    return window.assign(prdtypecode=window["prediction_id"].map(label_by_id))


def live_scores(reference: pd.DataFrame, window: pd.DataFrame, params: Params) -> list[LiveScore]:
    """The score of each part of which at least `min_labels` products are labelled, and of all if both parts are.

    The labelled products should be a random sample of those of about the same confidence; see `audit_sample`.

    Args:
        reference: prdtypecode, predicted and needs_review of train products, out of fold.
        window: predicted, needs_review, and prdtypecode from `label_predictions`.
    """
    parts = [
        (name, _of_part(reference, name), _strata(part, N_STRATA if name == TO_REVIEW else 1))
        for name in (DECIDED, TO_REVIEW)
        if len(part := _of_part(window, name)) > 0
    ]
    scores = [
        _score(name, expected, strata, params)
        for name, expected, strata in parts
        if len(expected) and _has_enough_labels(strata, params.monitor.min_labels)
    ]
    if len(parts) > 0 and len(scores) == len(parts):
        scores.insert(0, _score(ALL, reference, [stratum for _, _, strata in parts for stratum in strata], params))
    return scores


def _strata(part: pd.DataFrame, n_strata: int) -> list[pd.DataFrame]:
    """The products split by confidence, into strata of about the same size."""
    confidence = part["confidence"].to_numpy(dtype=float)
    edges = np.quantile(confidence, np.arange(1, n_strata) / n_strata)
    return [stratum for _, stratum in part.groupby(np.searchsorted(edges, confidence))]


def _has_enough_labels(strata: Sequence[pd.DataFrame], min_labels: int) -> bool:
    counts = [int(stratum["prdtypecode"].notna().sum()) for stratum in strata]
    return sum(counts) >= min_labels and min(counts) >= min(MIN_STRATUM_LABELS, min_labels)


def _of_part(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    return frame[frame["needs_review"] == (name == TO_REVIEW)]


def _score(name: str, reference: pd.DataFrame, parts: list[pd.DataFrame], params: Params) -> LiveScore:
    labelled = [part.dropna(subset="prdtypecode") for part in parts]
    y_true, y_pred = (
        [part[column].to_numpy(dtype=np.int64) for part in labelled] for column in ("prdtypecode", PREDICTED_COLUMN)
    )
    shares = np.array([len(part) for part in parts]) / sum(map(len, parts))
    weighted_f1, interval = stratified_weighted_f1(y_true, y_pred, shares, params.train.bootstrap, params.seed)
    expected = classification_scores(reference["prdtypecode"].to_numpy(), reference[PREDICTED_COLUMN].to_numpy())
    return LiveScore(name, sum(map(len, labelled)), weighted_f1, interval, expected["weighted_f1"])


def audit_sample(window: pd.DataFrame, min_labels: int) -> pd.DataFrame:
    """A random sample of the decided products, to be labelled by a person: as many as `min_labels` lacks.

    Nobody looks at decided products unless asked to, so without it there is no telling when they get worse. The sample
    follows the hashes of the prediction_ids: the next check asks for the same products, as long as they are in the
    window and without a label.

    Args:
        window: predictions from `label_predictions`.

    Returns:
        AUDIT_COLUMNS, prdtypecode empty.
    """
    decided = _of_part(window, DECIDED)
    n_missing = max(0, min_labels - int(decided["prdtypecode"].notna().sum()))
    unlabelled = decided[decided["prdtypecode"].isna()]
    order = np.argsort(pd.util.hash_array(unlabelled["prediction_id"].to_numpy(dtype=object)), kind="stable")
    return unlabelled.iloc[order[:n_missing]].assign(prdtypecode="")[list(AUDIT_COLUMNS)]


def alarms(scores: Sequence[LiveScore], max_drop: float) -> Iterator[str]:
    """A line for each score that is too low; for all products only if no part of them is named."""
    low = [score for score in scores if score.is_below_expected(max_drop)]
    for score in [score for score in low if score.products != ALL] or low:
        (lower, upper), products = score.interval, "" if score.products == ALL else f" of the products {score.products}"
        yield (
            f"score: weighted F1{products} {score.weighted_f1:.3f} [{lower:.3f}, {upper:.3f}] by {score.n_labels:,} "
            f"labels, {score.expected:.3f} expected"
        )
