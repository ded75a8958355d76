from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from rakuten.evaluation.plots import (
    confusion_figure,
    confusion_table,
    coverage_figure,
    per_class_figure,
    reliability_figure,
    save_figure,
)

Y_TRUE, Y_PRED = np.array([10] * 40 + [40] * 2), np.array([10] * 37 + [40, 40, 60] + [40, 10])
COVERAGE = pd.DataFrame({"coverage": [0.5, 1.0], "precision": [1.0, 0.8], "threshold": [0.9, 0.4]})


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def test_the_confusion_table_has_a_row_for_each_product() -> None:
    table = confusion_table(Y_TRUE, Y_PRED)
    assert table["actual"].tolist() == Y_TRUE.tolist()
    assert table["predicted"].tolist() == Y_PRED.tolist()


def test_the_confusion_matrix_shows_shares_of_each_true_class() -> None:
    axes = confusion_figure(Y_TRUE, Y_PRED, "title").axes[0]
    shares = np.asarray(axes.images[0].get_array())
    assert shares == pytest.approx(np.array([[37, 2, 1], [20, 20, 0], [0, 0, 0]]) / 40)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["10", "40", "60"]
    assert axes.get_ylabel() == "true prdtypecode"


def test_shares_from_five_percent_on_are_printed() -> None:
    figure = confusion_figure(Y_TRUE, Y_PRED, "title")
    printed = {text.get_position(): text.get_text() for text in figure.axes[0].texts}  # position: column, row
    assert printed == {(0, 0): "92", (1, 0): "5", (0, 1): "50", (1, 1): "50"}


def test_the_best_class_is_at_the_top() -> None:
    table = pd.DataFrame({"prdtypecode": [10, 40, 2583], "f1": [0.5, 0.9, 0.7], "support": [1, 2000, 3]})
    figure = per_class_figure(table, "title")
    bars = sorted(figure.axes[0].patches, key=lambda bar: bar.get_y())
    assert [bar.get_width() for bar in bars] == [0.5, 0.7, 0.9]
    assert [label.get_text()[:4] for label in figure.axes[0].get_yticklabels()] == ["10  ", "2583", "40  "]
    assert texts(figure) == ["0.50  n=1", "0.70  n=3", "0.90  n=2,000"]


def test_the_reliability_diagram_shows_the_bins_beside_the_diagonal() -> None:
    table = pd.DataFrame({"confidence": [0.3, 0.9], "accuracy": [0.2, 0.95], "rows": [1, 3]})
    axes = reliability_figure(table, 0.0625, "title").axes[0]
    assert "0.062" in axes.get_title()
    diagonal, curve = axes.lines
    assert diagonal.get_xydata().tolist() == [[0, 0], [1, 1]]
    assert curve.get_xydata().tolist() == [[0.3, 0.2], [0.9, 0.95]]
    assert axes.collections[0].get_sizes().tolist() == [20 + 380 / 4, 20 + 380 * 3 / 4]


def test_the_coverage_curve_marks_what_is_decided() -> None:
    decided = {"target_precision": 0.95, "threshold": 0.9, "coverage": 0.5, "precision": 1.0}
    figure = coverage_figure(COVERAGE, decided, "title")
    curve, target, point = figure.axes[0].lines
    assert curve.get_xydata().tolist() == [[0.5, 1.0], [1.0, 0.8]]
    assert target.get_ydata() == [0.95, 0.95]
    assert point.get_xydata().tolist() == [[0.5, 1.0]]
    assert texts(figure) == ["50% decided, 100.0% correct\nconfidence from 0.900"]


def test_the_coverage_curve_marks_no_point_where_nothing_is_decided() -> None:
    decided = {"target_precision": 0.95, "threshold": 1.1, "coverage": 0.0, "precision": 1.0}
    figure = coverage_figure(COVERAGE, decided, "title")
    assert len(figure.axes[0].lines) == 2
    assert texts(figure) == []


def test_a_figure_is_a_png_file_without_a_version_in_its_header(tmp_path: Path) -> None:
    save_figure(confusion_figure(Y_TRUE, Y_PRED, "title"), tmp_path / "a.partial")
    data = (tmp_path / "a.partial").read_bytes()
    assert data.startswith(b"\x89PNG")
    assert b"Software" not in data
