from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from rakuten.config import Params
from rakuten.evaluation.learning_curves import LEARNING_CURVE_COLUMNS
from rakuten.evaluation.metrics import classification_scores
from rakuten.evaluation.out_of_fold import OutOfFold
from rakuten.evaluation.report import OUT_OF_FOLD_FILE, REFERENCE_FILE, Report, dvc_metrics, measure, mlflow_metrics

PLOTS = ("confusion_matrix", "per_class_f1", "reliability", "coverage")


@pytest.fixture(scope="module")
def report(out_of_fold: OutOfFold, metadata: pd.DataFrame, scores: dict[str, Any]) -> Report:
    issues, reference = pd.DataFrame({"productid": ["1"]}), pd.DataFrame({"confidence": [0.5]})
    curves = pd.DataFrame(columns=list(LEARNING_CURVE_COLUMNS))
    return Report(out_of_fold, metadata, scores, issues, reference, curves, "# Model card\n")


def test_scores_of_all_rows_have_intervals_around_them(scores: dict[str, Any], out_of_fold: OutOfFold) -> None:
    assert scores["rows"] == 120
    expected = classification_scores(out_of_fold.true_codes, out_of_fold.predicted_codes)
    for name, score in expected.items():
        low, high = scores["interval"][name]
        assert low < scores[name] == score < high
    assert scores["calibration_error"] == pytest.approx(0.7 * 0.2 + 0.3 * 0.6)
    assert list(scores["f1"]) == list(scores["f1_interval"]) == ["10", "40", "2583"]


def test_a_baseline_is_scored_on_the_rows_that_it_can_judge(scores: dict[str, Any]) -> None:
    assert scores["compared"]["words"] == {"rows": 30, "weighted_f1": 1}
    assert scores["compared"]["text alone"] == {"rows": 120, "weighted_f1": scores["weighted_f1"]}


def test_parts_of_the_catalogue_are_scored_separately(
    scores: dict[str, Any], out_of_fold: OutOfFold, metadata: pd.DataFrame
) -> None:
    rows = {name: part["rows"] for name, part in scores["parts"].items()}
    assert rows == {
        "no picture": 60,
        "picture": 60,
        "picture and next to no text": 20,
        "near-duplicate of another product": 120,
        "title in english": 40,
        "title in french": 40,
        "title in unknown": 40,
    }
    mask = (metadata["language"] == "french").to_numpy()
    expected = classification_scores(out_of_fold.true_codes[mask], out_of_fold.predicted_codes[mask])
    part = scores["parts"]["title in french"]
    assert part["weighted_f1"] == expected["weighted_f1"]
    assert part["weighted_f1_interval"][0] < part["weighted_f1"] < part["weighted_f1_interval"][1]


def test_a_short_title_with_a_description_is_not_next_to_no_text(
    out_of_fold: OutOfFold, metadata: pd.DataFrame, params: Params
) -> None:
    described = metadata.assign(has_description=np.arange(120) < 3, has_image=1)
    parts = measure(out_of_fold, 0.7, described, params)["parts"]
    assert parts["picture and next to no text"]["rows"] == 39
    longer = metadata.assign(designation_len=metadata["designation_len"] + 1)
    assert "picture and next to no text" not in measure(out_of_fold, 0.7, longer, params)["parts"]
    assert "no picture" not in parts


def test_the_rows_from_the_threshold_on_are_decided(scores: dict[str, Any], params: Params) -> None:
    assert scores["decided"] == {
        "target_precision": params.predict.target_precision,
        "threshold": 0.7,
        "coverage": pytest.approx(0.7),
        "precision": 1.0,
    }


@pytest.mark.parametrize(("threshold", "coverage", "precision"), [(0.6, 1.0, 0.7), (0.8, 0.7, 1.0), (1.1, 0.0, 1.0)])
def test_a_confidence_at_the_threshold_is_decided(
    out_of_fold: OutOfFold, metadata: pd.DataFrame, params: Params, threshold: float, coverage: float, precision: float
) -> None:
    decided = measure(out_of_fold, threshold, metadata, params)["decided"]
    assert decided["coverage"] == pytest.approx(coverage)
    assert decided["precision"] == pytest.approx(precision)


