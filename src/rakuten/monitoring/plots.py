"""One picture of a drift report."""

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from rakuten.evaluation.plots import ACCENT, DARK
from rakuten.monitoring.alerts import DriftReport

GREY = "#9aa0a6"


def drift_figure(verdict: DriftReport, classes: Sequence[dict[str, Any]], title: str) -> Figure:
    """Each column's score against its threshold, and the share of each class, promised and live."""
    figure = Figure(figsize=(13, 8), layout="constrained")
    left, right = figure.subplots(1, 2)
    figure.suptitle(title)
    shown = sorted(verdict.drift, key=lambda each: each.score / each.threshold)
    names = [f"{each.column}  ({each.kind})" for each in shown]
    ratios = [each.score / each.threshold for each in shown]
    left.barh(names, ratios, color=[ACCENT if each.drifted else GREY for each in shown])
    left.axvline(1, color=DARK, linewidth=1)
    left.set(title="Drift, red where it reaches the threshold", xlabel="score / threshold")
    left.set_xlim(0, max(1.5, 1.1 * max(ratios, default=0)))
    rows = sorted(classes, key=lambda row: row["live_share"] - row["promised_share"])
    places = range(len(rows))
    right.barh([place + 0.2 for place in places], [row["live_share"] for row in rows], 0.4, color=ACCENT, label="live")
    promised = [row["promised_share"] for row in rows]
    right.barh([place - 0.2 for place in places], promised, 0.4, color=GREY, label="training")
    right.set_yticks(list(places), [f"{row['prdtypecode']}  {row['label']}" for row in rows], fontsize=8)
    right.set(title="What is predicted", xlabel="share of products")
    right.legend(loc="lower right")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    return figure
