"""The model for raw products, as MLflow loads it by its `loader_module`: no code is unpickled."""

import base64
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rakuten.data.image_decoding import BadImageError
from rakuten.data.images import read_image_bytes
from rakuten.data.schema import text_of
from rakuten.errors import UserError
from rakuten.features.encoders.factory import current_fingerprint, encoder_fingerprints, image_encoder, text_encoder
from rakuten.features.encoders.finetuned import NetworkFolder
from rakuten.features.encoders.finetuned_image import FinetunedImage
from rakuten.features.encoders.finetuned_text import cased_texts
from rakuten.features.encoders.onnx import ImageEncoder
from rakuten.features.encoders.preprocessing import IMAGE_USED, NO_IMAGE, DecodedImage, decode_image
from rakuten.features.feature_set import FeatureBatch
from rakuten.features.text_features import raw_text_features, texts_to_embed
from rakuten.models.classifier import ProductClassifier
from rakuten.types import FINETUNED_IMAGE, FINETUNED_TEXT, IMAGE, TEXT, Embedding, EmbeddingArray

Value = TypeVar("Value")

_DATA_URL = re.compile(r"^\s*data:[^,]*;base64,")

PREDICTIONS = {  # column of a prediction -> its type for MLflow
    "predicted_prdtypecode": "long",
    "label": "string",
    "confidence": "double",
    "second_prdtypecode": "long",
    "second_confidence": "double",
    "third_prdtypecode": "long",
    "third_confidence": "double",
    "fourth_prdtypecode": "long",
    "fourth_confidence": "double",
    "fifth_prdtypecode": "long",
    "fifth_confidence": "double",
    "needs_review": "boolean",
    "parent": "string",
    "is_novel": "boolean",
    "novelty": "double",
}
OUTPUTS = PREDICTIONS | {"picture": "string"}  # with what became of the image: see `image_outcome`

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
            products: designation; description and picture if there are any. Texts may have any type that `text_of`
                takes, pictures any that `image_file` takes.
            params: MLflow's; not used.

        Raises:
            UserError: a text or a picture has a type that cannot be used; its row is named.
        """
        batch, image_states = self.featurise(products)
        return self.classifier.predict(batch).assign(picture=list(map(image_outcome, image_states)))

    def featurise(self, products: pd.DataFrame) -> tuple[FeatureBatch, list[str]]:
        """The features of raw products, as the features stage would make them, and the state of each image."""
        designations, descriptions = (_column(products, name, text_of) for name in ("designation", "description"))
        images = _column(products, "picture", image_file)
        batch, image_states = self.featurise_many(list(zip(designations, descriptions, strict=True)), images)
        batch.table.index = products.index
        return batch, image_states

    def featurise_many(
        self, texts: Sequence[tuple[str, str]], images: Sequence[bytes | DecodedImage | None]
    ) -> tuple[FeatureBatch, list[str]]:
        """The features of raw products given as lists.

        Args:
            texts: designation and description of each product.
            images: for each product an image file's bytes, or what `decode_image` made of them for `image_sizes`; or
                None.

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
            finetuned_scores(self.classifier.networks, texts, network_pixels, all_cores=True),
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

    def _decode(self, image: bytes | DecodedImage | None) -> DecodedImage:
        if image is None:
            return DecodedImage(NO_IMAGE, {})
        if isinstance(image, bytes):
            return decode_image(image, self.image_sizes())
        if not isinstance(image, DecodedImage):
            raise TypeError(f"an image is a {type(image).__name__}, not bytes")
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
    networks: Mapping[str, NetworkFolder],
    texts: Iterable[tuple[str, str]],
    images: Iterable[bytes | NDArray[np.uint8] | None],
    all_cores: bool = False,
) -> dict[str, EmbeddingArray]:
    """The scores of fine-tuned networks, by view.

    Args:
        networks: those of a classifier.
        texts: raw designation and description of each product.
        images: an image file's bytes or the network's pixels for each product, None for none.
        all_cores: see `NetworkFolder.open`.
    """
    scores: dict[str, EmbeddingArray] = {}
    if FINETUNED_TEXT in networks:
        network = networks[FINETUNED_TEXT].text(all_cores)
        scores[FINETUNED_TEXT] = network.scores(cased_texts(*text) for text in texts)
    if FINETUNED_IMAGE in networks:
        scores[FINETUNED_IMAGE] = networks[FINETUNED_IMAGE].image(all_cores).scores(images)
    return scores


def check_encoders(classifier: ProductClassifier) -> None:
    """Raise UserError unless the installed encoders are those that the classifier was trained with."""
    for view, fingerprint in encoder_fingerprints(classifier.config.features).items():
        if current_fingerprint(classifier.config.encoders.get(view, fingerprint)) != fingerprint:
            raise UserError(
                f"the model was trained with another {view} encoder than the one installed; run `dvc repro`"
            )


def image_outcome(state: str) -> str:
    """What became of an image, as answers say it: "used", "none", or "unusable: " and why."""
    return state if state in (IMAGE_USED, NO_IMAGE) else f"unusable: {state}"


def image_file(value: Any) -> bytes | DecodedImage | None:
    """The bytes of an image file that is given in some way; None where it is missing.

    Args:
        value: the bytes; or base64 text, perhaps as a data URL; or a `Path`. A path as text is refused: whoever may
            send products to a server could read its files.

    Raises:
        UserError: the value is anything else.
    """
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if isinstance(value, Path):
        try:
            return read_image_bytes(value)
        except BadImageError as error:
            return DecodedImage(str(error), {})
    if isinstance(value, str):
        return _decode_base64(value) if value.strip() else None
    if not isinstance(value, Collection) and pd.isna(value):
        return None
    raise UserError(f"a picture is of type {type(value).__name__}; give the bytes of its file")


def _decode_base64(text: str) -> bytes:
    try:
        return base64.b64decode("".join(_DATA_URL.sub("", text).split()), validate=True)
    except ValueError:
        raise UserError(
            "a picture is a text that is not base64; give the bytes of its file, base64, or a pathlib.Path"
        ) from None


def _column(products: pd.DataFrame, name: str, convert: Callable[[Any], Value]) -> list[Value]:
    """The converted values of a column; of None for each product if there is no such column."""
    values = products[name].tolist() if name in products else [None] * len(products)
    converted = []
    for label, value in zip(products.index, values, strict=True):
        try:
            converted.append(convert(value))
        except UserError as error:
            raise UserError(f"column '{name}', row {label}: {error}") from None
    return converted


def _load_pyfunc(path: str) -> PyfuncModel:
    return PyfuncModel(ProductClassifier.load(Path(path)))
