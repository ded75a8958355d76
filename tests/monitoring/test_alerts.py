"""The rules that turn a window into alarms, and alarms into a retraining."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from rakuten.config import load_params
from rakuten.monitoring.alerts import PromisedShares, class_shares, judge_drift, may_retrain
from rakuten.monitoring.drift import ColumnDrift
from rakuten.monitoring.live_novelty import LiveNovelty
from rakuten.monitoring.live_precision import LivePrecision
from rakuten.monitoring.live_score import LiveScore

PARAMS = load_params()
BELOW_THRESHOLD = ColumnDrift("language", "text", "jensenshannon", 0.19, 0.2)
AT_THRESHOLD = ColumnDrift("designation_len", "data", "psi", 0.2, 0.2)
FAR_BEYOND = ColumnDrift("predicted", "prediction", "jensenshannon", 0.6, 0.2)


def predictions(n_rows: int, review: float = 0.2, correct: float = 0.9) -> pd.DataFrame:
    """Predictions of the classes 10 and 2583 by turns; of each hundred some need review and some are correct."""
    row = np.arange(n_rows)
    y_true = np.where(row % 2 == 0, 10, 2583)
    other_class = np.where(row % 2 == 0, 2583, 10)
    return pd.DataFrame(
        {
            "prediction_id": [f"p{number}" for number in row],
            "prdtypecode": y_true,
            "predicted": np.where(row % 100 < 100 * correct, y_true, other_class),
            "confidence": 0.8,
            "needs_review": (row % 100 < 100 * review).astype(int),
        }
    )


def test_a_column_below_its_threshold_raises_no_alarm() -> None:
    assert not judge_drift(predictions(1000), predictions(1000), [BELOW_THRESHOLD], [], PARAMS).alarms


def test_a_column_at_its_threshold_raises_an_alarm() -> None:
    report = judge_drift(predictions(1000), predictions(1000), [BELOW_THRESHOLD, AT_THRESHOLD], [], PARAMS)
    assert report.alarms == ["data: designation_len has drifted, psi 0.200 (limit 0.2)"]


def test_the_column_farthest_beyond_its_threshold_comes_first() -> None:
    report = judge_drift(predictions(1000), predictions(1000), [AT_THRESHOLD, FAR_BEYOND], [], PARAMS)
    assert [alarm.split(" has ")[0] for alarm in report.alarms] == ["prediction: predicted", "data: designation_len"]


def test_more_products_to_review_than_expected_raise_an_alarm() -> None:
    allowed = PARAMS.monitor.max_review_rise
    reference = predictions(1000, review=0.2)
    assert not judge_drift(reference, predictions(1000, review=0.2 + allowed), [], [], PARAMS).alarms
    report = judge_drift(reference, predictions(1000, review=0.21 + allowed), [], [], PARAMS)
    assert report.alarms == ["abstention: 36.0% to review, 20.0% expected"]


@pytest.mark.parametrize(
    ("weighted_f1", "interval", "alarms"),
    [
        (0.84, (0.81, 0.87), True),
        (0.84, (0.78, 0.90), False),  # the interval reaches the expected score: it may be chance
        (0.86, (0.85, 0.87), False),  # lower, but by less than max_f1_drop
        (0.95, (0.94, 0.96), False),
    ],
)
def test_only_a_large_drop_that_chance_does_not_explain_alarms(
    weighted_f1: float, interval: tuple[float, float], alarms: bool
) -> None:
    live = [LiveScore("decided", 1000, weighted_f1, interval, expected=0.9)]
    assert bool(judge_drift(predictions(1000), predictions(1000), [], live, PARAMS).alarms) == alarms


@pytest.mark.parametrize(("high", "alarms"), [(0.949, True), (0.95, False)])
def test_a_live_precision_alarms_if_its_whole_interval_is_below_the_promise(high: float, alarms: bool) -> None:
    precision = LivePrecision(0.9, (0.85, high), 150, 0.95)
    report = judge_drift(predictions(1000), predictions(1000), [], [], PARAMS, PromisedShares(precision))
    line = f"audit: precision of automatic decisions 0.900 [0.850, {high:.3f}] by 150 audited products, 0.950 promised"
    assert report.alarms == ([line] if alarms else [])
    assert report.as_json()["live_precision"] == {
        "precision": 0.9, "low": 0.85, "high": high, "labels": 150, "promised": 0.95,
    }  # fmt: skip


@pytest.mark.parametrize(("low", "alarms"), [(0.021, True), (0.02, False)])
def test_novel_products_alarm_if_their_whole_interval_is_above_the_limit(low: float, alarms: bool) -> None:
    novelty = LiveNovelty(0.035, (low, 0.055), 500, 0.01, limit=0.02)
    live = [LiveScore("decided", 1000, 0.5, (0.4, 0.6), expected=0.9)]
    report = judge_drift(predictions(1000), predictions(1000), [], live, PARAMS, PromisedShares(novelty=novelty))
    line = f"novelty: 3.5% [{low:.1%}, 5.5%] of 500 products are novel, unlike all train products; 1.0% promised"
    assert list(report.alarms[:-1]) == ([line] if alarms else [])
    assert report.alarms[-1].startswith("score: ")
    assert report.as_json()["novelty"] == {
        "rows": 500, "share": 0.035, "interval": [low, 0.055], "promised": 0.01, "limit": 0.02,
    }  # fmt: skip


def test_the_report_keeps_the_keys_of_drift_json() -> None:
    reference, window = predictions(1000, review=0.2), predictions(400, review=0.3)
    live = LiveScore("all", 400, 0.9, (0.8, 0.96), 0.95)
    assert judge_drift(reference, window, [AT_THRESHOLD], [live], PARAMS).as_json() == {
        "rows": 400,
        "drift": [
            {
                "column": "designation_len",
                "kind": "data",
                "method": "psi",
                "score": 0.2,
                "threshold": 0.2,
                "drifted": True,
            }
        ],
        "review": 0.3,
        "promised_review": 0.2,
        "live": [{"products": "all", "labels": 400, "weighted_f1": 0.9, "interval": [0.8, 0.96], "promised": 0.95}],
        "live_precision": None,
        "novelty": None,
        "alarms": ["data: designation_len has drifted, psi 0.200 (limit 0.2)"],
    }
    assert judge_drift(reference, window, [], [], PARAMS).as_json()["live"] == []


def test_class_shares_compare_training_and_live_traffic() -> None:
    window = predictions(100).query("predicted == 10")
    (books, pools) = class_shares(predictions(100), window)
    assert (books["prdtypecode"], books["promised_share"], books["live_share"]) == (10, 0.5, 1.0)
    assert (books["promised_confidence"], books["promised_to_review"]) == (0.8, 0.2)
    assert pools["prdtypecode"] == 2583
    assert (pools["live_share"], pools["live_confidence"], pools["live_to_review"]) == (0.0, None, None)


def test_drift_may_retrain_again_after_the_cool_down() -> None:
    now = datetime(2026, 1, 2, tzinfo=UTC)
    assert may_retrain(None, now, 24)
    assert not may_retrain(now - timedelta(hours=23, minutes=59), now, 24)
    assert may_retrain(now - timedelta(hours=24), now, 24)
