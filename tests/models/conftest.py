"""A classifier trained on a few products, for tests that only read it."""

from pathlib import Path

import numpy as np
import pytest

from rakuten.evaluation.out_of_fold import OutOfFold
from rakuten.features.feature_set import FeatureBatch
from rakuten.models.classifier import ProductClassifier
from rakuten.types import IMAGE
from tests.support.features import feature_table
from tests.support.training import fit_batch

VOCABULARY = {2583: "piscine pompe bâche", 2705: "roman livre poèmes", 40: "jeu console manette"}
# Embeddings of images, before noise: red ones are of code 2583, green ones of any other code.
RED, GREEN = np.array([3.0, 0, 0, 1]), np.array([0, 3.0, 0, 1])


@pytest.fixture(scope="session")
def red() -> np.ndarray:
    """The embedding of an image of code 2583, in one row."""
    return RED[None].astype(np.float16)


@pytest.fixture(scope="session")
def green() -> np.ndarray:
    """The embedding of an image of another code, in one row."""
    return GREEN[None].astype(np.float16)


@pytest.fixture(scope="session")
def batch() -> FeatureBatch:
    """120 products of three codes. Two of three titles tell the code; the images, which four of five products have,
    tell 2583 from the other two."""
    rng = np.random.default_rng(0)
    titles, codes, embeddings = [], [], []
    for code, words in VOCABULARY.items():
        for number in range(40):
            telling = [*rng.choice(words.split(), 2)] if number % 3 else ["objet neuf"]
            titles.append(" ".join([*telling, str(number)]))
            codes.append(code)
            embeddings.append((RED if code == 2583 else GREEN) + rng.normal(size=4) * 0.5)
    image_embeddings = np.array(embeddings, dtype=np.float16)
    image_embeddings[::5] = np.nan
    return FeatureBatch(feature_table(titles, has_image=1).assign(prdtypecode=codes), None, image_embeddings)


@pytest.fixture(scope="session")
def fitted(batch: FeatureBatch, tmp_path_factory: pytest.TempPathFactory) -> tuple[ProductClassifier, OutOfFold]:
    """The classifier trained on `batch`, and its out-of-fold predictions."""
    folder: Path = tmp_path_factory.mktemp("fitted")
    return fit_batch(batch, folder, encoder_fingerprints={IMAGE: "abc"})


@pytest.fixture(scope="session")
def classifier(fitted: tuple[ProductClassifier, OutOfFold]) -> ProductClassifier:
    return fitted[0]


@pytest.fixture(scope="session")
def out_of_fold(fitted: tuple[ProductClassifier, OutOfFold]) -> OutOfFold:
    return fitted[1]
