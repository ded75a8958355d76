"""What is watched of a product and its prediction, the same in training and live: no text, nothing that names it.

Training keeps it as the reference that live traffic is compared with (`reports/reference.parquet`),
the API logs it. Of an embedding a few random projections are kept: whatever moves the embeddings
moves most of them, and nobody needs a fitted matrix to make them (Johnson and Lindenstrauss, 1984).
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from rakuten.evaluation.metrics import Floats, Ints
from rakuten.features.embedding import pick
from rakuten.features.feature_set import Catalogue
from rakuten.features.style import spoken
from rakuten.models.classifier import MEANING, PICTURE, Products
from rakuten.models.linear import Numbers

PROJECTIONS = 8  # of each embedding
NUMBERS = ("designation_len", "description_len", "confidence")
FLAGS = ("has_description", "has_image", "needs_review")
CODE, LANGUAGE = "predicted", "language"
EMBEDDED = {
    view: tuple(f"{name}_{at}" for at in range(PROJECTIONS)) for view, name in ((MEANING, "text"), (PICTURE, "picture"))
}
WATCHED = (*NUMBERS, *FLAGS, LANGUAGE, CODE, *EMBEDDED[MEANING], *EMBEDDED[PICTURE])
SEED = 20201  # of the projections; another would make every kept reference worthless
REFERENCE_ROWS = 20_000  # kept at most: more would not move a threshold


def watched(
    products: Products, predicted: Sequence[int], confidence: Sequence[float], needs_review: Sequence[bool]
) -> Mapping[str, Sequence[Any]]:
    """The columns WATCHED of these products; None where a product lacks an embedding."""
    table = products.table
    found: dict[str, Sequence[Any]] = {
        name: table[name].tolist() for name in ("designation_len", "description_len", "has_description", "has_image")
    }
    found |= {"confidence": confidence, "needs_review": [int(each) for each in needs_review], CODE: predicted}
    found[LANGUAGE] = [spoken(traits) for traits in table["style"]]
    for view, names in EMBEDDED.items():
        vectors = products.embeddings(view)
        if vectors is None:
            found |= {name: [None] * len(table) for name in names}
            continue
        seen = _projected(vectors)
        found |= {
            name: [None if np.isnan(value) else value for value in seen[:, at].tolist()]
            for at, name in enumerate(names)
        }
    return {name: found[name] for name in WATCHED}


def reference(catalogue: Catalogue, predicted: Ints, confidence: Floats, threshold: float, seed: int) -> pd.DataFrame:
    """What is watched of the train products, by their out-of-fold predictions, and their true code: REFERENCE_ROWS at
    most, drawn by the seed, in the order of the train rows. NaN where a product lacks an embedding."""
    drawn = np.random.default_rng(seed).permutation(len(predicted))[:REFERENCE_ROWS]
    rows = np.sort(drawn)
    table = catalogue.rows(rows, [*NUMBERS[:2], *FLAGS[:2], "style", "prdtypecode"])
    some = Products(
        table, *(None if each is None else pick(each, rows) for each in (catalogue.texts, catalogue.pictures))
    )
    kept = watched(some, predicted[rows].tolist(), confidence[rows].tolist(), (confidence[rows] < threshold).tolist())
    return typed(pd.DataFrame(dict(kept))).assign(prdtypecode=table["prdtypecode"].to_numpy(dtype=np.int64))


def typed(frame: pd.DataFrame) -> pd.DataFrame:
    """The columns WATCHED in their types, wherever the rows come from."""
    floats = [*NUMBERS, *EMBEDDED[MEANING], *EMBEDDED[PICTURE]]
    types = dict.fromkeys(floats, "float64") | dict.fromkeys((*FLAGS, CODE), "int64") | {LANGUAGE: "object"}
    return frame.astype(types)


def _projected(vectors: Numbers) -> Numbers:
    seen: Numbers = (np.asarray(vectors, dtype=np.float32) @ _directions(vectors.shape[1])).round(5)
    return seen


@lru_cache(maxsize=4)
def _directions(width: int) -> Numbers:
    drawn = np.random.default_rng(SEED).standard_normal((width, PROJECTIONS))
    directions: Numbers = (drawn / np.sqrt(width)).astype(np.float32)
    return directions
