"""Predictions for rows of a feature set: the task that the predict stage runs in parallel."""

from pathlib import Path

import pandas as pd

from rakuten.features.feature_set import FeatureSet
from rakuten.models.classifier import load_cached

CHUNK_ROWS = 2_000  # rows predicted in one task


def score_chunk(models: Path, version: str, features: FeatureSet, table: pd.DataFrame) -> pd.DataFrame:
    """Ids and predictions of a chunk of the table of `features`; their embeddings are read from disk.

    Args:
        models: folder of the model.
        version: the version that the model there must have.

    Raises:
        UserError: there is no readable model, or it has another version.
    """
    batch = features.batch(table)
    return table[["productid", "imageid"]].join(load_cached(models, version).predict(batch))


def chunk_label(table: pd.DataFrame) -> str:
    """The row numbers of a chunk, for error messages."""
    return f"test rows {table.index[0] + 1:,}-{table.index[-1] + 1:,}"
