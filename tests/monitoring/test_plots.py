"""The figure of a drift report."""

import pytest
from matplotlib.colors import to_rgba

from rakuten.monitoring.alerts import NOT_KNOWN, DriftReport, PromisedShares
from rakuten.monitoring.drift import ColumnDrift
from rakuten.monitoring.live_novelty import LiveNovelty
from rakuten.monitoring.plots import ACCENT, ALARM, GREY, drift_figure

COLUMNS = [
    ColumnDrift("predicted", "prediction", "jensenshannon", 0.5, 0.1),
    ColumnDrift("language", "text", "jensenshannon", 0.05, 0.1),
]
CLASSES = [
    {"prdtypecode": 10, "label": "books", "promised_share": 0.1, "live_share": 0.4},
    {"prdtypecode": 2583, "label": "pools", "promised_share": 0.9, "live_share": 0.6},
]


def report(columns: list[ColumnDrift], shares: PromisedShares = NOT_KNOWN) -> DriftReport:
    return DriftReport(500, columns, review_share=0.2, expected_review_share=0.2, live=[], alarms=[], shares=shares)


def test_columns_are_bars_of_their_score_over_the_threshold_drifted_ones_marked() -> None:
    axes = drift_figure(report(COLUMNS), CLASSES, "a title").axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["language  (text)", "predicted  (prediction)"]
    assert [round(bar.get_width(), 6) for bar in axes.patches] == [0.5, 5.0]
    assert [bar.get_facecolor() for bar in axes.patches] == [to_rgba(GREY), to_rgba(ALARM)]


def test_classes_are_ordered_by_how_much_their_share_grew() -> None:
    figure = drift_figure(report(COLUMNS), CLASSES, "a title")
    axes = figure.axes[1]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["2583  pools", "10  books"]
    live, training = axes.containers
    assert [bar.get_width() for bar in live] == [0.6, 0.4]
    assert [bar.get_width() for bar in training] == [0.9, 0.1]
    assert figure.get_suptitle() == "a title"


def test_a_report_without_columns_is_drawn() -> None:
    assert drift_figure(report([]), [], "empty").axes[0].get_xlim() == (0, 1.5)


@pytest.mark.parametrize(("low", "color"), [(0.018, ALARM), (0.016, ACCENT)])
def test_the_share_of_novel_products_is_drawn_with_its_interval_beside_the_promise(low: float, color: str) -> None:
    novelty = LiveNovelty(0.032, (low, 0.051), 500, 0.01, limit=0.017)
    figure = drift_figure(report(COLUMNS, PromisedShares(novelty=novelty)), CLASSES, "a title")
    axes = figure.axes[2]
    assert axes.get_title() == str(novelty)
    interval, share, promised, limit = axes.lines
    assert (list(interval.get_xdata()), interval.get_color()) == ([low, 0.051], color)
    assert (list(share.get_xdata()), share.get_color()) == ([0.032], color)
    assert (list(promised.get_xdata()), list(limit.get_xdata())) == ([0.01, 0.01], [0.017, 0.017])


def test_a_share_of_novel_products_that_is_not_known_is_not_drawn() -> None:
    assert len(drift_figure(report(COLUMNS), CLASSES, "a title").axes) == 2
