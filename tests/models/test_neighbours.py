from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rakuten.disk_array import DiskArray
from rakuten.models import neighbours as module
from rakuten.models.linear import Moments
from rakuten.models.neighbours import N_COMPONENTS, ImageNeighbours, fit_neighbours

N_IMAGES, WIDTH, N_AXES = 400, 100, 12


@pytest.fixture(scope="module")
def embeddings() -> np.ndarray:
    """Images that differ along twelve axes, around a common mean; every tenth product has none."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(N_IMAGES, N_AXES)) @ rng.normal(size=(N_AXES, WIDTH)) + 20
    values += rng.normal(size=values.shape) * 0.05
    values[::10] = np.nan
    return values.astype(np.float16)


@pytest.fixture(scope="module")
def products() -> pd.DataFrame:
    ids = np.arange(N_IMAGES)
    return pd.DataFrame({"productid": ids + 1000, "imageid": ids + 5000, "prdtypecode": ids % 3})


def fitted(embeddings: np.ndarray | DiskArray, products: pd.DataFrame, seed: int = 0) -> ImageNeighbours:
    rows = np.flatnonzero(np.arange(len(embeddings)) % 10 > 0)
    moments = Moments.from_rows(embeddings, rows, np.zeros(len(rows), dtype=np.int64), 1)
    return fit_neighbours(embeddings, rows, moments, products, seed)


@pytest.fixture(scope="module")
def neighbours(embeddings: np.ndarray, products: pd.DataFrame) -> ImageNeighbours:
    return fitted(embeddings, products)


def test_neighbours_are_those_of_the_cosine_between_whole_embeddings(
    neighbours: ImageNeighbours, embeddings: np.ndarray
) -> None:
    """So the images are told apart along all of their axes, not one."""
    rows = neighbours.productid - 1000
    values = embeddings[rows].astype(np.float64)
    values -= values.mean(axis=0)
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    for number in range(0, len(rows), 40):
        similarity = values @ values[number]
        nearest = neighbours.kneighbors(embeddings[rows[number]], 5)
        expected = np.sort(similarity)[::-1][:5]
        assert nearest["similarity"].to_numpy() == pytest.approx(expected, abs=0.02)
        assert similarity[np.searchsorted(rows, nearest["productid"] - 1000)] == pytest.approx(expected, abs=0.02)


def test_a_train_image_is_its_own_nearest_neighbour(neighbours: ImageNeighbours, embeddings: np.ndarray) -> None:
    for row in (1, 57, 399):
        nearest = neighbours.kneighbors(embeddings[row], 3)
        assert list(nearest.columns) == ["productid", "imageid", "prdtypecode", "similarity"]
        assert nearest.iloc[0].tolist() == [row + 1000, row + 5000, row % 3, pytest.approx(1, abs=0.001)]
        assert nearest["similarity"].is_monotonic_decreasing
        assert len(nearest) == 3


def test_every_image_is_kept_and_no_missing_one(neighbours: ImageNeighbours) -> None:
    assert neighbours.productid.tolist() == [row + 1000 for row in range(N_IMAGES) if row % 10]
    assert neighbours.vectors.shape == (360, N_COMPONENTS)
    assert neighbours.vectors.dtype == np.float16
    assert np.linalg.norm(neighbours.vectors.astype(np.float64), axis=1) == pytest.approx(1, abs=0.01)


def test_more_neighbours_than_images_are_all_images(neighbours: ImageNeighbours, embeddings: np.ndarray) -> None:
    assert len(neighbours.kneighbors(embeddings[1], 1000)) == 360


def test_narrow_embeddings_keep_all_of_their_axes(embeddings: np.ndarray, products: pd.DataFrame) -> None:
    assert fitted(embeddings[:, :5], products).vectors.shape == (360, 5)


def test_of_too_many_images_a_random_sample_is_kept(
    embeddings: np.ndarray, products: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_NEIGHBOURS", 50)
    sample = fitted(embeddings, products)
    assert len(sample.vectors) == 50
    assert (np.diff(sample.productid) > 0).all()
    assert sample.productid.max() > 1300
    assert (sample.prdtypecode == (sample.productid - 1000) % 3).all()
    assert fitted(embeddings, products).productid.tolist() == sample.productid.tolist()
    assert fitted(embeddings, products, seed=1).productid.tolist() != sample.productid.tolist()
    row = int(sample.productid[7]) - 1000
    assert sample.kneighbors(embeddings[row], 1)["productid"].tolist() == [row + 1000]


def test_embeddings_on_disk_give_the_same(
    neighbours: ImageNeighbours, embeddings: np.ndarray, products: pd.DataFrame, tmp_path: Path
) -> None:
    np.save(tmp_path / "images.npy", embeddings)
    for array, expected in zip(fitted(DiskArray(tmp_path / "images.npy"), products), neighbours, strict=True):
        assert (array == expected).all()
