"""The model for raw products, as MLflow loads it by its `loader_module`: no code is unpickled."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rakuten.data.image_decoding import BadImageError, decode
from rakuten.errors import UserError
from rakuten.features.encoders.factory import current_fingerprint, encoder_fingerprints, image_encoder, text_encoder
from rakuten.features.encoders.finetuned_text import cased_texts
from rakuten.features.feature_set import FeatureBatch
from rakuten.features.text_features import raw_text_features, texts_to_embed
from rakuten.models.classifier import ProductClassifier
from rakuten.types import FINETUNED_IMAGE, FINETUNED_TEXT, IMAGE, TEXT, Embedding, EmbeddingArray

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
IMAGE_USED, NO_IMAGE = "used", "none"


class PyfuncModel:
    """Predicts raw products: makes their features, and applies the classifier."""

    def __init__(self, classifier: ProductClassifier) -> None:
        """
        Raises:
            UserError: the classifier was trained with other encoders than those installed.
        """
        check_encoders(classifier)
        self.classifier = classifier

    def predict(self, products: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Predictions (columns OUTPUTS) for raw products.

        Args:
            products: designation; description and picture (an image file's bytes) if there are any. An image that
                cannot be used counts as none.
            params: MLflow's; not used.
        """
        return self.classifier.predict(self.featurise(products))

    def featurise(self, products: pd.DataFrame) -> FeatureBatch:
        """The features of raw products, as the features stage would make them."""
        images = products["picture"].tolist() if "picture" in products else [None] * len(products)
        texts = zip(_texts(products, "designation"), _texts(products, "description"), strict=True)
        batch, _ = self.featurise_many(list(texts), images)
        batch.table.index = products.index
        return batch

    def featurise_many(self, texts: Sequence[tuple[str, str]], images: Sequence[Any]) -> tuple[FeatureBatch, list[str]]:
        """The features of raw products given as lists.

        Args:
            texts: designation and description of each product.
            images: an image file's bytes for each product, or anything else for none.

        Returns:
            The features, and for each product the state of its image: IMAGE_USED, NO_IMAGE, or why it cannot be used.
        """
        params = self.classifier.config.features
        image_states, image_embeddings = self._encode_images(images)
        table = raw_text_features(texts, [int(state == IMAGE_USED) for state in image_states], params)
        text_embeddings: list[Embedding | None] = [None] * len(texts)
        if TEXT in self.classifier.linear:
            encoder = text_encoder(params.text_encoder)
            text_embeddings = [encoder.encode(text) if text else None for text in texts_to_embed(table)]
        used_images = [
            image if state == IMAGE_USED else None for image, state in zip(images, image_states, strict=True)
        ]
        batch = FeatureBatch(
            table,
            self._stack(text_embeddings, TEXT),
            self._stack(image_embeddings, IMAGE),
            finetuned_scores(self.classifier, texts, used_images, all_cores=True),
        )
        return batch, image_states

    def _encode_images(self, images: Sequence[Any]) -> tuple[list[str], list[Embedding | None]]:
        encoded = [self._encode_image(image) for image in images]
        return [state for state, _ in encoded], [embedding for _, embedding in encoded]

    def _encode_image(self, image: Any) -> tuple[str, Embedding | None]:
        """The state of an image (see `featurise_many`), and its embedding if the model uses one."""
        if not isinstance(image, bytes):
            return NO_IMAGE, None
        try:
            if IMAGE in self.classifier.linear:
                encoder = image_encoder(self.classifier.config.features.image_encoder, all_cores=True)
                return IMAGE_USED, encoder.encode(image)
            decode(image, min_side=1)
            return IMAGE_USED, None
        except BadImageError as error:
            return str(error), None

    def _stack(self, embeddings: Sequence[Embedding | None], view: str) -> EmbeddingArray | None:
        """One row for each product, NaN where it has no embedding; None where the model does not have the view."""
        if view not in self.classifier.linear:
            return None
        width = self.classifier.linear[view].coef.shape[1]
        rows = np.full((len(embeddings), width), np.nan, dtype=np.float16)
        for row, embedding in zip(rows, embeddings, strict=True):
            if embedding is not None:
                row[:] = embedding
        return rows


def finetuned_scores(
    classifier: ProductClassifier,
    texts: Iterable[tuple[str, str]],
    images: Iterable[bytes | None],
    all_cores: bool = False,
) -> dict[str, EmbeddingArray]:
    """The scores of the classifier's fine-tuned networks, by view.

    Args:
        texts: raw designation and description of each product.
        images: an image file's bytes for each product, None for none.
        all_cores: see `NetworkFolder.open`.
    """
    scores: dict[str, EmbeddingArray] = {}
    if FINETUNED_TEXT in classifier.networks:
        network = classifier.networks[FINETUNED_TEXT].text(all_cores)
        scores[FINETUNED_TEXT] = network.scores(cased_texts(*text) for text in texts)
    if FINETUNED_IMAGE in classifier.networks:
        scores[FINETUNED_IMAGE] = classifier.networks[FINETUNED_IMAGE].image(all_cores).scores(images)
    return scores


def check_encoders(classifier: ProductClassifier) -> None:
    """Raise UserError unless the installed encoders are those that the classifier was trained with."""
    for view, fingerprint in encoder_fingerprints(classifier.config.features).items():
        if current_fingerprint(classifier.config.encoders.get(view, fingerprint)) != fingerprint:
            raise UserError(
                f"the model was trained with another {view} encoder than the one installed; run `dvc repro`"
            )


def _texts(products: pd.DataFrame, column: str) -> list[str]:
    """A column of texts; empty where the column or a value is missing."""
    values = products[column].tolist() if column in products else [""] * len(products)
    return ["" if pd.isna(value) else value for value in values]


def _load_pyfunc(path: str) -> PyfuncModel:
    return PyfuncModel(ProductClassifier.load(Path(path)))
