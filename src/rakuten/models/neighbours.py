"""The training images most similar to an image: a compressed copy of their embeddings that is saved with the model."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.linalg import eigh

from rakuten.disk_array import MAPPED_ROWS, Array2D, row_chunks
from rakuten.models.linear import Moments
from rakuten.types import EmbeddingArray, IntArray

N_COMPONENTS = 64  # principal components: most of the variance of 2,432 columns, in a fortieth of the space
MAX_NEIGHBOURS = 100_000  # of more images a random sample is kept, so that the model stays small


class ImageNeighbours(NamedTuple):
    """Embeddings of training images as unit vectors along their principal components."""

    components: NDArray[np.float32]  # width x N_COMPONENTS
    mean: NDArray[np.float32]  # width
    vectors: NDArray[np.float16]  # images x N_COMPONENTS
    productid: IntArray  # images
    imageid: IntArray  # images
    prdtypecode: IntArray  # images

    def kneighbors(self, embedding: EmbeddingArray, n_neighbors: int) -> pd.DataFrame:
        """The most similar training images: productid, imageid, prdtypecode, similarity (cosine), descending.

        Args:
            embedding: of one image, width.
        """
        similarity = self.vectors.astype(np.float32) @ _transform(embedding[None], self.mean, self.components)[0]
        order = np.argsort(-similarity, kind="stable")[:n_neighbors]
        columns = {name: getattr(self, name)[order] for name in ("productid", "imageid", "prdtypecode")}
        return pd.DataFrame({**columns, "similarity": similarity[order].round(4)})


def fit_neighbours(
    embeddings: Array2D, rows: IntArray, moments: Moments, products: pd.DataFrame, seed: int
) -> ImageNeighbours:
    """Principal components of the images, and every image along them (a random sample if over MAX_NEIGHBOURS).

    Args:
        embeddings: of all products, rows x width.
        rows: the products that have an image.
        moments: of the embeddings of these rows.
        products: productid, imageid, prdtypecode of all products.
    """
    if len(rows) > MAX_NEIGHBOURS:
        rows = np.sort(np.random.default_rng(seed).permutation(rows)[:MAX_NEIGHBOURS])
    n_images, width = moments.rows.sum(), embeddings.shape[1]
    mean = moments.sums.sum(axis=0) / n_images
    covariance = moments.gram() / n_images - np.outer(mean, mean)
    n_components = min(N_COMPONENTS, width)
    components = eigh(covariance, subset_by_index=(width - n_components, width - 1))[1].astype(np.float32)
    vectors = np.empty((len(rows), n_components), dtype=np.float16)
    for chunk in row_chunks(len(rows), MAPPED_ROWS):
        vectors[chunk] = _transform(embeddings[rows[chunk]], mean.astype(np.float32), components)
    ids = [products[name].to_numpy()[rows].astype(np.int64) for name in ("productid", "imageid", "prdtypecode")]
    return ImageNeighbours(components, mean.astype(np.float32), vectors, *ids)


def _transform(
    embeddings: EmbeddingArray, mean: NDArray[np.float32], components: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Unit vectors along the components: rows x components."""
    projected = (np.asarray(embeddings, dtype=np.float32) - mean) @ components
    unit: NDArray[np.float32] = projected / np.maximum(np.linalg.norm(projected, axis=1, keepdims=True), 1e-9)
    return unit
