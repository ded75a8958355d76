"""The model on raw columns, as MLflow loads it (`loader_module`): no code is unpickled."""

from pathlib import Path
from typing import Any

import pandas as pd

from src.features.products import product_features
from src.models.classifier import ProductClassifier

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


class RawModel:
    """Raw products in, predictions out."""

    def __init__(self, classifier: ProductClassifier) -> None:
        self.classifier = classifier

    def predict(self, products: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Predictions (columns OUTPUTS) for raw products: designation, and description if there is one."""
        rows = products.reindex(columns=["designation", "description"]).fillna("")
        rows = rows.assign(productid="", imageid="", has_image="False")
        return self.classifier.predict(product_features(rows, self.classifier.features))


def _load_pyfunc(path: str) -> RawModel:
    return RawModel(ProductClassifier.load(Path(path)))
