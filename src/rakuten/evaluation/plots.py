"""Pictures of a training's out-of-fold results, and the tables that DVC draws them from."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from rakuten.data.schema import label_of
from rakuten.types import IntArray

DARK, ACCENT = "#333333", "#bf0000"


def confusion_table(true: IntArray, predicted: IntArray) -> pd.DataFrame:
    """One row per product, as DVC's confusion template wants it: actual, predicted."""
    return pd.DataFrame({"actual": true, "predicted": predicted})


def confusion_figure(true: IntArray, predicted: IntArray, title: str) -> Figure:
    codes = np.unique(np.concatenate([true, predicted]))
    counts = pd.crosstab(true, predicted).reindex(index=codes, columns=codes, fill_value=0).to_numpy()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure = Figure(figsize=(11, 10), layout="constrained")
    axes = figure.add_subplot(title=title, xlabel="predicted prdtypecode", ylabel="true prdtypecode")
    picture = axes.imshow(shares, cmap="Reds", vmin=0, vmax=1)
    figure.colorbar(picture, label="share of the true class", shrink=0.7)
    axes.set_xticks(range(len(codes)), [str(code) for code in codes], rotation=90)
    axes.set_yticks(range(len(codes)), [str(code) for code in codes])
    for row, column in zip(*np.nonzero(shares >= 0.05), strict=True):
        colour = "white" if shares[row, column] > 0.6 else DARK
        text = f"{100 * shares[row, column]:.0f}"
        axes.text(column, row, text, ha="center", va="center", fontsize=7, color=colour)
    return figure


def per_class_figure(table: pd.DataFrame, title: str) -> Figure:
    rows = table.sort_values("f1")
    names = [f"{code}  {label_of(code)}" for code in rows["prdtypecode"]]
    figure = Figure(figsize=(9, 1 + 0.3 * len(rows)), layout="constrained")
    axes = figure.add_subplot(title=title, xlabel="F1, out of fold", xlim=(0, 1.2))
    axes.set_xticks([0, 0.2, 0.4, 0.6, 0.8, 1])
    axes.barh(names, rows["f1"], color=ACCENT)
    for place, (f1, support) in enumerate(zip(rows["f1"], rows["support"], strict=True)):
        axes.text(f1 + 0.01, place, f"{f1:.2f}  n={support:,}", va="center", fontsize=8, color=DARK)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def reliability_figure(table: pd.DataFrame, error: float, title: str) -> Figure:
    figure = Figure(figsize=(6.5, 6), layout="constrained")
    axes = figure.add_subplot(title=f"{title}\nexpected calibration error {error:.3f}", xlim=(0, 1), ylim=(0, 1))
    axes.set(xlabel="confidence", ylabel="share that is right")
    axes.plot([0, 1], [0, 1], color=DARK, linewidth=1, linestyle="--", label="perfect")
    sizes = 20 + 380 * table["rows"] / table["rows"].sum()
    axes.plot(table["confidence"], table["accuracy"], color=ACCENT)
    axes.scatter(table["confidence"], table["accuracy"], s=sizes, color=ACCENT, alpha=0.6, label="out of fold")
    axes.legend(loc="upper left", frameon=False)
    return figure


def coverage_figure(table: pd.DataFrame, decided: Mapping[str, float], title: str) -> Figure:
    """The curve, and on it the share that the target precision lets through."""
    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.add_subplot(title=title, xlim=(0, 1))
    axes.set(xlabel="share of products decided (most confident first)", ylabel="share of those that is right")
    axes.plot(table["coverage"], table["precision"], color=ACCENT)
    axes.axhline(decided["target_precision"], color=DARK, linewidth=1, linestyle="--")
    if decided["coverage"] > 0:
        axes.plot([decided["coverage"]], [decided["precision"]], "o", color=DARK)
        axes.annotate(
            f"{decided['coverage']:.0%} decided, {decided['precision']:.1%} right\n"
            f"confidence from {decided['threshold']:.3f}",
            (decided["coverage"], decided["precision"]), (8, 8), textcoords="offset points", color=DARK,
        )  # fmt: skip
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    # Without the version in its header the file depends on the data alone.
    figure.savefig(path, dpi=110, format="png", metadata={"Software": None})
