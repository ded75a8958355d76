"""Feature tables of a few products, made in memory by the functions of the features stage."""

from collections.abc import Sequence

import pandas as pd

from rakuten.config import FeatureParams, load_params
from rakuten.features.text_features import raw_text_features

TEXT_ONLY: FeatureParams = load_params().features.model_copy(update={"image_encoder": "none", "text_encoder": "none"})


def feature_table(titles: Sequence[str], descriptions: Sequence[str] = (), has_image: int = 0) -> pd.DataFrame:
    """The feature table of products with ids 0, 1, 2 and so on, without prdtypecode.

    Args:
        titles: raw designation of each product.
        descriptions: raw description of each product; none if it is empty.
        has_image: 0 or 1, for all products.
    """
    texts = list(zip(titles, descriptions or [""] * len(titles), strict=True))
    table = raw_text_features(texts, [has_image] * len(titles), TEXT_ONLY)
    ids = [str(number) for number in range(len(titles))]
    return table.assign(productid=ids, imageid=ids)
