"""The tables and the figure of bench.review."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from PIL import Image
from scipy.stats import t as student

from rakuten.evaluation.bootstrap import CONFIDENCE_LEVEL
from rakuten.evaluation.plots import ACCENT, DARK, save_figure
from rakuten.types import FloatArray

RANDOM, CONFIDENCE, DESK, LABEL = "random", "least confidence", "the desk's", "least probable label"
SCORES = ("out of fold", "test", "queue")  # the columns of a curve after the share of the queue that is decided
TARGETS = {"half": 0.5, "all": 1.0}  # share of the queue that random order decides -> whose score is to be reached
SHARES = (0.25, 0.5, 1.0, 1.5, 2.0)  # products looked at, as a share of the number of wrong labels
OTHER = "#d1495b"
STYLES = {RANDOM: (DARK, "--", "s"), CONFIDENCE: (OTHER, "-", "^"), DESK: (ACCENT, "-", "o"), LABEL: (OTHER, "-", "^")}
PANELS = ("weighted F1, out of fold", "weighted F1, test products", "weighted F1, products of the queue")


def interval(values: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """The mean over the first axis, the seeds, and half the width of its 95 % interval (Student's t)."""
    array = np.asarray(values, dtype=np.float64)
    if (n := len(array)) < 2:
        return array.mean(axis=0), np.full(array.shape[1:], np.nan)
    return array.mean(axis=0), student.ppf((1 + CONFIDENCE_LEVEL) / 2, n - 1) * array.std(axis=0, ddof=1) / np.sqrt(n)


def decisions_needed(shares: FloatArray, scores: FloatArray, target: float) -> float | None:
    """The first share of the queue at which a curve reaches a score, on straight lines between its points.

    The last point, all decisions, does not count: there are none between it and the one before.
    """
    reached = np.flatnonzero(scores[:-1] >= target)
    if not len(reached):
        return None
    last = max(int(reached[0]), 1)
    (x0, x1), (y0, y1) = shares[last - 1 : last + 1], scores[last - 1 : last + 1]
    return float(x0 if y0 >= target else x0 + (x1 - x0) * (target - y0) / (y1 - y0))


def curve_tables(curves: Mapping[str, FloatArray]) -> list[str]:
    """A table for each of SCORES, in Markdown.

    Args:
        curves: for each order, seeds x points x (share of the queue, SCORES); the last point has all decisions.
    """
    shares = curves[RANDOM][0, :, 0]
    lines = []
    for column, name in enumerate(SCORES, 1):
        lines += ["", f"Weighted F1, {name}, by the share of the queue that is decided; difference from random order;"]
        lines += ["decisions that reach random order's score with half of the queue, with all, as a share of those", ""]
        lines += [f"| order | {' | '.join(f'{share:.0%}' for share in shares)} | {' | '.join(TARGETS)} |"]
        lines += [f"| --- |{' --- |' * (len(shares) + len(TARGETS))}"]
        for order, curve in curves.items():
            scores, random = curve[..., column], curves[RANDOM][: len(curve), :, column]
            mean, (gain, half) = scores.mean(axis=0), interval(scores - random)
            cells = [
                f"{mean[point]:.3f}" + ("" if half[point] == 0 else f" ({gain[point]:+.3f} ± {half[point]:.3f})")
                for point in range(len(shares))
            ]
            for share in TARGETS.values():
                needed = decisions_needed(shares, mean, random.mean(axis=0)[np.isclose(shares, share)][0])
                cells.append(f"above {shares[-2] / share:.0%}" if needed is None else f"{needed / share:.0%}")
            lines.append(f"| {order} | {' | '.join(cells)} |")
    return lines


def label_table(labels: Mapping[str, FloatArray]) -> list[str]:
    """Share of the planted wrong labels that is found, in Markdown.

    Args:
        labels: for each order, seeds x SHARES.
    """
    lines = [f"| order | {' | '.join(f'{share:g} N' for share in SHARES)} |", f"| --- |{' --- |' * len(SHARES)}"]
    for order, found in labels.items():
        cells = (f"{mean:.1%} ± {half:.1%}" for mean, half in zip(*interval(found), strict=True))
        lines.append(f"| {order} | {' | '.join(cells)} |")
    return lines


def review_figure(curves: Mapping[str, FloatArray], labels: Mapping[str, FloatArray]) -> Figure:
    """Score by the number of decisions, and share of the wrong labels that are found, each with 95 % intervals.

    Args: as of the tables; orders that are not in STYLES are left out.
    """
    figure = Figure(figsize=(11, 8.5), layout="constrained")
    panels: Sequence[Axes] = figure.subplots(2, 2).ravel().tolist()
    for column, (axes, name) in enumerate(zip(panels, PANELS, strict=False), 1):
        for order, curve in curves.items():
            if order in STYLES:
                # The last point is the same for all.
                _plot(axes, order, curve[0, :-1, 0], curve[:, :-1, column])
        if name != PANELS[-1]:  # there it is 1
            axes.axhline(
                curves[RANDOM][:, -1, column].mean(), color=DARK, linewidth=1, linestyle=":", label="all decided"
            )
        axes.set(xlabel="products decided, share of the queue", ylabel=name)
        axes.xaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    for order, found in labels.items():
        _plot(panels[-1], order, np.array(SHARES), found)
    panels[-1].set(
        xlabel="products looked at, for each wrong label that there is", ylabel="share of the wrong labels found",
        title="wrong labels in the synthetic sample catalogue", ylim=(0, 1),
    )  # fmt: skip
    for axes in panels:
        axes.legend(loc="upper left" if axes is panels[-1] else "lower right", frameon=False, fontsize=9)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def save_small(figure: Figure, path: Path) -> None:
    """Write a figure as PNG of 64 colours, a quarter of the bytes."""
    save_figure(figure, path)
    with Image.open(path) as image:
        small = image.convert("RGB").quantize(64)
    small.save(path, optimize=True)


def _plot(axes: Axes, order: str, x: FloatArray, values: FloatArray) -> None:
    """
    Args:
        values: seeds x points.
    """
    (colour, line, marker), (mean, half) = STYLES[order], interval(values)
    axes.plot(x, mean, color=colour, linestyle=line, marker=marker, markersize=4, label=order)
    axes.fill_between(x, mean - half, mean + half, color=colour, alpha=0.15, linewidth=0)
