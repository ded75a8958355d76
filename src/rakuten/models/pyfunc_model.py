"""The model on raw columns, as MLflow loads it (`loader_module`): no code is unpickled."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rakuten.config import FeatureParams
from rakuten.data.images import BadPictureError, decode
from rakuten.errors import UserError
from rakuten.features.embedding_cache import Vector
from rakuten.features.encoders.onnx import NONE, image_encoder, text_encoder
from rakuten.features.text_features import embedded_text, raw_features
from rakuten.models.classifier import MEANING, PICTURE, ProductClassifier, Products

OUTPUTS = {
    "predicted_prdtypecode": "long",
    "label": "string",
    "confidence": "double",
    "second_prdtypecode": "long",
    "second_confidence": "double",
    "third_prdtypecode": "long",
    "third_confidence": "double",
    "needs_review": "boolean",
}


USED, NO_PICTURE = "used", "none"


class RawModel:
    """Raw products in, predictions out."""

    def __init__(self, classifier: ProductClassifier) -> None:
        self.classifier = classifier
        for view, identity in encoder_identities(classifier.features).items():
            if classifier.settings.encoders.get(view, identity) != identity:
                raise UserError(f"the model was trained on another {view} encoder than is here; run `dvc repro`")

    def predict(self, products: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Predictions (columns OUTPUTS) for raw products: designation, and description and picture (a file's
        bytes) if there are any. A picture that cannot be used counts as none."""
        return self.classifier.predict(self.describe(products))

    def describe(self, products: pd.DataFrame) -> Products:
        """Raw products as the features stage would describe them."""
        pictures = products["picture"].tolist() if "picture" in products else [None] * len(products)
        named = zip(_texts(products, "designation"), _texts(products, "description"), strict=True)
        described, _ = self.describe_all(list(named), pictures)
        described.table.index = products.index
        return described

    def describe_all(self, named: Sequence[tuple[str, str]], pictures: Sequence[Any]) -> tuple[Products, list[str]]:
        """The same from lists, and for each product what its picture was: USED, NO_PICTURE, or why it cannot be used.

        Args:
            named: designation and description of each.
            pictures: a file's bytes each, or anything else for none.
        """
        features = self.classifier.features
        seen = [self._see(picture) for picture in pictures]
        table = raw_features(named, [int(word == USED) for word, _ in seen], features)
        texts: list[Vector | None] = [None] * len(named)
        if MEANING in self.classifier.linear:
            encoder = text_encoder(features.text_encoder)
            texts = [encoder.encode(text) if text else None for text in embedded_text(table)]
        vectors = [vector for _, vector in seen]
        described = Products(table, _stack(texts, self.classifier, MEANING), _stack(vectors, self.classifier, PICTURE))
        return described, [word for word, _ in seen]

    def _see(self, picture: Any) -> tuple[str, Vector | None]:
        """What a picture is good for in a word, and its embedding if the model has use for one."""
        if not isinstance(picture, bytes):
            return NO_PICTURE, None
        try:
            if PICTURE in self.classifier.linear:
                return USED, image_encoder(self.classifier.features.image_encoder, all_cores=True).encode(picture)
            decode(picture, at_least=1)
            return USED, None
        except BadPictureError as error:
            return str(error), None


def encoder_identities(features: FeatureParams) -> dict[str, str]:
    """View -> identity of the encoder that makes its embeddings."""
    identities = {}
    if features.text_encoder != NONE:
        identities[MEANING] = text_encoder(features.text_encoder).identity
    if features.image_encoder != NONE:
        identities[PICTURE] = image_encoder(features.image_encoder).identity
    return identities


def _texts(products: pd.DataFrame, column: str) -> list[str]:
    """A column of texts; empty where the column or a value is missing."""
    values = products[column].tolist() if column in products else [""] * len(products)
    return ["" if pd.isna(value) else value for value in values]


def _stack(vectors: Sequence[Vector | None], classifier: ProductClassifier, view: str) -> Any:
    if view not in classifier.linear:
        return None
    rows = np.full((len(vectors), classifier.linear[view].coef.shape[1]), np.nan, dtype=np.float16)
    for at, vector in enumerate(vectors):
        if vector is not None:
            rows[at] = vector
    return rows


def _load_pyfunc(path: str) -> RawModel:
    return RawModel(ProductClassifier.load(Path(path)))
