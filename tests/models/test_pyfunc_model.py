import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from rakuten.errors import UserError
from rakuten.features.encoders.preprocessing import IMAGE_USED, NO_IMAGE
from rakuten.features.feature_set import FeatureBatch
from rakuten.models.classifier import ProductClassifier
from rakuten.models.pyfunc_model import OUTPUTS, PyfuncModel, _load_pyfunc
from tests.support.features import TEXT_ONLY, feature_table
from tests.support.training import PARAMS, fit_batch


@pytest.fixture(scope="module")
def text_classifier(tmp_path_factory: pytest.TempPathFactory) -> ProductClassifier:
    """A model of titles alone."""
    table = feature_table([f"jeu {number}" for number in range(20)] + [f"piscine {number}" for number in range(20)])
    batch = FeatureBatch(table.assign(prdtypecode=[10] * 20 + [2583] * 20))
    params = PARAMS.model_copy(update={"features": TEXT_ONLY})
    return fit_batch(batch, tmp_path_factory.mktemp("text"), params)[0]


def png() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (32, 32), "red").save(stream, "PNG")
    return stream.getvalue()


def test_mlflow_loads_a_model_that_takes_raw_products(text_classifier: ProductClassifier, tmp_path: Path) -> None:
    text_classifier.save(tmp_path)
    raw = pd.DataFrame(
        {"designation": ["<b>B&acirc;che</b> de PISCINE", None], "other": 1, "picture": [b"none", None]}, index=[7, 3]
    )
    predicted = _load_pyfunc(str(tmp_path)).predict(raw)
    assert list(predicted.columns) == list(OUTPUTS)
    assert predicted.index.tolist() == [7, 3]
    expected = text_classifier.predict(FeatureBatch(feature_table(["<b>B&acirc;che</b> de PISCINE", ""])))
    assert predicted.reset_index(drop=True).equals(expected)


def test_the_description_is_read(text_classifier: ProductClassifier) -> None:
    model = PyfuncModel(text_classifier)
    raw = pd.DataFrame({"designation": ["article"], "description": ["<p>jeu</p>"]})
    assert model.featurise(raw).table["description_clean"].tolist() == ["jeu"]


def test_every_image_has_a_state(text_classifier: ProductClassifier) -> None:
    texts = [("jeu", "")] * 4
    batch, states = PyfuncModel(text_classifier).featurise_many(texts, [png(), None, b"", png()[:60]])
    assert states == [IMAGE_USED, NO_IMAGE, "empty", "truncated"]
    assert batch.table["has_image"].tolist() == [1, 0, 0, 0]
    assert batch.image_embeddings is None  # the model has no image view


def test_a_model_of_another_encoder_is_refused(classifier: ProductClassifier) -> None:
    with pytest.raises(UserError, match="trained with another picture encoder than the one installed"):
        PyfuncModel(classifier)


def test_no_products_give_no_predictions(text_classifier: ProductClassifier) -> None:
    predicted = PyfuncModel(text_classifier).predict(pd.DataFrame({"designation": []}))
    assert predicted.shape == (0, len(OUTPUTS))
    assert np.array_equal(predicted.columns, list(OUTPUTS))
