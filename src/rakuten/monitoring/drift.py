"""How far live traffic is from the reference, column by column. The only place that imports evidently.

Numbers are compared by the population stability index, categories by the Jensen-Shannon distance: on
this data both told planted shifts from chance better than Evidently's defaults (docs/monitoring.md).
A threshold of params.yaml says what matters; where few rows make more than that by chance alone, what
chance makes once in ten thousand columns takes its place. Without a shift, n rows against m give a PSI of
(1/n + 1/m) times a chi-squared of bins - 1 (Yurdakul, 2018), and an eighth of that is the square of the distance.
"""

import math
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import chi2

from rakuten.config import MonitorParams
from rakuten.features.monitored_columns import LANGUAGE_COLUMN, PREDICTED_COLUMN, PROJECTION_COLUMNS
from rakuten.types import IMAGE, TEXT

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its dependencies' own, at import
    from evidently import DataDefinition, Dataset, Report
    from evidently.core.report import Snapshot
    from evidently.metrics import ValueDrift

NUMERIC_KINDS = {
    "designation_len": "data",
    "description_len": "data",
    "confidence": "confidence",
    **dict.fromkeys(PROJECTION_COLUMNS[TEXT], "text embedding"),
    **dict.fromkeys(PROJECTION_COLUMNS[IMAGE], "picture embedding"),
}
CATEGORY_KINDS = {
    "has_description": "data",
    "has_image": "data",
    LANGUAGE_COLUMN: "text",
    PREDICTED_COLUMN: "prediction",
    "needs_review": "confidence",
}
COLUMN_KINDS = NUMERIC_KINDS | CATEGORY_KINDS  # column -> what kind of drift it shows
LENGTH_COLUMNS = ("designation_len", "description_len")
FALSE_ALARM_RATE = 1e-4
CLIP_QUANTILE = (
    0.01  # of the reference, on either side: what lies beyond counts as its edge, for a bin of one row is all chance
)


class ColumnDrift(NamedTuple):
    column: str
    kind: str
    method: str
    score: float
    threshold: float

    @property
    def drifted(self) -> bool:
        return self.score >= self.threshold


class DriftResult(NamedTuple):
    columns: list[ColumnDrift]  # those that could be judged
    snapshot: Snapshot

    def save_html(self, path: Path) -> None:
        self.snapshot.save_html(str(path))


def column_drift(reference: pd.DataFrame, current: pd.DataFrame, params: MonitorParams) -> DriftResult:
    """Drift of each column of KINDS, in their order.

    A column that fewer than `min_rows` rows have a value of, on either side, is left out: its score would be
    chance. What is missing shows in has_image and has_description.

    Args:
        reference: columns WATCHED, of training.
        current: the same, of a window of live traffic.
    """
    sides = _prepare(reference, current)
    judged = [
        column
        for column in COLUMN_KINDS
        if all(side[column].count() >= min(params.min_rows, len(reference)) for side in sides)
    ]
    numbers = [column for column in judged if column in NUMERIC_KINDS]
    categories = [column for column in judged if column in CATEGORY_KINDS]
    definition = DataDefinition(numerical_columns=numbers, categorical_columns=categories)
    data = [Dataset.from_pandas(side[judged], definition) for side in sides]
    methods = {
        column: _method(column, sides[0][column].dropna(), sides[1][column].dropna(), params) for column in judged
    }
    metrics = [ValueDrift(column=column, method=name, threshold=level) for column, (name, level) in methods.items()]
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # its own, about pandas to come
        snapshot = Report(metrics).run(data[1], data[0])
        found = snapshot.dict()["metrics"]
    scores = {entry["config"]["column"]: float(entry["value"]) for entry in found}
    columns = [
        ColumnDrift(column, COLUMN_KINDS[column], name, scores[column], level)
        for column, (name, level) in methods.items()
    ]
    return DriftResult(columns, snapshot)


def _method(column: str, reference: pd.Series, current: pd.Series, params: MonitorParams) -> tuple[str, float]:
    """Evidently's name of the method, and the threshold."""
    rows = len(reference) + len(current)
    number = column in NUMERIC_KINDS
    bins = math.ceil(math.log2(rows) + 1) if number else pd.concat([reference, current]).nunique()
    chance = (1 / len(reference) + 1 / len(current)) * float(chi2.isf(FALSE_ALARM_RATE, max(1, bins - 1)))
    return ("psi", max(params.psi, chance)) if number else ("jensenshannon", max(params.js, math.sqrt(chance / 8)))


def _prepare(reference: pd.DataFrame, current: pd.DataFrame) -> list[pd.DataFrame]:
    """Lengths by their logarithm (bins are of equal width), numbers cut to the reference's range, codes as text."""
    sides = []
    for frame in (reference, current):
        lengths = {name: np.log1p(frame[name]) for name in LENGTH_COLUMNS}
        sides.append(
            frame.assign(**lengths, **{name: frame[name].astype(str) for name in CATEGORY_KINDS})[list(COLUMN_KINDS)]
        )
    bounds = sides[0][list(NUMERIC_KINDS)].quantile([CLIP_QUANTILE, 1 - CLIP_QUANTILE])
    for side in sides:
        side[list(NUMERIC_KINDS)] = side[list(NUMERIC_KINDS)].clip(bounds.iloc[0], bounds.iloc[1], axis=1)
    return sides
