"""The learning curves of fine-tuned networks."""

from pathlib import Path

import pandas as pd

LEARNING_CURVES_FILE = "learning_curves.csv"
LEARNING_CURVE_COLUMNS = ("fit", "step", "epoch", "loss", "weighted_f1")


def learning_curve_metrics(path: Path) -> dict[str, list[tuple[int, float]]]:
    """The learning curves that the finetune stage wrote, as MLflow takes them: name -> (step, value).

    Args:
        path: LEARNING_CURVES_FILE; none where nothing was ever fine-tuned.
    """
    if not path.is_file():
        return {}
    curves = pd.read_csv(path)
    return {
        f"finetune_{column}_{name}".replace(" ", "_"): list(
            zip(points["step"].tolist(), points[column].tolist(), strict=True)
        )
        for name, curve in curves.groupby("fit", sort=False)
        for column in ("loss", "weighted_f1")
        if len(points := curve.dropna(subset=[column]))
    }
