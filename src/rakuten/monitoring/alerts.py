"""From a window of live traffic to a verdict, by the rules under `monitor` in params.yaml. Pure functions."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import pandas as pd

from rakuten.config import Params
from rakuten.data.schema import label_of
from rakuten.evaluation import bootstrap, metrics
from rakuten.features.monitored_columns import PREDICTED_COLUMN
from rakuten.monitoring.drift import ColumnDrift


class LiveScore(NamedTuple):
    """Scores by labels that came later."""

    rows: int
    weighted_f1: float
    interval: tuple[float, float]
    promised: float  # out of fold


class DriftReport(NamedTuple):
    rows: int
    drift: Sequence[ColumnDrift]
    review: float  # share of the window that needs review
    promised_review: float
    live: LiveScore | None
    alarms: Sequence[str]  # one line each; none: all is well

    def as_json(self) -> dict[str, Any]:
        return {
            **self._asdict(),
            "drift": [{**each._asdict(), "drifted": each.drifted} for each in self.drift],
            "live": self.live and self.live._asdict(),
            "alarms": list(self.alarms),
        }


def judge_drift(
    reference: pd.DataFrame, current: pd.DataFrame, drift: Sequence[ColumnDrift], live: LiveScore | None, params: Params
) -> DriftReport:
    """What the window says.

    Args:
        reference: columns WATCHED, of training, out of fold.
        current: the same, of the window.
        live: what labels say, if there are enough.
    """
    rules = params.monitor
    review, promised = float(current["needs_review"].mean()), float(reference["needs_review"].mean())
    alarms = [
        f"{each.kind}: {each.column} has drifted, {each.method} {each.score:.3f} (from {each.threshold:g})"
        for each in sorted(drift, key=lambda each: -each.score / each.threshold)
        if each.drifted
    ]
    if review - promised > rules.max_review_rise:
        alarms.append(f"abstention: {review:.1%} to review, {promised:.1%} promised")
    if live is not None and live.promised - live.weighted_f1 > rules.max_f1_drop and live.interval[1] < live.promised:
        low, high = live.interval
        alarms.append(
            f"score: weighted F1 {live.weighted_f1:.3f} [{low:.3f}, {high:.3f}] on {live.rows:,} labels, "
            f"{live.promised:.3f} promised"
        )
    return DriftReport(len(current), drift, review, promised, live, alarms)


def live_score(
    reference: pd.DataFrame, current: pd.DataFrame, labels: pd.DataFrame, params: Params
) -> LiveScore | None:
    """Live scores beside the promised one; None while there are too few labels.

    Args:
        current: with prediction_id.
        labels: prediction_id, prdtypecode; of one that is named twice the last counts.
    """
    known = labels.drop_duplicates("prediction_id", keep="last").set_index("prediction_id")["prdtypecode"]
    found = current[["prediction_id", PREDICTED_COLUMN]].assign(true=current["prediction_id"].map(known)).dropna()
    if len(found) < params.monitor.min_labels:
        return None
    true, predicted = found["true"].to_numpy(dtype="int64"), found[PREDICTED_COLUMN].to_numpy(dtype="int64")
    interval = bootstrap.bootstrap_ci(true, predicted, params.train.bootstrap, params.seed).scores["weighted_f1"]
    promised = metrics.classification_scores(
        reference["prdtypecode"].to_numpy(), reference[PREDICTED_COLUMN].to_numpy()
    )["weighted_f1"]
    return LiveScore(len(found), metrics.classification_scores(true, predicted)["weighted_f1"], interval, promised)


def class_shares(reference: pd.DataFrame, current: pd.DataFrame) -> list[dict[str, Any]]:
    """What is predicted, class by class: share, mean confidence and share to review, promised and live."""
    codes = sorted({*reference[PREDICTED_COLUMN], *current[PREDICTED_COLUMN]})
    sides = {"promised": reference, "live": current}
    found = []
    for code in codes:
        row: dict[str, Any] = {"prdtypecode": int(code), "label": label_of(int(code))}
        for name, frame in sides.items():
            some = frame[frame[PREDICTED_COLUMN] == code]
            row[f"{name}_share"] = round(len(some) / max(1, len(frame)), 4)
            row[f"{name}_confidence"] = round(float(some["confidence"].mean()), 4) if len(some) else None
            row[f"{name}_to_review"] = round(float(some["needs_review"].mean()), 4) if len(some) else None
        found.append(row)
    return found


def may_retrain(last: datetime | None, now: datetime, cool_down_hours: float) -> bool:
    """Whether drift may ask for a retraining again."""
    return last is None or now - last >= timedelta(hours=cool_down_hours)
