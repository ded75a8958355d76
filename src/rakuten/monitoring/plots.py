"""The drift report as a figure."""

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from rakuten.evaluation.plots import ACCENT, DARK
from rakuten.monitoring.alerts import DriftReport

GREY, ALARM = "#9aa0a6", "#bf0000"


def drift_figure(report: DriftReport, classes: Sequence[dict[str, Any]], title: str) -> Figure:
    """Bars of each column's score over its threshold, and of each class's share in training and live.

    Args:
        classes: the rows of `alerts.class_shares`.
    """
    figure = Figure(figsize=(13, 8), layout="constrained")
    left, right = figure.subplots(1, 2)
    figure.suptitle(title)

    columns = sorted(report.columns, key=lambda column: column.score / column.threshold)
    names = [f"{column.column}  ({column.kind})" for column in columns]
    ratios = [column.score / column.threshold for column in columns]
    left.barh(names, ratios, color=[ALARM if column.drifted else GREY for column in columns])
    left.axvline(1, color=DARK, linewidth=1)
    left.set(title="Drift (red: at or above the threshold)", xlabel="score / threshold")
    left.set_xlim(0, max(1.5, 1.1 * max(ratios, default=0)))

    rows = sorted(classes, key=lambda row: row["live_share"] - row["promised_share"])
    y = range(len(rows))
    live, expected = [row["live_share"] for row in rows], [row["promised_share"] for row in rows]
    right.barh([center + 0.2 for center in y], live, 0.4, color=ACCENT, label="live")
    right.barh([center - 0.2 for center in y], expected, 0.4, color=GREY, label="training")
    right.set_yticks(list(y), [f"{row['prdtypecode']}  {row['label']}" for row in rows], fontsize=8)
    right.set(title="Predicted codes", xlabel="share of products")
    right.legend(loc="lower right")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    return figure
