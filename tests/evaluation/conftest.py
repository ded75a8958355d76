"""The out-of-fold results of a small training, and the scores of it."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from rakuten.config import Params, load_params
from rakuten.evaluation.out_of_fold import Baseline, OutOfFold
from rakuten.evaluation.report import measure
from rakuten.features.feature_set import FeatureBatch, FeatureSet
from tests.support.features import feature_table

THRESHOLD = 0.7
TITLES = (
    "the garden of the roses and the lilies",
    "un roman pour les enfants",
    "vase rouge verni xl",
)  # 19 characters: the last is short


@pytest.fixture(scope="session")
def params() -> Params:
    """The project's parameters with few resamples."""
    params = load_params()
    return params.model_copy(update={"train": params.train.model_copy(update={"bootstrap": 30})})


@pytest.fixture(scope="session")
def metadata() -> pd.DataFrame:
    """Of 120 products of three codes: a third with an English, a French and a short title, the first half with an
    image."""
    table = feature_table([TITLES[row % 3] for row in range(120)])
    table = table.assign(prdtypecode=np.tile([10, 40, 2583], 40), has_image=[1] * 60 + [0] * 60)
    return FeatureSet.from_batch(FeatureBatch(table)).metadata


@pytest.fixture(scope="session")
def out_of_fold() -> OutOfFold:
    """Two of three rows are right, with more confidence than the others."""
    y = np.tile([0, 1, 2], 40)
    correct = np.arange(120) % 10 < 7
    y_pred = np.where(correct, y, (y + 1) % 3)
    confidence = np.where(correct, 0.8, 0.6)
    proba = np.full((120, 3), 0.1)
    proba[np.arange(120), y_pred] = confidence
    right_where_judged = np.where(np.arange(120) < 30, y, (y + 1) % 3)
    baselines = {
        "words": Baseline(right_where_judged, np.arange(120) < 30),
        "text alone": Baseline(y_pred, np.ones(120, dtype=bool)),
    }
    novelty = np.where(np.arange(120) == 0, np.nan, np.arange(120) / 130)  # one product without any view
    return OutOfFold(np.array([10, 40, 2583]), y, y_pred, confidence, proba, confidence, novelty, baselines)


@pytest.fixture(scope="session")
def scores(out_of_fold: OutOfFold, metadata: pd.DataFrame, params: Params) -> dict[str, Any]:
    """What models/scores.json would hold."""
    return measure(out_of_fold, THRESHOLD, metadata, params) | {
        "synthetic": False,
        "label_issues": 1234,
        "parents": {"threshold": 0.8125, "coverage": 0.25, "precision": 0.96},
    }
