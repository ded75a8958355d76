"""Scores of predictions. Pure functions of arrays."""

import numpy as np
import pandas as pd
from sklearn.metrics import f1_score, precision_recall_fscore_support

from rakuten.types import IntArray


def classification_scores(y_true: IntArray, y_pred: IntArray) -> dict[str, float]:
    """Weighted F1 (the challenge's score), macro F1 over the true codes, accuracy."""
    labels = np.unique(y_true)
    return {
        "weighted_f1": float(f1_score(y_true, y_pred, labels=labels, average="weighted", zero_division=0.0)),
        "macro_f1": float(f1_score(y_true, y_pred, labels=labels, average="macro", zero_division=0.0)),
        "accuracy": float(np.mean(y_true == y_pred)),
    }


def per_class_scores(y_true: IntArray, y_pred: IntArray) -> pd.DataFrame:
    """prdtypecode, precision, recall, f1, support of every true code, in order."""
    labels = np.unique(y_true)
    precision, recall, f1, support = precision_recall_fscore_support(y_true, y_pred, labels=labels, zero_division=0.0)
    return pd.DataFrame({"prdtypecode": labels, "precision": precision, "recall": recall, "f1": f1, "support": support})
