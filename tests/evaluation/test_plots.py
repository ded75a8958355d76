from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from rakuten.data.taxonomy import label_of
from rakuten.evaluation.plots import (
    confusion_figure,
    coverage_figure,
    learning_curves_figure,
    per_class_figure,
    reliability_figure,
    save_figure,
)

CONFUSION = pd.DataFrame({"prdtypecode": [10, 40, 60], "10": [37, 1, 0], "40": [2, 1, 0], "60": [1, 0, 0]})
DECIDED = {"target_precision": 0.95, "threshold": 0.9, "coverage": 0.5, "precision": 1.0}
UNDECIDED = {"target_precision": 0.95, "threshold": 1.1, "coverage": 0.0, "precision": 1.0}
COVERAGE = pd.DataFrame({"coverage": [0.5, 1.0], "precision": [1.0, 0.8], "threshold": [0.9, 0.4]})


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def test_the_confusion_matrix_shows_shares_of_each_true_class() -> None:
    axes = confusion_figure(CONFUSION, "title").axes[0]
    shares = np.asarray(axes.images[0].get_array())
    assert shares == pytest.approx(np.array([[37, 2, 1], [20, 20, 0], [0, 0, 0]]) / 40)
    names = [f"{code}  {label_of(code)}" for code in (10, 40, 60)]
    assert [label.get_text() for label in axes.get_yticklabels()] == names
    assert [label.get_text() for label in axes.get_xticklabels()] == names
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted prdtypecode", "true prdtypecode")


def test_shares_from_five_percent_on_are_printed() -> None:
    figure = confusion_figure(CONFUSION, "title")
    printed = {text.get_position(): text.get_text() for text in figure.axes[0].texts}  # position: column, row
    assert printed == {(0, 0): "92", (1, 0): "5", (0, 1): "50", (1, 1): "50"}


def test_classes_are_in_the_order_of_their_codes_with_their_intervals() -> None:
    table = pd.DataFrame({"prdtypecode": [10, 40, 2583], "f1": [0.5, 0.9, 0.7], "support": [1, 2000, 3]})
    table = table.assign(f1_low=[0.6, 0.8, 0.5], f1_high=[0.7, 1.0, 0.75])  # the first is beside its interval
    axes = per_class_figure(table, "title").axes[0]
    assert axes.yaxis_inverted()  # the first at the top
    bars = sorted(axes.patches, key=lambda bar: bar.get_y())
    assert [bar.get_width() for bar in bars] == [0.5, 0.9, 0.7]
    assert [label.get_text()[:4] for label in axes.get_yticklabels()] == ["10  ", "40  ", "2583"]
    assert texts(axes.figure) == ["0.50  n=1", "0.90  n=2,000", "0.70  n=3"]
    (intervals,) = axes.collections
    ends = [segment[:, 0].tolist() for segment in intervals.get_segments()]
    assert np.array(ends) == pytest.approx(np.array([[0.5, 0.7], [0.8, 1.0], [0.5, 0.75]]))


def test_the_reliability_diagram_shows_the_bins_beside_the_diagonal() -> None:
    table = pd.DataFrame({"confidence": [0.3, 0.9], "accuracy": [0.2, 0.95], "rows": [1, 3]})
    axes = reliability_figure(table, 0.0625, DECIDED, "title").axes[0]
    assert "0.062" in axes.get_title()
    diagonal, curve, threshold = axes.lines
    assert threshold.get_xdata() == [0.9, 0.9]
    assert diagonal.get_xydata().tolist() == [[0, 0], [1, 1]]
    assert curve.get_xydata().tolist() == [[0.3, 0.2], [0.9, 0.95]]
    assert axes.collections[0].get_sizes().tolist() == [20 + 380 / 4, 20 + 380 * 3 / 4]


def test_the_coverage_curve_marks_what_is_decided() -> None:
    figure = coverage_figure(COVERAGE, DECIDED, "title")
    curve, target, threshold, point = figure.axes[0].lines
    assert threshold.get_xdata() == [0.5, 0.5]
    assert threshold.get_label() == "threshold: confidence 0.900"
    assert curve.get_xydata().tolist() == [[0.5, 1.0], [1.0, 0.8]]
    assert target.get_ydata() == [0.95, 0.95]
    assert point.get_xydata().tolist() == [[0.5, 1.0]]
    assert texts(figure) == ["50% decided, 100.0% correct"]


def test_the_coverage_curve_marks_no_point_where_nothing_is_decided() -> None:
    figure = coverage_figure(COVERAGE, UNDECIDED, "title")
    assert len(figure.axes[0].lines) == 2
    assert texts(figure) == []
    table = pd.DataFrame({"confidence": [0.3], "accuracy": [0.2], "rows": [1]})
    assert len(reliability_figure(table, 0.1, UNDECIDED, "title").axes[0].lines) == 2


def test_learning_curves_have_a_line_for_each_network() -> None:
    curves = pd.DataFrame({"fit": ["a", "a", "b"], "epoch": [1, 2, 1], "loss": [3.0, 2.0, 4.0]})
    curves = curves.assign(weighted_f1=[np.nan, 0.5, np.nan])  # of b, trained on all rows, there is none
    loss, score = learning_curves_figure(curves, "title").axes
    assert [line.get_xydata().tolist() for line in loss.lines] == [[[1, 3], [2, 2]], [[1, 4]]]
    assert [line.get_xydata().tolist() for line in score.lines] == [[[2, 0.5]]]


def test_without_learning_curves_the_figure_says_so() -> None:
    figure = learning_curves_figure(pd.DataFrame(columns=["fit", "epoch", "loss", "weighted_f1"]), "title")
    assert figure.axes == []
    assert figure.texts[0].get_text().startswith("No encoder was fine-tuned")


def test_a_figure_is_a_png_file_without_a_version_in_its_header(tmp_path: Path) -> None:
    save_figure(confusion_figure(CONFUSION, "title"), tmp_path / "a.partial")
    data = (tmp_path / "a.partial").read_bytes()
    assert data.startswith(b"\x89PNG")
    assert b"Software" not in data
