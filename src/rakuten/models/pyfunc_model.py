"""The model for raw products, as MLflow loads it by its `loader_module`: no code is unpickled."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rakuten.errors import UserError
from rakuten.features.encoders.factory import current_fingerprint, encoder_fingerprints, image_encoder, text_encoder
from rakuten.features.encoders.finetuned_image import FinetunedImage
from rakuten.features.encoders.finetuned_text import cased_texts
from rakuten.features.encoders.onnx import ImageEncoder
from rakuten.features.encoders.preprocessing import IMAGE_USED, NO_IMAGE, DecodedImage, decode_image
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


OTHER_MODEL = "decoded for the model before"  # an image's state, for the moment in which a model takes another's place


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
            images: for each product an image file's bytes, or what `decode_image` made of them for `image_sizes`; or
                anything else for none.

        Returns:
            The features, and for each product the state of its image: IMAGE_USED, NO_IMAGE, or why it cannot be used.
        """
        params = self.classifier.config.features
        decoded = [self._decode(image) for image in images]
        image_states = [image.state for image in decoded]
        table = raw_text_features(texts, [int(state == IMAGE_USED) for state in image_states], params)
        text_embeddings: list[Embedding | None] = [None] * len(texts)
        if TEXT in self.classifier.linear:
            encoder = text_encoder(params.text_encoder)
            text_embeddings = [encoder.encode(text) if text else None for text in texts_to_embed(table)]
        image_embeddings: list[Embedding | None] = [None] * len(texts)
        if IMAGE in self.classifier.linear:
            encoder_of_images = self._image_encoder()
            for row, pixels in enumerate(image.pixels.get(encoder_of_images.size) for image in decoded):
                image_embeddings[row] = None if pixels is None else encoder_of_images.encode_pixels(pixels)
        network_pixels: list[NDArray[np.uint8] | None] = [None] * len(texts)
        if FINETUNED_IMAGE in self.classifier.networks:
            network_pixels = [image.pixels.get(self._image_network().input.size) for image in decoded]
        batch = FeatureBatch(
            table,
            self._stack(text_embeddings, TEXT),
            self._stack(image_embeddings, IMAGE),
            finetuned_scores(self.classifier, texts, network_pixels, all_cores=True),
        )
        return batch, image_states

    def image_sizes(self) -> tuple[int, ...]:
        """Height and width of the images that the model's encoders take; none if it uses no images."""
        sizes = [self._image_encoder().size] if IMAGE in self.classifier.linear else []
        if FINETUNED_IMAGE in self.classifier.networks:
            sizes.append(self._image_network().input.size)
        return tuple(dict.fromkeys(sizes))

    def _image_encoder(self) -> ImageEncoder:
        return image_encoder(self.classifier.config.features.image_encoder, all_cores=True)

    def _image_network(self) -> FinetunedImage:
        return self.classifier.networks[FINETUNED_IMAGE].image(all_cores=True)

    def _decode(self, image: Any) -> DecodedImage:
        if isinstance(image, bytes):
            return decode_image(image, self.image_sizes())
        if not isinstance(image, DecodedImage):
            return DecodedImage(NO_IMAGE, {})
        is_complete = image.state != IMAGE_USED or set(self.image_sizes()) <= set(image.pixels)
        return image if is_complete else DecodedImage(OTHER_MODEL, {})

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
    images: Iterable[bytes | NDArray[np.uint8] | None],
    all_cores: bool = False,
) -> dict[str, EmbeddingArray]:
    """The scores of the classifier's fine-tuned networks, by view.

    Args:
        texts: raw designation and description of each product.
        images: an image file's bytes or the network's pixels for each product, None for none.
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
