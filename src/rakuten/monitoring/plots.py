"""The drift report as a figure."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from rakuten.evaluation.plots import ACCENT, DARK
from rakuten.monitoring.alerts import DriftReport
from rakuten.monitoring.live_novelty import LiveNovelty

GREY, ALARM = "#9aa0a6", "#bf0000"


def drift_figure(report: DriftReport, classes: Sequence[dict[str, Any]], title: str) -> Figure:
    """Bars of each column's score over its threshold, and of each class's share in training and live; below them the
    share of novel products with its interval, if it is known.

    Args:
        classes: the rows of `alerts.class_shares`.
    """
    figure = Figure(figsize=(13, 8), layout="constrained")
    novelty = report.shares.novelty
    if novelty is None:
        axes_by_name = figure.subplot_mosaic("LR")
    else:
        axes_by_name = figure.subplot_mosaic("LR;NN", height_ratios=[8, 1])
    left, right = axes_by_name["L"], axes_by_name["R"]
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
    if novelty is not None:
        _draw_novelty(axes_by_name["N"], novelty)
    for axes in axes_by_name.values():
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _draw_novelty(axes: Axes, novelty: LiveNovelty) -> None:
    low, high = novelty.interval
    color = ALARM if novelty.is_above_promise else ACCENT
    axes.plot([low, high], [0, 0], color=color, linewidth=3)
    axes.plot([novelty.share], [0], "o", color=color)
    axes.axvline(novelty.promised, color=GREY, label=f"{novelty.promised:.1%}: promised")
    axes.axvline(
        novelty.limit, color=DARK, linestyle="--", label=f"{novelty.limit:.1%}: alarm if the interval is above it"
    )
    axes.set_xlim(0, max(1.5 * high, 2 * novelty.limit))  # with room for the legend
    axes.set_yticks([])
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=1))
    axes.set(title=str(novelty), xlabel="share of products, 95 % interval (red: alarm)")
    axes.legend(loc="right")
