"""Figures of a training's out-of-fold results, and the tables that DVC plots."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from rakuten.data.schema import label_of
from rakuten.types import IntArray

DARK, ACCENT = "#333333", "#bf0000"  # text and guide lines; data


def confusion_table(y_true: IntArray, y_pred: IntArray) -> pd.DataFrame:
    """One row for each product, as DVC's confusion template needs it: columns actual, predicted (prdtypecode)."""
    return pd.DataFrame({"actual": y_true, "predicted": y_pred})


def confusion_figure(y_true: IntArray, y_pred: IntArray, title: str) -> Figure:
    """The confusion matrix as shares of each true class; a share is printed in % from 5 % on.

    Args:
        y_true, y_pred: the prdtypecode of each row.
    """
    codes = np.unique(np.concatenate([y_true, y_pred]))
    counts = pd.crosstab(y_true, y_pred).reindex(index=codes, columns=codes, fill_value=0).to_numpy()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure = Figure(figsize=(11, 10), layout="constrained")
    axes = figure.add_subplot(title=title, xlabel="predicted prdtypecode", ylabel="true prdtypecode")
    heatmap = axes.imshow(shares, cmap="Reds", vmin=0, vmax=1)
    figure.colorbar(heatmap, label="share of the true class", shrink=0.7)
    axes.set_xticks(range(len(codes)), [str(code) for code in codes], rotation=90)
    axes.set_yticks(range(len(codes)), [str(code) for code in codes])
    for row, column in zip(*np.nonzero(shares >= 0.05), strict=True):
        colour = "white" if shares[row, column] > 0.6 else DARK
        text = f"{100 * shares[row, column]:.0f}"
        axes.text(column, row, text, ha="center", va="center", fontsize=7, color=colour)
    return figure


def per_class_figure(table: pd.DataFrame, title: str) -> Figure:
    """A bar with the F1 of each class, the best at the top.

    Args:
        table: from `metrics.per_class_scores`.
    """
    rows = table.sort_values("f1")
    names = [f"{code}  {label_of(code)}" for code in rows["prdtypecode"]]
    figure = Figure(figsize=(9, 1 + 0.3 * len(rows)), layout="constrained")
    axes = figure.add_subplot(title=title, xlabel="F1, out of fold", xlim=(0, 1.2))
    axes.set_xticks([0, 0.2, 0.4, 0.6, 0.8, 1])
    axes.barh(names, rows["f1"], color=ACCENT)
    for position, (f1, support) in enumerate(zip(rows["f1"], rows["support"], strict=True)):
        axes.text(f1 + 0.01, position, f"{f1:.2f}  n={support:,}", va="center", fontsize=8, color=DARK)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def reliability_figure(table: pd.DataFrame, error: float, title: str) -> Figure:
    """Share of right predictions by confidence; the size of a dot is the share of the rows.

    Args:
        table, error: from `calibration.reliability`.
    """
    figure = Figure(figsize=(6.5, 6), layout="constrained")
    axes = figure.add_subplot(title=f"{title}\nexpected calibration error {error:.3f}", xlim=(0, 1), ylim=(0, 1))
    axes.set(xlabel="confidence", ylabel="share that is correct")
    axes.plot([0, 1], [0, 1], color=DARK, linewidth=1, linestyle="--", label="perfect")
    sizes = 20 + 380 * table["rows"] / table["rows"].sum()
    axes.plot(table["confidence"], table["accuracy"], color=ACCENT)
    axes.scatter(table["confidence"], table["accuracy"], s=sizes, color=ACCENT, alpha=0.6, label="out of fold")
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
    axes.axhline(decided["target_precision"], color=DARK, linewidth=1, linestyle="--")
    if decided["coverage"] > 0:
        axes.plot([decided["coverage"]], [decided["precision"]], "o", color=DARK)
        axes.annotate(
            f"{decided['coverage']:.0%} decided, {decided['precision']:.1%} correct\n"
            f"confidence from {decided['threshold']:.3f}",
            (decided["coverage"], decided["precision"]), (8, 8), textcoords="offset points", color=DARK,
        )  # fmt: skip
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG; the same data give the same bytes."""
    # matplotlib writes its version into the header unless Software is None.
    figure.savefig(path, dpi=110, format="png", metadata={"Software": None})
