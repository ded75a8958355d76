"""How far live traffic is from the reference, column by column. The only module that imports evidently.

Numbers are compared by the population stability index (PSI), categories by the Jensen-Shannon distance: on
this data both separated planted shifts from chance better than Evidently's defaults (docs/monitoring.md).
A threshold in params.yaml sets which drift matters. Small windows can exceed it by chance: the threshold is then
raised to what chance exceeds in one of ten thousand columns. Without a shift, n rows against m give a PSI of
(1/n + 1/m) times a chi-squared variable of bins - 1 degrees of freedom (Yurdakul, 2018), and the square of the
Jensen-Shannon distance is an eighth of that.
"""

import html
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import chi2

from rakuten.config import MonitorParams
from rakuten.features.monitored_columns import LANGUAGE_COLUMN, PREDICTED_COLUMN, PROJECTION_COLUMNS
from rakuten.types import IMAGE, TEXT

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of evidently's dependencies, at import
    from evidently import DataDefinition, Dataset, Report
    from evidently.core.report import Snapshot
    from evidently.metrics import ValueDrift

NUMERIC_KINDS = {
    "designation_len": "data",
    "description_len": "data",
    "confidence": "confidence",
    **dict.fromkeys(PROJECTION_COLUMNS[TEXT], "text embedding"),
    **dict.fromkeys(PROJECTION_COLUMNS[IMAGE], "picture embedding"),  # also a label of a Prometheus metric
}
CATEGORY_KINDS = {
    "has_description": "data",
    "has_image": "data",
    LANGUAGE_COLUMN: "text",
    PREDICTED_COLUMN: "prediction",
    "needs_review": "confidence",
}
COLUMN_KINDS = NUMERIC_KINDS | CATEGORY_KINDS  # column -> kind of drift that it shows
LENGTH_COLUMNS = ("designation_len", "description_len")
FALSE_ALARM_RATE = 1e-4  # of one column without a shift
# Values are clipped to the reference's 1st and 99th percentile: a histogram bin with a single row makes the PSI noise.
CLIP_QUANTILE = 0.01


class ColumnDrift(NamedTuple):
    """Drift of one column. The field names are keys of drift.json."""

    column: str
    kind: str  # see COLUMN_KINDS
    method: str  # "psi" or "jensenshannon"
    score: float
    threshold: float

    @property
    def drifted(self) -> bool:
        return self.score >= self.threshold


class DriftScores(NamedTuple):
    """Drift of every column that has enough values, and Evidently's own report of it."""

    columns: list[ColumnDrift]
    snapshot: Snapshot

    def save_html(self, path: Path, lines: Sequence[str]) -> None:
        """Write Evidently's page, with lines of text above its tables."""
        paragraphs = "".join(
            f"<p style='font: 1rem sans-serif; margin: 1rem'>{html.escape(line)}</p>" for line in lines
        )
        page = self.snapshot.get_html_str(as_iframe=False)
        path.write_text(page.replace("<body>", f"<body>{paragraphs}", 1), encoding="utf-8")


def column_drift(reference: pd.DataFrame, window: pd.DataFrame, params: MonitorParams) -> DriftScores:
    """Drift of each column of COLUMN_KINDS, in their order.

    A column with fewer than `min_rows` values in the reference or in the window is left out: its score would be
    noise. Missing values themselves show in has_image and has_description.

    Args:
        reference: MONITORED_COLUMNS of train products.
        window: MONITORED_COLUMNS of live products.
    """
    min_values = min(params.min_rows, len(reference))
    reference, window = _prepare(reference, window)
    columns = [name for name in COLUMN_KINDS if min(reference[name].count(), window[name].count()) >= min_values]
    definition = DataDefinition(
        numerical_columns=[name for name in columns if name in NUMERIC_KINDS],
        categorical_columns=[name for name in columns if name in CATEGORY_KINDS],
    )
    methods = {
        name: _method_and_threshold(name, reference[name].dropna(), window[name].dropna(), params) for name in columns
    }
    metrics = [ValueDrift(column=name, method=method, threshold=level) for name, (method, level) in methods.items()]
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # of evidently, about pandas' deprecations
        snapshot = Report(metrics).run(
            Dataset.from_pandas(window[columns], definition), Dataset.from_pandas(reference[columns], definition)
        )
        results = snapshot.dict()["metrics"]
    scores = {result["config"]["column"]: float(result["value"]) for result in results}
    return DriftScores(
        [
            ColumnDrift(column=name, kind=COLUMN_KINDS[name], method=method, score=scores[name], threshold=level)
            for name, (method, level) in methods.items()
        ],
        snapshot,
    )


def _method_and_threshold(
    column: str, reference: pd.Series, window: pd.Series, params: MonitorParams
) -> tuple[str, float]:
    """Evidently's name of the method, and the score from which the column has drifted."""
    is_numeric = column in NUMERIC_KINDS
    n_rows = len(reference) + len(window)
    n_bins = math.ceil(math.log2(n_rows) + 1) if is_numeric else pd.concat([reference, window]).nunique()
    chi2_quantile = float(chi2.isf(FALSE_ALARM_RATE, max(1, n_bins - 1)))
    psi_by_chance = (1 / len(reference) + 1 / len(window)) * chi2_quantile
    if is_numeric:
        return "psi", max(params.psi, psi_by_chance)
    return "jensenshannon", max(params.js, math.sqrt(psi_by_chance / 8))


def _prepare(reference: pd.DataFrame, window: pd.DataFrame) -> list[pd.DataFrame]:
    """Both frames with logarithms of lengths (bins have equal widths), clipped numbers, and categories as text."""
    frames = []
    for frame in (reference, window):
        lengths = {name: np.log1p(frame[name]) for name in LENGTH_COLUMNS}
        categories = {name: frame[name].astype(str) for name in CATEGORY_KINDS}
        frames.append(frame.assign(**lengths, **categories)[list(COLUMN_KINDS)])
    bounds = frames[0][list(NUMERIC_KINDS)].quantile([CLIP_QUANTILE, 1 - CLIP_QUANTILE])
    for frame in frames:
        frame[list(NUMERIC_KINDS)] = frame[list(NUMERIC_KINDS)].clip(bounds.iloc[0], bounds.iloc[1], axis=1)
    return frames