def test_a_novel_product_is_not_decided_and_the_share_of_them_has_an_interval(
    out_of_fold: OutOfFold, metadata: pd.DataFrame, params: Params
) -> None:
    flagging = params.model_copy(update={"predict": params.predict.model_copy(update={"novelty_false_alarms": 0.1})})
    scores = measure(out_of_fold, 0.6, metadata, flagging)
    assert scores["decided"]["coverage"] == pytest.approx(0.975)  # rows 117 to 119 are novel
    assert scores["novelty"]["target_false_alarms"] == 0.1
    false_alarms = scores["novelty"]["false_alarms"]
    assert (false_alarms["rows"], false_alarms["share"]) == (119, 3 / 119)  # of one row it is not known
    low, high = false_alarms["interval"]
    assert low < 3 / 119 < high


def test_dvc_lists_few_scores_and_whether_the_products_are_synthetic(scores: dict[str, Any]) -> None:
    assert dvc_metrics(scores) == {
        "rows": 120,
        "weighted_f1": scores["weighted_f1"],
        "macro_f1": scores["macro_f1"],
        "coverage": scores["decided"]["coverage"],
        "synthetic": False,
    }
    header = "    ".join(["models/metrics.json", *sorted(dvc_metrics(scores))])
    assert len(header) <= 80  # of a terminal; numbers have at most seven characters


def test_a_run_shows_a_dozen_numbers(scores: dict[str, Any]) -> None:
    metrics = mlflow_metrics(scores)
    assert len(metrics) <= 12
    assert {type(value) for value in metrics.values()} == {float}
    assert metrics["weighted_f1"] == scores["weighted_f1"]
    assert (metrics["weighted_f1_low"], metrics["weighted_f1_high"]) == scores["interval"]["weighted_f1"]
    assert (metrics["coverage"], metrics["threshold"]) == (scores["decided"]["coverage"], 0.7)


def test_the_report_is_a_table_and_a_figure_of_each_result_and_the_rest(
    report: Report, out_of_fold: OutOfFold, tmp_path: Path
) -> None:
    paths = report.write(tmp_path)
    names = [f"{name}.{ending}" for name in PLOTS for ending in ("csv", "png")]
    others = ["learning_curves.png", REFERENCE_FILE, OUT_OF_FOLD_FILE, "label_issues.csv", "model_card.md"]
    assert [path.name for path in paths] == names + others
    assert sorted(tmp_path.iterdir()) == sorted(paths)
    assert (tmp_path / "model_card.md").read_text(encoding="utf-8") == "# Model card\n"
    assert pd.read_parquet(tmp_path / REFERENCE_FILE)["confidence"].tolist() == [0.5]
    predictions = pd.read_csv(tmp_path / OUT_OF_FOLD_FILE)
    assert list(predictions.columns) == ["productid", "imageid", "prdtypecode", "predicted", "confidence", "novelty"]
    assert predictions["prdtypecode"].tolist() == out_of_fold.true_codes.tolist()
    assert predictions["predicted"].tolist() == out_of_fold.predicted_codes.tolist()
    confusion = pd.read_csv(tmp_path / "confusion_matrix.csv", index_col="prdtypecode")
    assert confusion.to_numpy().sum() == len(out_of_fold.y)
    per_class = pd.read_csv(tmp_path / "per_class_f1.csv", index_col="prdtypecode")
    assert per_class.loc[2583, ["f1_low", "f1_high"]].tolist() == pytest.approx(report.scores["f1_interval"]["2583"])


def test_a_report_that_cannot_be_written_leaves_no_file(report: Report, tmp_path: Path) -> None:
    broken = replace(report, scores={**report.scores, "decided": {"coverage": 1}})
    with pytest.raises(KeyError):
        broken.write(tmp_path)
    unwritable = replace(report, model_card="\ud800")  # no UTF-8
    with pytest.raises(UnicodeEncodeError):
        unwritable.write(tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_same_results_give_the_same_bytes(report: Report, tmp_path: Path) -> None:
    for one, other in zip(report.write(tmp_path / "a"), report.write(tmp_path / "b"), strict=True):
        assert one.read_bytes() == other.read_bytes(), one.name


def test_plots_of_the_synthetic_catalogue_are_marked(report: Report, tmp_path: Path) -> None:
    report.write(tmp_path / "real")
    replace(report, scores={**report.scores, "synthetic": True}).write(tmp_path / "synthetic")
    for name in PLOTS:
        real, synthetic = (tmp_path / kind / f"{name}.png" for kind in ("real", "synthetic"))
        assert real.read_bytes() != synthetic.read_bytes()
