"""The columns that monitoring keeps of a product and its prediction. They contain no text and no ids.

Training writes them as the reference (`reports/reference.parquet`), the API logs them, and monitoring compares the two.
Of an embedding, N_PROJECTIONS random projections are kept: a shift of the embeddings shifts most of them, and they need
no fitting. Source: Johnson and Lindenstrauss 1984, "Extensions of Lipschitz mappings into a Hilbert space".
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from rakuten.features.feature_set import FeatureBatch, FeatureSet
from rakuten.features.style import description_language
from rakuten.types import IMAGE, TEXT, BoolArray, EmbeddingArray, FloatArray, IntArray

N_PROJECTIONS = 8  # of each embedding
NUMERIC_COLUMNS = ("designation_len", "description_len", "confidence")
FLAG_COLUMNS = ("has_description", "has_image", "needs_review")
PREDICTED_COLUMN, LANGUAGE_COLUMN = "predicted", "language"
PROJECTION_COLUMNS = {  # by view; the names are part of references and logs that exist
    TEXT: tuple(f"text_{number}" for number in range(N_PROJECTIONS)),
    IMAGE: tuple(f"picture_{number}" for number in range(N_PROJECTIONS)),
}
ALL_PROJECTIONS = (*PROJECTION_COLUMNS[TEXT], *PROJECTION_COLUMNS[IMAGE])
MONITORED_COLUMNS = (*NUMERIC_COLUMNS, *FLAG_COLUMNS, LANGUAGE_COLUMN, PREDICTED_COLUMN, *ALL_PROJECTIONS)
PROJECTION_SEED = 20201  # must not change: projections of another seed cannot be compared with existing references
REFERENCE_ROWS = 20_000  # of the reference, at most: more rows would not change a drift score


def monitored_values(
    batch: FeatureBatch, predicted: Sequence[int], confidence: Sequence[float], needs_review: Sequence[bool]
) -> Mapping[str, Sequence[Any]]:
    """MONITORED_COLUMNS of some products.

    Args:
        predicted: prdtypecode predicted for each product.
        confidence: its probability.
        needs_review: whether a person should check it.

    Returns:
        For each column the values of the products; None for a product without the embedding.
    """
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
    features: FeatureSet, predicted: IntArray, confidence: FloatArray, needs_review: BoolArray, seed: int
) -> pd.DataFrame:
    """MONITORED_COLUMNS and prdtypecode of a random sample of train products, with their out-of-fold predictions.

    Args:
        features: the train feature set.
        predicted: out-of-fold prdtypecode of each train row.
        confidence: its probability.
        needs_review: whether a person should check it.
        seed: of the sample.

    Returns:
        At most REFERENCE_ROWS rows, in the order of the train rows; NaN for a product without the embedding.
    """
    rows = np.sort(np.random.default_rng(seed).permutation(len(predicted))[:REFERENCE_ROWS])
    batch, first = features.take(rows), (values[rows].tolist() for values in (predicted, confidence, needs_review))
    values = monitored_values(batch, *first)
    labels = batch.table["prdtypecode"].to_numpy(dtype=np.int64)
    return with_dtypes(pd.DataFrame(dict(values))).assign(prdtypecode=labels)


def with_dtypes(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with MONITORED_COLUMNS converted to their dtypes: float64, int64, and object for the language."""
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
