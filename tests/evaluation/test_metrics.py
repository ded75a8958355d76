import numpy as np
import pandas as pd
import pytest
from scipy.special import softmax
from sklearn.metrics import f1_score

from rakuten.errors import UserError
from rakuten.evaluation import bootstrap, calibration, folds, metrics
from rakuten.features import feature_set
from rakuten.types import IntArray


def table(titles: list[str], descriptions: list[str] | None = None) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "designation_clean": titles,
            "description_clean": descriptions or [""] * len(titles),
            "productid": [str(n) for n in range(len(titles))],
            "imageid": [str(n) for n in range(len(titles))],
        }
    )


def folds_of(rows: pd.DataFrame, codes: IntArray, folds: int, seed: int) -> IntArray:
    return folds.assign_folds(feature_set.title_groups(rows), codes, folds, seed)


@pytest.fixture
def repeated() -> tuple[pd.DataFrame, IntArray]:
    rng = np.random.default_rng(0)
    titles = [f"Titre {n}" for n in rng.integers(0, 120, 400)]
    return table(titles), np.array([int(title.split()[1]) % 5 for title in titles])


def test_repeats_fall_in_the_same_fold(repeated: tuple[pd.DataFrame, IntArray]) -> None:
    rows, codes = repeated
    upper = rows.assign(designation_clean=rows["designation_clean"].str.upper())
    both = pd.concat([rows, upper.assign(productid=rows["productid"] + "0")], ignore_index=True)
    fold = folds_of(both, np.tile(codes, 2), 5, 42)
    assert set(fold) == set(range(5))
    folds_of_title = pd.Series(fold).groupby(both["designation_clean"].str.lower()).nunique()
    assert (folds_of_title == 1).all()


def test_folds_depend_on_data_and_seed_alone(repeated: tuple[pd.DataFrame, IntArray]) -> None:
    rows, codes = repeated
    fold = folds_of(rows, codes, 5, 42)
    order = np.random.default_rng(1).permutation(len(rows))
    shuffled = folds_of(rows.iloc[order].reset_index(drop=True), codes[order], 5, 42)
    assert (shuffled == fold[order]).all()
    assert (folds_of(rows, codes, 5, 43) != fold).any()


def test_every_fold_has_its_share_of_each_class(repeated: tuple[pd.DataFrame, IntArray]) -> None:
    rows, codes = repeated
    distinct = ~rows["designation_clean"].duplicated()
    dealt = pd.crosstab(folds_of(rows, codes, 5, 42)[distinct], codes[distinct])
    assert (dealt.max() - dealt.min()).max() <= 1


def test_rows_without_a_title_are_grouped_by_description_else_alone() -> None:
    keys = feature_set.title_groups(table(["a", "", "", "", "A"], ["x", "a", "a", "", "y"]))
    assert keys[0] == keys[4]
    assert keys[1] == keys[2]
    assert len(set(keys)) == 3


def test_classes_smaller_than_the_folds_are_dealt_out() -> None:
    fold = folds_of(table([f"t{n}" for n in range(8)]), np.array([1, 1, 2, 2, 3, 3, 4, 4]), 4, 0)
    assert sorted(np.bincount(fold)) == [2, 2, 2, 2]


def test_shares_are_equal_and_hang_on_the_seed_alone() -> None:
    share = folds.assign_shards(1003, 4, 1)
    assert sorted(np.bincount(share).tolist()) == [250, 251, 251, 251]
    assert (share == folds.assign_shards(1003, 4, 1)).all()
    assert (share != folds.assign_shards(1003, 4, 2)).any()
    assert not folds.assign_shards(7, 1, 0).any()


def test_too_few_titles_are_an_error() -> None:
    with pytest.raises(UserError, match="only 2 distinct titles"):
        folds_of(table(["a", "a", "b"]), np.array([1, 1, 2]), 3, 0)


def test_scores_and_intervals_agree_with_sklearn() -> None:
    rng = np.random.default_rng(0)
    true = rng.choice([10, 40, 50], 500, p=[0.7, 0.2, 0.1])
    predicted = np.where(rng.random(500) < 0.7, true, rng.choice([10, 40, 60], 500))
    scores = metrics.classification_scores(true, predicted)
    assert scores["weighted_f1"] == pytest.approx(f1_score(true, predicted, average="weighted", zero_division=0.0))
    assert scores["accuracy"] == pytest.approx(np.mean(true == predicted))
    found = bootstrap.bootstrap_ci(true, predicted, 400, 1)
    for name, (low, high) in found.scores.items():
        assert low < scores[name] < high
        assert 0.03 < high - low < 0.2
    per_class = metrics.per_class_scores(true, predicted)
    assert list(found.f1) == [10, 40, 50]
    for code, f1 in zip(per_class["prdtypecode"], per_class["f1"], strict=True):
        low, high = found.f1[code]
        assert low < f1 < high
    assert bootstrap.bootstrap_ci(true, predicted, 50, 1) == bootstrap.bootstrap_ci(true, predicted, 50, 1)
    assert bootstrap.bootstrap_ci(true, true, 50, 1).scores["macro_f1"] == (1.0, 1.0)


