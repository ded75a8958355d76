"""The rules that turn a window into alarms, and alarms into a retraining."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rakuten.config import load_params
from rakuten.errors import UserError
from rakuten.monitoring.alerts import class_shares, judge_drift, live_score, may_retrain
from rakuten.monitoring.drift import ColumnDrift
from rakuten.monitoring.monitor import last_retraining, read_labels, record_retraining

PARAMS = load_params()
CALM = ColumnDrift("language", "text", "jensenshannon", 0.19, 0.2)
LOUD = ColumnDrift("designation_len", "data", "psi", 0.2, 0.2)


def frame(rows: int, review: float = 0.2, right: float = 0.9) -> pd.DataFrame:
    """Predictions of two codes, of which some need review and some are right."""
    at = np.arange(rows)
    true = np.where(at % 2 == 0, 10, 2583)
    wrong = at % 100 >= 100 * right
    return pd.DataFrame(
        {
            "prediction_id": [f"p{each}" for each in at],
            "prdtypecode": true,
            "predicted": np.where(wrong, 12593 - 10000 - true, true),
            "confidence": 0.8,
            "needs_review": (at % 100 < 100 * review).astype(int),
        }
    )


def test_a_column_alarms_from_its_threshold_on() -> None:
    assert not judge_drift(frame(1000), frame(1000), [CALM], None, PARAMS).alarms
    (alarm,) = judge_drift(frame(1000), frame(1000), [CALM, LOUD], None, PARAMS).alarms
    assert alarm == "data: designation_len has drifted, psi 0.200 (from 0.2)"


def test_more_to_review_than_promised_alarms() -> None:
    allowed = PARAMS.monitor.max_review_rise
    assert not judge_drift(frame(1000, 0.2), frame(1000, 0.2 + allowed), [], None, PARAMS).alarms
    (alarm,) = judge_drift(frame(1000, 0.2), frame(1000, 0.21 + allowed), [], None, PARAMS).alarms
    assert alarm.startswith("abstention: 36.0% to review, 20.0% promised")


def test_labels_that_come_later_give_the_live_score() -> None:
    reference, live = frame(1000, right=0.9), frame(1000, right=0.7)
    labels = live[["prediction_id", "prdtypecode"]]
    assert live_score(reference, live, labels.head(PARAMS.monitor.min_labels - 1), PARAMS) is None
    found = live_score(reference, live, labels, PARAMS)
    assert found is not None
    assert (found.rows, found.promised, found.weighted_f1) == (1000, pytest.approx(0.9), pytest.approx(0.7))
    assert found.interval[0] < 0.7 < found.interval[1] < 0.75
    (alarm,) = judge_drift(reference, live, [], found, PARAMS).alarms
    assert alarm.startswith("score: weighted F1 0.700 [")
    # As good as promised, or labels of other predictions: no alarm.
    assert not judge_drift(reference, reference, [], live_score(reference, reference, labels, PARAMS), PARAMS).alarms
    strangers = labels.assign(prediction_id="stranger")
    assert live_score(reference, live, strangers, PARAMS) is None


def test_of_a_label_given_twice_the_last_counts() -> None:
    live = frame(400)
    labels = live[["prediction_id", "prdtypecode"]].assign(prdtypecode=10)
    corrected = pd.concat([labels, live[["prediction_id", "prdtypecode"]]])
    found = live_score(live, live, corrected, PARAMS)
    assert found is not None
    assert found.weighted_f1 == found.promised


def test_each_class_stands_beside_its_promise() -> None:
    live = frame(100).query("predicted == 10")
    (books, pools) = class_shares(frame(100), live)
    assert (books["prdtypecode"], books["promised_share"], books["live_share"]) == (10, 0.5, 1.0)
    assert (pools["live_share"], pools["live_confidence"], pools["promised_confidence"]) == (0.0, None, 0.8)


def test_drift_waits_out_the_cool_down(tmp_path: Path) -> None:
    now = datetime(2026, 1, 2, tzinfo=UTC)
    assert last_retraining(tmp_path) is None
    assert may_retrain(None, now, 24)
    record_retraining(tmp_path, now - timedelta(hours=23))
    assert not may_retrain(last_retraining(tmp_path), now, 24)
    record_retraining(tmp_path, now - timedelta(hours=24))
    assert may_retrain(last_retraining(tmp_path), now, 24)


@pytest.mark.parametrize("text", ["", "prediction_id\na\n", "prediction_id,prdtypecode\na,ten\n"])
def test_labels_that_are_none_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(UserError, match=r"labels\.csv: not a CSV of prediction_id and prdtypecode"):
        read_labels(tmp_path / "labels.csv")
    assert read_labels(tmp_path / "none.csv").empty
