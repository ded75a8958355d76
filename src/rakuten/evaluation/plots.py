"""Figures of a training's out-of-fold results."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rakuten.data.taxonomy import label_of

DARK, ACCENT = "#333333", "#2f6690"  # text and guide lines; data
COLOURS = "Blues"  # of shares, from none to all


def confusion_figure(table: pd.DataFrame, title: str) -> Figure:
    """The confusion matrix as shares of each true class; a share is printed in % from 5 % on.

    Args:
        table: from `metrics.confusion_table`.
    """
    codes = table["prdtypecode"].tolist()
    counts = table.drop(columns="prdtypecode").to_numpy()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure = Figure(figsize=(13, 12), layout="constrained")
    axes = figure.add_subplot(title=title, xlabel="predicted prdtypecode", ylabel="true prdtypecode")
    heatmap = axes.imshow(shares, cmap=COLOURS, vmin=0, vmax=1)
    figure.colorbar(heatmap, label="share of the true class", shrink=0.7)
    axes.set_xticks(range(len(codes)), _names(codes), rotation=90)
    axes.set_yticks(range(len(codes)), _names(codes))
    for row, column in zip(*np.nonzero(shares >= 0.05), strict=True):
        colour = "white" if shares[row, column] > 0.6 else DARK
        text = f"{100 * shares[row, column]:.0f}"
        axes.text(column, row, text, ha="center", va="center", fontsize=7, color=colour)
    return figure


def per_class_figure(table: pd.DataFrame, title: str) -> Figure:
    """A bar with the F1 of each class and its 95 % interval, in the order of the codes.

    Args:
        table: from `metrics.per_class_table`.
    """
    f1 = table["f1"].to_numpy()
    # A percentile interval need not contain the score itself.
    errors = np.maximum([f1 - table["f1_low"], table["f1_high"] - f1], 0)
    figure = Figure(figsize=(9, 1.2 + 0.3 * len(table)), layout="constrained")
    axes = figure.add_subplot(title=title, xlabel="F1 and its 95 % interval, number of products", xlim=(0, 1.2))
    axes.set_xticks([0, 0.2, 0.4, 0.6, 0.8, 1])
    positions = range(len(table))
    axes.barh(positions, f1, color=ACCENT, xerr=errors, error_kw={"ecolor": DARK, "elinewidth": 1, "capsize": 2})
    axes.set_yticks(positions, _names(table["prdtypecode"].tolist()))
    axes.margins(y=0.01)
    axes.invert_yaxis()  # the lowest code at the top
    for position, score, support in zip(positions, f1, table["support"], strict=True):
        axes.text(1.02, position, f"{score:.2f}  n={support:,}", va="center", fontsize=8, color=DARK)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def reliability_figure(table: pd.DataFrame, error: float, decided: Mapping[str, float], title: str) -> Figure:
    """Share of right predictions by confidence; the size of a dot is the share of the rows.

    Args:
        table, error: from `calibration.reliability`.
        decided: as `coverage_figure` takes it.
    """
    figure = Figure(figsize=(6.5, 6), layout="constrained")
    axes = figure.add_subplot(title=f"{title}\nexpected calibration error {error:.3f}", xlim=(0, 1), ylim=(0, 1))
    axes.set(xlabel="confidence", ylabel="share that is correct")
    axes.plot([0, 1], [0, 1], color=DARK, linewidth=1, linestyle="--", label="perfect")
    sizes = 20 + 380 * table["rows"] / table["rows"].sum()
    axes.plot(table["confidence"], table["accuracy"], color=ACCENT)
    axes.scatter(table["confidence"], table["accuracy"], s=sizes, color=ACCENT, alpha=0.6, label="out of fold")
    if decided["coverage"] > 0:
        threshold = decided["threshold"]
        axes.axvline(threshold, color=DARK, linewidth=1, linestyle=":", label=f"decided from {threshold:.3f} on")
    axes.legend(loc="upper left", frameon=False)
    return figure


def coverage_figure(table: pd.DataFrame, decided: Mapping[str, float], title: str) -> Figure:
    """Precision by coverage, with the target precision and the point of the chosen threshold.

    Args:
        table: from `calibration.coverage_curve`.
        decided: target_precision, threshold, and the coverage and precision at that threshold.
    """
    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.add_subplot(title=title, xlim=(0, 1))
    axes.set(xlabel="share of products decided (most confident first)", ylabel="share of those that is correct")
    axes.plot(table["coverage"], table["precision"], color=ACCENT)
    axes.axhline(decided["target_precision"], color=DARK, linewidth=1, linestyle="--", label="target precision")
    if decided["coverage"] > 0:
        threshold = f"threshold: confidence {decided['threshold']:.3f}"
        axes.axvline(decided["coverage"], color=DARK, linewidth=1, linestyle=":", label=threshold)
        axes.plot([decided["coverage"]], [decided["precision"]], "o", color=DARK)
        axes.annotate(
            f"{decided['coverage']:.0%} decided, {decided['precision']:.1%} correct",
            (decided["coverage"], decided["precision"]), (8, 8), textcoords="offset points", color=DARK,
        )  # fmt: skip
    axes.legend(loc="lower left", frameon=False)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def learning_curves_figure(curves: pd.DataFrame, title: str) -> Figure:
    """Loss and held-out weighted F1 of each network by epoch; a line of text where no network was fine-tuned.

    Args:
        curves: from `learning_curves.read_learning_curves`.
    """
    if curves.empty:
        figure = Figure(figsize=(7, 1.5), layout="constrained")
        figure.text(0.5, 0.5, "No encoder was fine-tuned: finetune is none in params.yaml", ha="center", color=DARK)
        return figure
    figure = Figure(figsize=(12, 5), layout="constrained")
    figure.suptitle(title)
    loss, score = figure.subplots(1, 2)
    _plot_curves(loss, curves, "loss", "training loss")
    _plot_curves(score, curves, "weighted_f1", "weighted F1 on the held-out fold")
    loss.legend(frameon=False, fontsize=8)
    return figure


def _plot_curves(axes: Axes, curves: pd.DataFrame, column: str, name: str) -> None:
    for fit, curve in curves.dropna(subset=[column]).groupby("fit", sort=False):
        axes.plot(curve["epoch"], curve[column], marker="o", markersize=3, label=fit)
    axes.set(xlabel="epoch", ylabel=name)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def _names(codes: list[int]) -> list[str]:
    return [f"{code}  {label_of(code)}".rstrip() for code in codes]


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG; the same data give the same bytes."""
    # matplotlib writes its version into the header unless Software is None.
    figure.savefig(path, dpi=110, format="png", metadata={"Software": None})
