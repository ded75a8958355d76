"""The learning curves of fine-tuned networks."""

from pathlib import Path

import pandas as pd

LEARNING_CURVES_FILE = "learning_curves.csv"
LEARNING_CURVE_COLUMNS = ("fit", "step", "epoch", "loss", "weighted_f1")


def read_learning_curves(path: Path) -> pd.DataFrame:
    """The learning curves that the finetune stage wrote, with the columns LEARNING_CURVE_COLUMNS.

    Args:
        path: LEARNING_CURVES_FILE; without such a file, nothing was fine-tuned.
    """
    return pd.read_csv(path) if path.is_file() else pd.DataFrame(columns=list(LEARNING_CURVE_COLUMNS))


def learning_curve_metrics(curves: pd.DataFrame) -> dict[str, list[tuple[int, float]]]:
    """The learning curves as MLflow takes them: name -> (step, value).

    Args:
        curves: from `read_learning_curves`.
    """
    return {
        f"finetune_{column}_{name}".replace(" ", "_"): list(
            zip(points["step"].tolist(), points[column].tolist(), strict=True)
        )
        for name, curve in curves.groupby("fit", sort=False)
        for column in ("loss", "weighted_f1")
        if len(points := curve.dropna(subset=[column]))
    }
