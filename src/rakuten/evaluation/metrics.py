"""Scores of predictions. Pure functions of arrays."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from sklearn.metrics import confusion_matrix, f1_score, precision_recall_fscore_support

from rakuten.data.taxonomy import label_of
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


def per_class_table(scores: pd.DataFrame, intervals: Mapping[str, Sequence[float]]) -> pd.DataFrame:
    """prdtypecode, label, precision, recall, f1, f1_low, f1_high, support of every true code, in order.

    Args:
        scores: from `per_class_scores`.
        intervals: prdtypecode -> 95 % interval of its F1.
    """
    low, high = np.array([intervals[str(code)] for code in scores["prdtypecode"]]).T
    table = scores.assign(label=[label_of(code) for code in scores["prdtypecode"]], f1_low=low, f1_high=high)
    return table[["prdtypecode", "label", "precision", "recall", "f1", "f1_low", "f1_high", "support"]]


def confusion_table(y_true: IntArray, y_pred: IntArray) -> pd.DataFrame:
    """Number of products by code: a row for each true code (column prdtypecode), a column for each predicted code.

    Rows and columns have the same codes, in order: those that are true or predicted for any product.
    """
    codes = np.unique(np.concatenate([y_true, y_pred]))
    counts = confusion_matrix(y_true, y_pred, labels=codes)
    table = pd.DataFrame(counts, columns=[str(code) for code in codes])
    table.insert(0, "prdtypecode", codes)
    return table