def test_the_resampled_score_is_the_reported_one() -> None:
    true, predicted = np.array([1, 1, 2, 3, 3, 3]), np.array([1, 2, 2, 3, 3, 4])
    classes = np.array([1, 2, 3, 4])
    confusion = np.zeros((4, 4), dtype=np.intp)
    np.add.at(confusion, (np.searchsorted(classes, true), np.searchsorted(classes, predicted)), 1)
    resampled = bootstrap._scores_of_confusion(confusion)
    assert resampled[:3] == pytest.approx(list(metrics.classification_scores(true, predicted).values()))
    assert resampled[3:6] == pytest.approx(metrics.per_class_scores(true, predicted)["f1"].to_numpy())
    assert np.isnan(resampled[6])


def test_per_class_has_every_true_code() -> None:
    rows = metrics.per_class_scores(np.array([1, 1, 2]), np.array([1, 3, 3]))
    assert rows["prdtypecode"].tolist() == [1, 2]
    assert rows["f1"].tolist() == pytest.approx([2 / 3, 0])
    assert rows["support"].tolist() == [2, 1]


def test_temperature_makes_scores_calibrated() -> None:
    rng = np.random.default_rng(0)
    honest = rng.normal(size=(20_000, 4)) * 2
    likely = softmax(honest, axis=1)
    true = np.array([rng.choice(4, p=row) for row in likely])
    temperature, loss = calibration.fit_temperature(honest * 7, true)
    assert temperature == pytest.approx(7, rel=0.05)
    assert loss == pytest.approx(-np.log(likely[np.arange(20_000), true]).mean(), abs=1e-3)
    calibrated = softmax(honest * 7 / temperature, axis=1)
    error = calibration.reliability(calibrated.max(axis=1), calibrated.argmax(axis=1) == true).error
    overconfident = softmax(honest * 7, axis=1)
    worse = calibration.reliability(overconfident.max(axis=1), overconfident.argmax(axis=1) == true).error
    assert error < 0.02 < 0.1 < worse


def test_reliability_weighs_bins_by_rows() -> None:
    result = calibration.reliability(np.array([0.95, 0.95, 0.95, 1.0, 0.55]), np.array([True, True, True, True, False]))
    assert result.table["rows"].tolist() == [1, 4]
    assert result.error == pytest.approx((0.55 + 0.15) / 5)


def test_coverage_goes_from_the_surest_to_all() -> None:
    curve = calibration.coverage_curve(np.array([0.9, 0.2, 0.8, 0.4]), np.array([True, False, True, True]))
    assert curve["coverage"].tolist() == [0.25, 0.5, 0.75, 1]
    assert curve["precision"].tolist() == [1, 1, 1, 0.75]
    assert curve["threshold"].tolist() == [0.9, 0.8, 0.4, 0.2]


def test_the_threshold_is_the_lowest_that_keeps_the_precision() -> None:
    confidence = np.array([0.9, 0.8, 0.7, 0.6, 0.6, 0.5])
    right = np.array([True, True, False, True, True, False])
    assert calibration.threshold_at_precision(confidence, right, 0.8) == 0.6
    assert calibration.threshold_at_precision(confidence, right, 0.9) == 0.8
    assert calibration.threshold_at_precision(confidence, right, 0.0) == 0.5
    assert calibration.threshold_at_precision(confidence, ~right, 0.7) == calibration.NO_THRESHOLD
    # Ties stand or fall together.
    assert (
        calibration.threshold_at_precision(np.array([0.9, 0.9]), np.array([True, False]), 0.9)
        == calibration.NO_THRESHOLD
    )


def test_a_view_that_is_absent_says_what_is_common() -> None:
    absent, truth = np.full((2, 2), np.nan), np.array([0, 0, 0, 1])
    scores = np.vstack([absent, [[3.0, -3.0], [-3.0, 3.0]]])
    alone = calibration.single_view_proba(scores, 1.0, np.bincount(truth) / 4)
    assert alone[:2].tolist() == [[0.75, 0.25]] * 2
    assert alone[2:].argmax(axis=1).tolist() == [0, 1]
    there = {"a": ~np.isnan(scores[:, 0]), "b": np.array([True, False, False, True])}
    both = calibration.mean_proba_baseline({"a": alone, "b": np.full((4, 2), 0.5)}, there)
    assert both == pytest.approx(np.array([[0.5, 0.5], [0.625, 0.375], alone[2], (alone[3] + 0.5) / 2]))
