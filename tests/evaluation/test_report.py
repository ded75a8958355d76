from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from rakuten.config import Params
from rakuten.evaluation.metrics import classification_scores
from rakuten.evaluation.out_of_fold import OutOfFold
from rakuten.evaluation.report import OUT_OF_FOLD_FILE, REFERENCE_FILE, Report, flat_metrics, measure

PLOTS = ("confusion_matrix", "per_class_f1", "reliability", "coverage")


@pytest.fixture(scope="module")
def report(out_of_fold: OutOfFold, metadata: pd.DataFrame, metrics: dict[str, Any]) -> Report:
    issues, reference = pd.DataFrame({"productid": ["1"]}), pd.DataFrame({"confidence": [0.5]})
    return Report(out_of_fold, metadata, metrics, issues, reference, "# Model card\n")


def test_scores_of_all_rows_have_intervals_around_them(metrics: dict[str, Any], out_of_fold: OutOfFold) -> None:
    assert metrics["rows"] == 120
    scores = classification_scores(out_of_fold.true_codes, out_of_fold.predicted_codes)
    for name, score in scores.items():
        low, high = metrics["interval"][name]
        assert low < metrics[name] == score < high
    assert metrics["calibration_error"] == pytest.approx(0.7 * 0.2 + 0.3 * 0.6)
    assert list(metrics["f1"]) == list(metrics["f1_interval"]) == ["10", "40", "2583"]


def test_a_baseline_is_scored_on_the_rows_that_it_can_judge(metrics: dict[str, Any]) -> None:
    assert metrics["compared"]["words"] == {"rows": 30, "weighted_f1": 1}
    assert metrics["compared"]["text alone"] == {"rows": 120, "weighted_f1": metrics["weighted_f1"]}


def test_parts_of_the_catalogue_are_scored_separately(
    metrics: dict[str, Any], out_of_fold: OutOfFold, metadata: pd.DataFrame
) -> None:
    rows = {name: part["rows"] for name, part in metrics["parts"].items()}
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
    scores = classification_scores(out_of_fold.true_codes[mask], out_of_fold.predicted_codes[mask])
    part = metrics["parts"]["title in french"]
    assert part["weighted_f1"] == scores["weighted_f1"]
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


def test_the_rows_from_the_threshold_on_are_decided(metrics: dict[str, Any], params: Params) -> None:
    assert metrics["decided"] == {
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


def test_flat_metrics_are_numbers_under_names_without_spaces(metrics: dict[str, Any]) -> None:
    flat = flat_metrics(metrics)
    assert {type(value) for value in flat.values()} == {float}
    assert flat["weighted_f1"] == metrics["weighted_f1"]
    assert (flat["weighted_f1_low"], flat["weighted_f1_high"]) == metrics["interval"]["weighted_f1"]
    assert [flat["f1_2583_low"], flat["f1_2583_high"]] == metrics["f1_interval"]["2583"]
    part = metrics["parts"]["title in french"]
    assert flat["parts_title_in_french_weighted_f1_low"] == part["weighted_f1_interval"][0]
    assert flat["compared_text_alone_rows"] == 120
    assert "synthetic" not in flat


def test_the_report_is_a_table_and_a_figure_of_each_result_and_the_rest(
    report: Report, out_of_fold: OutOfFold, tmp_path: Path
) -> None:
    paths = report.write(tmp_path)
    names = [f"{name}.{ending}" for name in PLOTS for ending in ("csv", "png")]
    others = [REFERENCE_FILE, OUT_OF_FOLD_FILE, "label_issues.csv", "model_card.md"]
    assert [path.name for path in paths] == names + others
    assert sorted(tmp_path.iterdir()) == sorted(paths)
    assert (tmp_path / "model_card.md").read_text(encoding="utf-8") == "# Model card\n"
    assert pd.read_parquet(tmp_path / REFERENCE_FILE)["confidence"].tolist() == [0.5]
    predictions = pd.read_csv(tmp_path / OUT_OF_FOLD_FILE)
    assert list(predictions.columns) == ["productid", "imageid", "prdtypecode", "predicted", "confidence"]
    assert predictions["prdtypecode"].tolist() == out_of_fold.true_codes.tolist()
    assert predictions["predicted"].tolist() == out_of_fold.predicted_codes.tolist()
    confusion = pd.read_csv(tmp_path / "confusion_matrix.csv")
    assert confusion["actual"].tolist() == out_of_fold.true_codes.tolist()


def test_a_report_that_cannot_be_written_leaves_no_file(report: Report, tmp_path: Path) -> None:
    broken = replace(report, metrics={**report.metrics, "decided": {"coverage": 1}})
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
    replace(report, metrics={**report.metrics, "synthetic": True}).write(tmp_path / "synthetic")
    for name in PLOTS:
        real, synthetic = (tmp_path / kind / f"{name}.png" for kind in ("real", "synthetic"))
        assert real.read_bytes() != synthetic.read_bytes()
