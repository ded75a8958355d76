"""What monitoring keeps of a product and its prediction, in training and live."""

import json

import numpy as np
import pandas as pd
import pytest

from rakuten.features import monitored_columns
from rakuten.features.feature_set import FeatureBatch, FeatureSet
from rakuten.features.monitored_columns import (
    MONITORED_COLUMNS,
    N_PROJECTIONS,
    PROJECTION_COLUMNS,
    monitored_values,
    reference_sample,
    with_dtypes,
)
from rakuten.types import IMAGE, TEXT
from tests.support.features import feature_table

N_ROWS = 12


@pytest.fixture
def batch() -> FeatureBatch:
    """Product i has a title of i + 3 characters and an image embedding, except the third; none has a text embedding."""
    titles = ["Le " + "x" * number for number in range(1, N_ROWS + 1)]
    descriptions = ["This is the description", *[""] * (N_ROWS - 1)]
    table = feature_table(titles, descriptions, has_image=1)
    embeddings = np.random.default_rng(0).standard_normal((N_ROWS, 6)).astype(np.float16)
    embeddings[2] = np.nan
    return FeatureBatch(table.assign(prdtypecode=np.arange(N_ROWS) * 10), None, embeddings)


def test_values_are_of_all_columns_in_order(batch: FeatureBatch) -> None:
    values = monitored_values(batch, [7] * N_ROWS, [0.5] * N_ROWS, [False] * N_ROWS)
    assert tuple(values) == MONITORED_COLUMNS
    assert {len(column) for column in values.values()} == {N_ROWS}


def test_values_are_those_of_product_and_prediction(batch: FeatureBatch) -> None:
    values = monitored_values(batch[slice(0, 2)], [10, 2583], [0.25, 0.75], [True, False])
    assert values["designation_len"] == [4, 5]
    assert values["description_len"] == [23, 0]
    assert values["has_description"] == [1, 0]
    assert values["has_image"] == [1, 1]
    assert values["confidence"] == [0.25, 0.75]
    assert values["needs_review"] == [1, 0]
    assert values["predicted"] == [10, 2583]
    assert values["language"] == ["english", "french"]  # of the description before the title


def test_values_contain_no_text_and_no_id() -> None:
    assert not {"designation_clean", "description_clean", "style", "productid", "imageid"} & set(MONITORED_COLUMNS)


def test_a_product_without_embedding_has_no_projections(batch: FeatureBatch) -> None:
    values = monitored_values(batch, [7] * N_ROWS, [0.5] * N_ROWS, [False] * N_ROWS)
    for column in PROJECTION_COLUMNS[IMAGE]:
        assert [row for row, value in enumerate(values[column]) if value is None] == [2]
    for column in PROJECTION_COLUMNS[TEXT]:
        assert set(values[column]) == {None}


def test_values_can_be_written_as_json(batch: FeatureBatch) -> None:
    values = monitored_values(batch, [7] * N_ROWS, [0.5] * N_ROWS, [False] * N_ROWS)
    assert json.loads(json.dumps(values, allow_nan=False)).keys() == values.keys()


def test_projections_are_linear_and_keep_lengths_on_average() -> None:
    embeddings = np.random.default_rng(1).standard_normal((2000, 512)).astype(np.float32)
    projected = monitored_columns._project(embeddings)
    assert projected.shape == (2000, N_PROJECTIONS)
    assert monitored_columns._project(3 * embeddings) == pytest.approx(3 * projected, abs=1e-4)
    assert np.square(projected).mean() == pytest.approx(1, rel=0.1)


def test_projections_never_change() -> None:
    """References and logs of every version hold them: a change makes them incomparable."""
    embeddings = np.arange(4, dtype=np.float16)[None]
    assert monitored_columns._project(embeddings)[0, :4] == pytest.approx(
        [-1.63119, -0.06351, 0.96445, 0.34911], abs=2e-5
    )


def test_the_reference_is_of_out_of_fold_predictions(batch: FeatureBatch) -> None:
    confidence = np.linspace(0, 1, N_ROWS)
    needs_review = confidence < 0.5
    reference = reference_sample(FeatureSet.from_batch(batch), np.arange(N_ROWS), confidence, needs_review, seed=0)
    assert reference.columns.tolist() == [*MONITORED_COLUMNS, "prdtypecode"]
    assert reference["predicted"].tolist() == list(range(N_ROWS))
    assert reference["prdtypecode"].tolist() == [10 * number for number in range(N_ROWS)]
    assert reference["confidence"].tolist() == confidence.tolist()
    assert reference["needs_review"].tolist() == [1] * 6 + [0] * 6
    assert np.isnan(reference["picture_0"]).tolist() == [row == 2 for row in range(N_ROWS)]


def test_a_large_reference_is_a_random_sample_in_order(batch: FeatureBatch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitored_columns, "REFERENCE_ROWS", 5)
    features, confidence = FeatureSet.from_batch(batch), np.linspace(0, 1, N_ROWS)
    samples = [
        reference_sample(features, np.arange(N_ROWS), confidence, confidence < 0.5, seed)["predicted"].tolist()
        for seed in range(20)
    ]
    assert all(len(sample) == 5 and sample == sorted(set(sample)) for sample in samples)
    assert len({tuple(sample) for sample in samples}) > 10
    assert set().union(*samples) == set(range(N_ROWS))
    again = reference_sample(features, np.arange(N_ROWS), confidence, confidence < 0.5, 0)
    assert again["predicted"].tolist() == samples[0]
    assert (again["designation_len"] == again["predicted"] + 4).all()  # each row is one product's


def test_dtypes_are_the_same_whatever_the_rows_came_from() -> None:
    values = dict.fromkeys(MONITORED_COLUMNS, "1")
    frame = with_dtypes(pd.DataFrame([values])).dtypes.astype(str).to_dict()
    assert frame == with_dtypes(pd.DataFrame([dict.fromkeys(MONITORED_COLUMNS, 1.0)])).dtypes.astype(str).to_dict()
    assert (frame["confidence"], frame["predicted"], frame["needs_review"], frame["picture_7"]) == (
        "float64", "int64", "int64", "float64",
    )  # fmt: skip
