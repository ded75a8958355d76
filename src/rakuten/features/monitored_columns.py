"""What is kept of a product and its prediction for monitoring, the same in training and live: no text, no ids.

Training keeps it as the reference that live traffic is compared with (`reports/reference.parquet`); the API logs it.
Of an embedding a few random projections are kept: whatever moves the embeddings moves most of them, and nothing has to
be fitted to make them (Johnson and Lindenstrauss, 1984).
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from rakuten.features.feature_set import FeatureBatch, FeatureSet
from rakuten.features.style import description_language
from rakuten.types import IMAGE, TEXT, EmbeddingArray, FloatArray, IntArray

N_PROJECTIONS = 8  # of each embedding
NUMERIC_COLUMNS = ("designation_len", "description_len", "confidence")
FLAG_COLUMNS = ("has_description", "has_image", "needs_review")
PREDICTED_COLUMN, LANGUAGE_COLUMN = "predicted", "language"
PROJECTION_COLUMNS = {  # view -> names that stand in kept references and logs
    TEXT: tuple(f"text_{number}" for number in range(N_PROJECTIONS)),
    IMAGE: tuple(f"picture_{number}" for number in range(N_PROJECTIONS)),
}
ALL_PROJECTIONS = (*PROJECTION_COLUMNS[TEXT], *PROJECTION_COLUMNS[IMAGE])
MONITORED_COLUMNS = (*NUMERIC_COLUMNS, *FLAG_COLUMNS, LANGUAGE_COLUMN, PREDICTED_COLUMN, *ALL_PROJECTIONS)
PROJECTION_SEED = 20201  # another seed would make every kept reference worthless
REFERENCE_ROWS = 20_000  # kept at most: more would not move a drift score


def monitored_values(
    batch: FeatureBatch, predicted: Sequence[int], confidence: Sequence[float], needs_review: Sequence[bool]
) -> Mapping[str, Sequence[Any]]:
    """MONITORED_COLUMNS of these products, by name; None where a product lacks an embedding."""
    table = batch.table
    values: dict[str, Sequence[Any]] = {
        name: table[name].tolist() for name in ("designation_len", "description_len", "has_description", "has_image")
    }
    values |= {"confidence": confidence, "needs_review": [int(flag) for flag in needs_review]}
    values |= {
        PREDICTED_COLUMN: predicted,
        LANGUAGE_COLUMN: [description_language(style) for style in table["style"]],
    }
    for view, names in PROJECTION_COLUMNS.items():
        embeddings = batch.embeddings(view)
        if embeddings is None:
            values |= {name: [None] * len(table) for name in names}
            continue
        projected = _project(embeddings)
        values |= {
            name: [None if np.isnan(value) else value for value in projected[:, column].tolist()]
            for column, name in enumerate(names)
        }
    return {name: values[name] for name in MONITORED_COLUMNS}


def reference_sample(
    features: FeatureSet, predicted: IntArray, confidence: FloatArray, threshold: float, seed: int
) -> pd.DataFrame:
    """MONITORED_COLUMNS of train products by their out-of-fold predictions, and their prdtypecode.

    A random sample of at most REFERENCE_ROWS, in the order of the train rows; NaN where a product lacks an embedding.

    Args:
        predicted: out-of-fold prdtypecode of each train row.
        confidence: its probability.
        threshold: a product below it needs review.
    """
    rows = np.sort(np.random.default_rng(seed).permutation(len(predicted))[:REFERENCE_ROWS])
    batch, needs_review = features.take(rows), (confidence[rows] < threshold).tolist()
    values = monitored_values(batch, predicted[rows].tolist(), confidence[rows].tolist(), needs_review)
    labels = batch.table["prdtypecode"].to_numpy(dtype=np.int64)
    return with_dtypes(pd.DataFrame(dict(values))).assign(prdtypecode=labels)


def with_dtypes(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with MONITORED_COLUMNS in their types, wherever the rows come from."""
    types = dict.fromkeys((*NUMERIC_COLUMNS, *ALL_PROJECTIONS), "float64") | {LANGUAGE_COLUMN: "object"}
    return frame.astype(types | dict.fromkeys((*FLAG_COLUMNS, PREDICTED_COLUMN), "int64"))


def _project(embeddings: EmbeddingArray) -> EmbeddingArray:
    directions = _random_directions(embeddings.shape[1])
    projected: EmbeddingArray = (np.asarray(embeddings, dtype=np.float32) @ directions).round(5)
    return projected


@lru_cache(maxsize=4)
def _random_directions(width: int) -> EmbeddingArray:
    normal = np.random.default_rng(PROJECTION_SEED).standard_normal((width, N_PROJECTIONS))
    directions: EmbeddingArray = (normal / np.sqrt(width)).astype(np.float32)
    return directions
