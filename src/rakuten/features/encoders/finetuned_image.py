"""A fine-tuned image network, applied by onnxruntime: the image of a product in, a score for every class out."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rakuten.data.image_decoding import BadImageError
from rakuten.features.encoders.onnx import make_session
from rakuten.features.encoders.preprocessing import image_pixels
from rakuten.types import Float32Array


class ImageInput(NamedTuple):
    """How an image file becomes the pixels of a network."""

    size: int  # height and width in pixels

    def pixels(self, data: bytes) -> NDArray[np.uint8]:
        """The pixels, 3 x size x size, of an image file's bytes.

        Raises:
            BadImageError: the bytes are not an image that can be used.
        """
        return image_pixels(data, self.size)

    def settings(self) -> dict[str, Any]:
        """The fields."""
        return self._asdict()


class FinetunedImage:
    """A fine-tuned image network.

    Attributes:
        n_classes: scores of a product.
        input: how an image file becomes pixels.
    """

    def __init__(self, graph: bytes, image: ImageInput, all_cores: bool = False) -> None:
        """
        Args:
            graph: a serialised ONNX model: pixels, uint8, rows x 3 x size x size, to rows x classes.
            all_cores: see `NetworkFolder.open`.

        Raises:
            Exception: onnxruntime has a type for each reason why a graph cannot be used.
        """
        self._session = make_session(graph, all_cores)
        self.input = image
        self.n_classes: int = self._session.get_outputs()[0].shape[1]

    def scores(self, images: Iterable[bytes | NDArray[np.uint8] | None]) -> Float32Array:
        """The scores of products: rows x classes; a row of NaN for a product without an image that can be used.

        Args:
            images: an image file's bytes or its pixels for each product, None for none.
        """
        nothing = np.full((1, self.n_classes), np.nan, dtype=np.float32)
        return np.concatenate([nothing[:0], *(nothing if data is None else self._score(data) for data in images)])

    def _score(self, image: bytes | NDArray[np.uint8]) -> Float32Array:
        try:
            return self.score_pixels((self.input.pixels(image) if isinstance(image, bytes) else image)[None])
        except BadImageError:
            return np.full((1, self.n_classes), np.nan, dtype=np.float32)

    def score_pixels(self, pixels: NDArray[np.uint8]) -> Float32Array:
        """The scores, rows x classes, of pixels, rows x 3 x size x size."""
        found: Float32Array = self._session.run(None, {"pixels": pixels})[0]
        return found
