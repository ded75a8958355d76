"""From a window of live traffic to alarms, by the rules under `monitor` in params.yaml. Pure functions."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pandas as pd

from rakuten.config import Params
from rakuten.data.schema import label_of
from rakuten.evaluation import bootstrap, metrics
from rakuten.features.monitored_columns import PREDICTED_COLUMN
from rakuten.monitoring.drift import ColumnDrift


@dataclass(frozen=True)
class LiveScore:
    """Weighted F1 of live predictions, by labels that were added later."""

    n_rows: int  # labelled predictions
    weighted_f1: float
    interval: tuple[float, float]  # 95 %, by bootstrap
    expected: float  # weighted F1 of the out-of-fold predictions

    def as_json(self) -> dict[str, Any]:
        return {
            "rows": self.n_rows,
            "weighted_f1": self.weighted_f1,
            "interval": list(self.interval),
            "promised": self.expected,
        }


@dataclass(frozen=True)
class DriftReport:
    """How a window of live traffic compares with the reference, and the alarms that follow."""

    n_rows: int  # predictions in the window
    columns: Sequence[ColumnDrift]
    review_share: float  # of the window
    expected_review_share: float  # of the reference
    live: LiveScore | None  # None: too few labels
    alarms: Sequence[str]  # one line each

    def as_json(self) -> dict[str, Any]:
        return {
            "rows": self.n_rows,
            "drift": [{**column._asdict(), "drifted": column.drifted} for column in self.columns],
            "review": self.review_share,
            "promised_review": self.expected_review_share,
            "live": self.live and self.live.as_json(),
            "alarms": list(self.alarms),
        }


def judge_drift(
    reference: pd.DataFrame,
    window: pd.DataFrame,
    columns: Sequence[ColumnDrift],
    live: LiveScore | None,
    params: Params,
) -> DriftReport:
    """Apply the rules to a window of live traffic.

    Args:
        reference: MONITORED_COLUMNS of train products, by their out-of-fold predictions.
        window: MONITORED_COLUMNS of live products.
        columns: their drift, column by column.
        live: the score by later labels; None while there are too few.

    Returns:
        The report; its alarms are the drifted columns, farthest beyond their threshold first, then too many
        products to review, then a live score below the expected one by more than chance explains.
    """
    rules = params.monitor
    review, expected_review = float(window["needs_review"].mean()), float(reference["needs_review"].mean())
    alarms = [
        f"{column.kind}: {column.column} has drifted, {column.method} {column.score:.3f} (from {column.threshold:g})"
        for column in sorted(columns, key=lambda column: -column.score / column.threshold)
        if column.drifted
    ]
    if review - expected_review > rules.max_review_rise:
        alarms.append(f"abstention: {review:.1%} to review, {expected_review:.1%} expected")
    if live is not None and live.expected - live.weighted_f1 > rules.max_f1_drop and live.interval[1] < live.expected:
        low, high = live.interval
        alarms.append(
            f"score: weighted F1 {live.weighted_f1:.3f} [{low:.3f}, {high:.3f}] on {live.n_rows:,} labels, "
            f"{live.expected:.3f} expected"
        )
    return DriftReport(
        n_rows=len(window),
        columns=columns,
        review_share=review,
        expected_review_share=expected_review,
        live=live,
        alarms=alarms,
    )


def live_score(reference: pd.DataFrame, window: pd.DataFrame, labels: pd.DataFrame, params: Params) -> LiveScore | None:
    """Weighted F1 of the labelled predictions of a window; None while fewer than `min_labels` are labelled.

    Args:
        reference: columns prdtypecode and predicted of train products, out of fold.
        window: columns prediction_id and predicted of live products.
        labels: columns prediction_id and prdtypecode; the last row of a prediction_id counts.
    """
    label_by_id = labels.drop_duplicates("prediction_id", keep="last").set_index("prediction_id")["prdtypecode"]
    labelled = window[["prediction_id", PREDICTED_COLUMN]].assign(label=window["prediction_id"].map(label_by_id))
    labelled = labelled.dropna()
    if len(labelled) < params.monitor.min_labels:
        return None
    y_true = labelled["label"].to_numpy(dtype="int64")
    y_pred = labelled[PREDICTED_COLUMN].to_numpy(dtype="int64")
    expected = metrics.classification_scores(
        reference["prdtypecode"].to_numpy(), reference[PREDICTED_COLUMN].to_numpy()
    )
    return LiveScore(
        n_rows=len(labelled),
        weighted_f1=metrics.classification_scores(y_true, y_pred)["weighted_f1"],
        interval=bootstrap.bootstrap_ci(y_true, y_pred, params.train.bootstrap, params.seed).scores["weighted_f1"],
        expected=expected["weighted_f1"],
    )


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
