"""From a window of live traffic to alarms, by the rules under `monitor` in params.yaml. Pure functions."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import pandas as pd

from rakuten.config import Params
from rakuten.data.taxonomy import label_of
from rakuten.features.monitored_columns import PREDICTED_COLUMN
from rakuten.monitoring import live_score
from rakuten.monitoring.drift import ColumnDrift
from rakuten.monitoring.live_novelty import LiveNovelty
from rakuten.monitoring.live_precision import LivePrecision
from rakuten.monitoring.live_score import LiveScore


class PromisedShares(NamedTuple):
    """Shares that the model promises, as they are in live traffic; None: too little is known to tell."""

    precision: LivePrecision | None = None  # of automatic decisions
    novelty: LiveNovelty | None = None


NOT_KNOWN = PromisedShares()


@dataclass(frozen=True)
class DriftReport:
    """How a window of live traffic compares with the reference, and the alarms that follow."""

    n_rows: int  # predictions in the window
    columns: Sequence[ColumnDrift]
    review_share: float  # of the window
    expected_review_share: float  # of the reference
    live: Sequence[LiveScore]  # of which there are enough labels
    alarms: Sequence[str]  # one line each
    shares: PromisedShares = NOT_KNOWN

    def as_json(self) -> dict[str, Any]:
        return {
            "rows": self.n_rows,
            "drift": [{**column._asdict(), "drifted": column.drifted} for column in self.columns],
            "review": self.review_share,
            "promised_review": self.expected_review_share,
            "live": [score.as_json() for score in self.live],
            "live_precision": None if self.shares.precision is None else self.shares.precision.as_json(),
            "novelty": None if self.shares.novelty is None else self.shares.novelty.as_json(),
            "alarms": list(self.alarms),
        }


def judge_drift(
    reference: pd.DataFrame,
    window: pd.DataFrame,
    columns: Sequence[ColumnDrift],
    live: Sequence[LiveScore],
    params: Params,
    shares: PromisedShares = NOT_KNOWN,
) -> DriftReport:
    """Apply the rules to a window of live traffic.

    Args:
        reference: MONITORED_COLUMNS of train products, by their out-of-fold predictions.
        window: MONITORED_COLUMNS of live products.
        columns: their drift, column by column.
        live: the scores by later labels.
        shares: what is known of them.

    Returns:
        The report; its alarms are the drifted columns, farthest beyond their threshold first, then too many
        products to review, then too many novel products, then live scores and a live precision below the expected ones,
        these by more than chance explains.
    """
    rules = params.monitor
    review, expected_review = float(window["needs_review"].mean()), float(reference["needs_review"].mean())
    alarms = [
        f"{column.kind}: {column.column} has drifted, {column.method} {column.score:.3f} (limit {column.threshold:g})"
        for column in sorted(columns, key=lambda column: -column.score / column.threshold)
        if column.drifted
    ]
    if review - expected_review > rules.max_review_rise:
        alarms.append(f"abstention: {review:.1%} to review, {expected_review:.1%} expected")
    if shares.novelty is not None and shares.novelty.is_above_promise:
        alarms.append(f"novelty: {shares.novelty}")
    alarms += [*live_score.alarms(live, rules.max_f1_drop), *precision_alarms(shares.precision)]
    return DriftReport(
        n_rows=len(window),
        columns=columns,
        review_share=review,
        expected_review_share=expected_review,
        live=live,
        alarms=alarms,
        shares=shares,
    )


def precision_alarms(precision: LivePrecision | None) -> list[str]:
    """A line if the live precision is below the promised one by more than chance explains."""
    return [f"audit: {precision}"] if precision is not None and precision.is_below_promise else []


def class_shares(reference: pd.DataFrame, window: pd.DataFrame) -> list[dict[str, Any]]:
    """What is predicted, a row for each class that either side predicts, in the order of their codes.

    Returns:
        Rows of prdtypecode, label and, each with the prefix `promised_` for the reference and `live_` for the
        window: share (of the products predicted as this class), confidence (mean; None without a product) and
        to_review (share; None without a product).
    """
    codes = sorted({*reference[PREDICTED_COLUMN], *window[PREDICTED_COLUMN]})
    frames = {"promised": reference, "live": window}  # prefixes in drift.json
    rows = []
    for code in codes:
        row: dict[str, Any] = {"prdtypecode": int(code), "label": label_of(int(code))}
        for prefix, frame in frames.items():
            of_class = frame[frame[PREDICTED_COLUMN] == code]
            row[f"{prefix}_share"] = round(len(of_class) / max(1, len(frame)), 4)
            row[f"{prefix}_confidence"] = round(float(of_class["confidence"].mean()), 4) if len(of_class) else None
            row[f"{prefix}_to_review"] = round(float(of_class["needs_review"].mean()), 4) if len(of_class) else None
        rows.append(row)
    return rows


def may_retrain(last: datetime | None, now: datetime, cool_down_hours: float) -> bool:
    """Whether drift may trigger a retraining: none was triggered yet, or the last one is `cool_down_hours` ago."""
    return last is None or now - last >= timedelta(hours=cool_down_hours)
