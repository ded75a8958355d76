import base64
import io
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema
from PIL import Image

from rakuten.errors import UserError
from rakuten.features.encoders.preprocessing import IMAGE_USED, NO_IMAGE
from rakuten.features.feature_set import FeatureBatch
from rakuten.models.classifier import ProductClassifier
from rakuten.models.pyfunc_model import OUTPUTS, PyfuncModel, _load_pyfunc
from rakuten.tracking.training_run import INPUT_EXAMPLE, INPUT_SCHEMA, LOADER_MODULE
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
        {"designation": ["<b>B&acirc;che</b> de PISCINE", None], "other": 1, "picture": [b"no", None]}, index=[7, 3]
    )
    predicted = _load_pyfunc(str(tmp_path)).predict(raw)
    assert list(predicted.columns) == list(OUTPUTS)
    assert predicted.index.tolist() == [7, 3]
    expected = text_classifier.predict(FeatureBatch(feature_table(["<b>B&acirc;che</b> de PISCINE", ""])))
    expected = expected.assign(picture=["unusable: not an image", "none"])
    assert predicted.reset_index(drop=True).equals(expected)


@pytest.fixture(scope="module")
def logged(text_classifier: ProductClassifier, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The model as MLflow loads it, which checks the signature."""
    folder = tmp_path_factory.mktemp("logged")
    text_classifier.save(folder / "files")
    mlflow.pyfunc.save_model(
        str(folder / "model"), loader_module=LOADER_MODULE, data_path=str(folder / "files"), pip_requirements=[],
        input_example=pd.DataFrame(INPUT_EXAMPLE),
        signature=ModelSignature(INPUT_SCHEMA, Schema([ColSpec(kind, name) for name, kind in OUTPUTS.items()])),
    )  # fmt: skip
    return mlflow.pyfunc.load_model(str(folder / "model"))


TEXTS = {  # a column of any type -> the same as texts
    "all missing": (pd.Series([np.nan, np.nan]), ["", ""]),
    "None": (pd.Series([None, None], dtype=object), ["", ""]),
    "missing of another kind": (pd.array(["jeu", None], "string"), ["jeu", ""]),
    "categories": (pd.Categorical(["jeu", None]), ["jeu", ""]),
    "a float among texts": (["jeu", 3.5], ["jeu", "3.5"]),
    "whole floats": ([7.0, np.nan], ["7", ""]),
    "integers": ([7, 12], ["7", "12"]),
    "booleans": ([True, False], ["True", "False"]),
    "times": (pd.to_datetime(["2024-01-31", None]), ["2024-01-31 00:00:00", ""]),
    "bytes": ([b"jeu \xc3\xa9lectronique", "jeu"], ["jeu électronique", "jeu"]),
}


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("column", ["designation", "description"])
def test_a_column_of_any_type_is_text_or_missing(column: str, name: str, logged: Any) -> None:
    values, texts = TEXTS[name]
    products = pd.DataFrame({"designation": ["piscine", "jeu"]})
    expected = logged.predict(products.assign(**{column: texts}))
    assert logged.predict(products.assign(**{column: values})).equals(expected)
    assert logged.predict(products.assign(**{column: values}).to_dict("records")).equals(expected)


def test_what_is_no_text_is_refused_with_its_row(text_classifier: ProductClassifier) -> None:
    model = PyfuncModel(text_classifier)
    for value, message in (
        (["a", "b"], "a text is of type list; give a string"),
        ({"a": "b"}, "a text is of type dict"),
        (b"\xff", "a text is bytes that are not UTF-8"),
    ):
        products = pd.DataFrame({"designation": ["jeu", "jeu"], "description": ["", value]}, index=[7, 3])
        with pytest.raises(UserError, match=f"^column 'description', row 3: {message}"):
            model.predict(products)


PNG = png()
BASE64 = base64.b64encode(PNG).decode()
PICTURES = {
    "bytes": (PNG, "used"),
    "bytearray": (bytearray(PNG), "used"),
    "memoryview": (memoryview(PNG), "used"),
    "base64": (BASE64, "used"),
    "base64 in lines": (base64.encodebytes(PNG).decode(), "used"),
    "data URL": (f"data:image/png;base64,{BASE64}", "used"),
    "None": (None, "none"),
    "NaN": (np.nan, "none"),
    "NA": (pd.NA, "none"),
    "empty text": (" ", "none"),
    "empty file": (b"", "unusable: empty"),
    "broken": (PNG[:60], "unusable: truncated"),
    "base64 of something else": ("photos/image", "unusable: not an image"),
}


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_may_be_given_in_several_ways(name: str, logged: Any) -> None:
    value, outcome = PICTURES[name]
    products = pd.DataFrame({"designation": ["jeu", "jeu"], "picture": pd.Series([value, PNG], dtype=object)})
    assert logged.predict(products)["picture"].tolist() == [outcome, "used"]


def test_a_column_of_pictures_may_be_all_missing(logged: Any) -> None:
    products = pd.DataFrame({"designation": ["jeu"] * 2, "picture": [np.nan, np.nan]})
    assert logged.predict(products)["picture"].tolist() == ["none", "none"]


def test_a_picture_may_be_a_path_but_not_as_text(logged: Any, tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(PNG)
    products = pd.DataFrame({"designation": ["jeu"] * 2, "picture": [path, tmp_path / "none.png"]})
    assert logged.predict(products)["picture"].tolist() == ["used", "unusable: unreadable"]
    with pytest.raises(UserError, match="^column 'picture', row 1: a picture is a text that is not base64; give the"):
        logged.predict(products.assign(picture=[path, str(path)]))


@pytest.mark.parametrize("value", [1, True, [PNG], np.zeros(3), Image.new("L", (9, 9)), "data:image/png,no"])
def test_what_is_no_picture_is_refused_with_its_row(value: Any, text_classifier: ProductClassifier) -> None:
    picture = pd.Series([value], index=["first"], dtype=object)
    products = pd.DataFrame({"designation": ["jeu"], "picture": picture}, index=["first"])
    with pytest.raises(UserError, match="^column 'picture', row first: a picture is (of type|a text that)"):
        PyfuncModel(text_classifier).predict(products)


def test_an_image_of_another_type_is_an_error_of_the_caller(text_classifier: ProductClassifier) -> None:
    images: Any = [bytearray(PNG)]
    with pytest.raises(TypeError, match="an image is a bytearray"):
        PyfuncModel(text_classifier).featurise_many([("jeu", "")], images)


def test_the_description_is_read(text_classifier: ProductClassifier) -> None:
    model = PyfuncModel(text_classifier)
    raw = pd.DataFrame({"designation": ["article"], "description": ["<p>jeu</p>"]})
    assert model.featurise(raw)[0].table["description_clean"].tolist() == ["jeu"]


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
