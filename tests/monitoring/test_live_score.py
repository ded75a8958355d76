"""Live scores by later labels: by part of the traffic, without false alarms when only hard products are labelled."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score

from rakuten.config import load_params
from rakuten.evaluation.bootstrap import stratified_weighted_f1
from rakuten.monitoring.live_score import (
    ALL,
    DECIDED,
    TO_REVIEW,
    LiveScore,
    alarms,
    audit_sample,
    label_predictions,
    live_scores,
)

PARAMS = load_params()
QUICK = PARAMS.model_copy(update={"train": PARAMS.train.model_copy(update={"bootstrap": 200})})
MIN_LABELS = PARAMS.monitor.min_labels
MAX_DROP = PARAMS.monitor.max_f1_drop
CODES = np.array([10, 40, 2583, 2705])
DECIDED_ACCURACY, REVIEW_ACCURACY, REVIEW_SHARE = 0.95, 0.6, 0.3  # a usual model


def traffic(n_rows: int, seed: int, decided: float = DECIDED_ACCURACY, review: float = REVIEW_ACCURACY) -> pd.DataFrame:
    """Predictions with their true prdtypecode, of which a share is right among those decided and those to review."""
    rng = np.random.default_rng(seed)
    needs_review = rng.random(n_rows) < REVIEW_SHARE
    right = rng.random(n_rows) < np.where(needs_review, review, decided)
    y_true = rng.choice(CODES, n_rows, p=[0.1, 0.2, 0.4, 0.3])
    other = CODES[(np.searchsorted(CODES, y_true) + rng.integers(1, 4, n_rows)) % 4]
    return pd.DataFrame(
        {
            "prediction_id": [f"{seed}-{number}" for number in range(n_rows)],
            "prdtypecode": y_true,
            "predicted": np.where(right, y_true, other),
            "confidence": 0.8,
            "needs_review": needs_review.astype(int),
            "designation": None,
            "description": None,
        }
    )


def labelled(window: pd.DataFrame, decided: int = 0, review: int = 0) -> pd.DataFrame:
    """The window as it is once so many products of each part have a label."""
    counts = {0: decided, 1: review}
    label = pd.concat([window[window["needs_review"] == part].head(count) for part, count in counts.items()])
    return label_predictions(window.drop(columns="prdtypecode"), label[["prediction_id", "prdtypecode"]])


def scores(window: pd.DataFrame) -> dict[str, LiveScore]:
    return {score.products: score for score in live_scores(REFERENCE, window, QUICK)}


def alarm_lines(window: pd.DataFrame) -> list[str]:
    return list(alarms(live_scores(REFERENCE, window, QUICK), MAX_DROP))


REFERENCE = traffic(20_000, 0)


@pytest.mark.parametrize("seed", range(1, 21))
def test_no_false_alarm_when_only_reviewed_products_are_labelled(seed: int) -> None:
    """They are the hard ones: a plain comparison with the score of all products would always raise an alarm."""
    window = labelled(traffic(5_000, seed), review=600)
    found = scores(window)
    assert list(found) == [TO_REVIEW]
    assert found[TO_REVIEW].weighted_f1 < 0.7
    assert alarm_lines(window) == []


@pytest.mark.parametrize("seed", range(1, 21))
def test_an_alarm_when_the_decided_products_get_worse(seed: int) -> None:
    window = labelled(traffic(5_000, seed, decided=0.8), decided=300, review=600)
    (line,) = alarm_lines(window)
    assert line.startswith("score: weighted F1 of the products decided 0.")
    assert line.endswith("by 300 labels, 0.951 expected")


def test_reviewed_products_that_get_worse_raise_an_alarm_too() -> None:
    (line,) = alarm_lines(labelled(traffic(5_000, 1, review=0.4), review=600))
    assert line.startswith("score: weighted F1 of the products to review 0.")


def test_the_score_of_all_products_weighs_each_part_by_its_share_of_the_traffic() -> None:
    """Also where nearly all labels are of products to review."""
    window = traffic(20_000, 3)
    truth = f1_score(window["prdtypecode"], window["predicted"], average="weighted")
    found = scores(labelled(window, decided=2_000, review=6_000))[ALL]
    assert found.n_labels == 8_000 - max(0, 6_000 - int(window["needs_review"].sum()))
    assert found.weighted_f1 == pytest.approx(truth, abs=0.01)
    assert found.interval[0] < truth < found.interval[1]
    assert found.expected == pytest.approx(0.845, abs=0.01)


def test_a_part_with_too_few_labels_is_not_scored() -> None:
    window = traffic(5_000, 4)
    assert list(scores(labelled(window, decided=MIN_LABELS - 1, review=MIN_LABELS))) == [TO_REVIEW]
    assert list(scores(labelled(window, decided=MIN_LABELS, review=MIN_LABELS))) == [ALL, DECIDED, TO_REVIEW]
    assert scores(labelled(window)) == {}


def review_traffic(n_rows: int, seed: int) -> pd.DataFrame:
    """Products to review of which those of confidence p are right with probability p."""
    rng = np.random.default_rng(seed)
    confidence = rng.uniform(0.15, 0.8, n_rows)
    second = np.minimum((1 - confidence) * rng.beta(3, 2, n_rows), confidence)
    y_true = rng.choice(CODES, n_rows)
    right = rng.random(n_rows) < confidence
    other = CODES[(np.searchsorted(CODES, y_true) + rng.integers(1, 4, n_rows)) % 4]
    frame = pd.DataFrame({"prdtypecode": y_true, "predicted": np.where(right, y_true, other), "needs_review": 1})
    return frame.assign(confidence=confidence, uncertainty=1 - confidence + second)


@pytest.mark.parametrize("seed", range(1, 4))
@pytest.mark.parametrize("n_labels", [300, 900, 1200])
def test_no_false_alarm_when_the_least_certain_products_are_labelled_first(n_labels: int, seed: int) -> None:
    """As at the review desk. The first 1,200 of 1,500 are right less often than all of them, by 0.06."""
    reference, window = review_traffic(20_000, 0), review_traffic(1_500, seed)
    later = window["uncertainty"].rank(ascending=False) > n_labels
    found = live_scores(reference, window.assign(prdtypecode=window["prdtypecode"].mask(later)), QUICK)
    assert list(alarms(found, MAX_DROP)) == []
    assert [score.products for score in found] == ([ALL, TO_REVIEW] if n_labels == 1200 else [])
    truth = f1_score(window["prdtypecode"], window["predicted"], average="weighted")
    assert all(score.weighted_f1 == pytest.approx(truth, abs=0.045) for score in found)


def test_where_all_products_are_decided_they_are_all() -> None:
    window = traffic(1_000, 5).query("needs_review == 0")
    found = scores(labelled(window, decided=400))
    assert list(found) == [ALL, DECIDED]
    assert found[ALL].weighted_f1 == found[DECIDED].weighted_f1


def test_the_last_label_of_a_prediction_counts() -> None:
    window = traffic(10, 6)
    labels = pd.DataFrame({"prediction_id": ["6-3", "6-3", "another"], "prdtypecode": [10, 40, 10]})
    label = label_predictions(window.drop(columns="prdtypecode"), labels)["prdtypecode"]
    assert label[3] == 40
    assert label.notna().sum() == 1


def test_all_products_raise_an_alarm_only_if_no_part_does() -> None:
    low = (0.7, (0.65, 0.75), 0.9)
    whole, part = LiveScore(ALL, 900, *low), LiveScore(DECIDED, 300, *low)
    assert [line.split(" 0.")[0] for line in alarms([whole, part], 0.05)] == [
        "score: weighted F1 of the products decided"
    ]
    assert [line.split(" 0.")[0] for line in alarms([whole], 0.05)] == ["score: weighted F1"]


def test_the_audit_sample_asks_for_decided_products_at_random_and_for_the_same_ones_again() -> None:
    window = traffic(5_000, 7)
    sample = audit_sample(labelled(window, decided=50, review=1_000), MIN_LABELS)
    assert len(sample) == MIN_LABELS - 50
    rows = sample.index.to_numpy()
    assert (window.loc[rows, "needs_review"] == 0).all()
    already = window.index[window["needs_review"] == 0][:50]
    assert not set(rows) & set(already)
    assert rows.std() == pytest.approx(5_000 / np.sqrt(12), rel=0.2)  # from all of the window
    later = pd.concat([traffic(1_000, 8), window], ignore_index=True)
    again = audit_sample(labelled(later), 10**6)
    assert set(sample["prediction_id"]) <= set(again["prediction_id"])
    assert (sample["prdtypecode"] == "").all()


def test_enough_labels_need_no_audit() -> None:
    assert audit_sample(labelled(traffic(5_000, 9), decided=MIN_LABELS), MIN_LABELS).empty


def test_a_filled_in_audit_sample_is_read_as_labels() -> None:
    window = traffic(5_000, 10)
    sample = audit_sample(labelled(window), MIN_LABELS)
    filled_in = sample.assign(prdtypecode=window.loc[sample.index, "prdtypecode"])
    found = scores(label_predictions(window.drop(columns="prdtypecode"), filled_in))
    assert list(found) == [DECIDED]
    assert found[DECIDED].n_labels == MIN_LABELS


def test_a_stratified_score_of_one_stratum_is_the_plain_score() -> None:
    window = traffic(500, 11)
    y_true, y_pred = window["prdtypecode"].to_numpy(), window["predicted"].to_numpy()
    score, (low, high) = stratified_weighted_f1([y_true], [y_pred], np.array([1.0]), 500, 0)
    assert score == pytest.approx(f1_score(y_true, y_pred, average="weighted"))
    assert low < score < high
