"""Array types, and the names of the views of a product."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
Float32Array = NDArray[np.float32]
FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
HashArray = NDArray[np.uint64]
Embedding = NDArray[np.float16]  # one vector
EmbeddingArray = NDArray[np.floating[Any]]  # rows x width; a row of NaN where there is no embedding

# The views: n-grams of the texts, embedding of the texts, embedding of the image. The values are stored in saved models
# and are part of the API's responses, so they must not change.
NGRAMS, TEXT, IMAGE = "words", "meaning", "picture"
FINETUNED_TEXT, FINETUNED_IMAGE = "fine-tuned text", "fine-tuned picture"  # networks trained on the products
FINETUNED_VIEWS = (FINETUNED_TEXT, FINETUNED_IMAGE)
IMAGE_VIEWS = (IMAGE, FINETUNED_IMAGE)
