"""Which training products look most like a picture: kept small enough to travel with the model."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.linalg import eigh

from rakuten.evaluation.metrics import Ints
from rakuten.features.embedding import release
from rakuten.models.linear import Moments, Numbers

AXES = 64  # principal components kept: of 1,280 numbers they tell most, in a twentieth of the space
KEPT = 100_000  # of more pictures, these are drawn, for the model has to stay small
ROWS = 4096


class Neighbours(NamedTuple):
    """Training pictures as unit vectors along their principal axes."""

    axes: NDArray[np.float32]  # width x AXES
    centre: NDArray[np.float32]  # width
    vectors: NDArray[np.float16]  # pictures x AXES
    productid: Ints
    imageid: Ints
    prdtypecode: Ints

    def nearest(self, picture: Numbers, count: int) -> pd.DataFrame:
        """The most alike pictures to an embedding: productid, imageid, prdtypecode, similarity (cosine)."""
        similarity = self.vectors.astype(np.float32) @ _project(picture[None], self.centre, self.axes)[0]
        order = np.argsort(-similarity, kind="stable")[:count]
        columns = {name: getattr(self, name)[order] for name in ("productid", "imageid", "prdtypecode")}
        return pd.DataFrame({**columns, "similarity": similarity[order].round(4)})


def fit(pictures: Numbers, rows: Ints, moments: Moments, table: pd.DataFrame, seed: int) -> Neighbours:
    """Neighbours among these pictures: KEPT of them at most, drawn by the seed.

    Args:
        pictures: embeddings, NaN where a product has none.
        rows: which have one.
        moments: of all that have one.
        table: all products (productid, imageid, prdtypecode).
    """
    if len(rows) > KEPT:
        rows = np.sort(np.random.default_rng(seed).permutation(rows)[:KEPT])
    count, width = moments.rows.sum(), pictures.shape[1]
    centre = moments.sums.sum(axis=0) / count
    spread = moments.gram() / count - np.outer(centre, centre)
    kept = min(AXES, width)
    axes = eigh(spread, subset_by_index=(width - kept, width - 1))[1].astype(np.float32)
    vectors = np.empty((len(rows), kept), dtype=np.float16)
    for at in range(0, len(rows), ROWS):
        vectors[at : at + ROWS] = _project(pictures[rows[at : at + ROWS]], centre.astype(np.float32), axes)
        release(pictures)
    ids = [table[name].to_numpy()[rows].astype(np.int64) for name in ("productid", "imageid", "prdtypecode")]
    return Neighbours(axes, centre.astype(np.float32), vectors, *ids)


def _project(pictures: Numbers, centre: NDArray[np.float32], axes: NDArray[np.float32]) -> NDArray[np.float32]:
    placed = (np.asarray(pictures, dtype=np.float32) - centre) @ axes
    unit: NDArray[np.float32] = placed / np.maximum(np.linalg.norm(placed, axis=1, keepdims=True), 1e-9)
    return unit
