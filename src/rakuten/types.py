"""Names of array types, and of the three views of a product."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
HashArray = NDArray[np.uint64]
Embedding = NDArray[np.float16]  # one vector
EmbeddingArray = NDArray[np.floating[Any]]  # rows x width; a row of NaN where there is none

# The views: n-grams of the texts, embedding of the texts, embedding of the image. The values stand in saved models
# and in the API's answers, so they stay what they were first called.
NGRAMS, TEXT, IMAGE = "words", "meaning", "picture"
