"""Products that people decided at the review desk: two models are not compared on them.

They came to the desk because a model was unsure of them or doubted their label, so on them any other model looks
better than that one; and a label that the champion never saw is no fair test of it.
"""

import logging
from pathlib import Path

import pandas as pd

from rakuten.config import DATA
from rakuten.data.corrections import CORRECTIONS_FILE
from rakuten.data.tables import read_table
from rakuten.features.feature_set import TRAIN, FeatureSet
from rakuten.promotion.unseen_products import ID_COLUMNS, are_features_of, is_among, is_unseen
from rakuten.tracking.registry import Version

log = logging.getLogger(__name__)


def decided_products(challenger: Version, data: Path = DATA) -> pd.DataFrame:
    """The products that a correction names, whatever became of it, and their near-duplicates.

    Args:
        data: folder with interim/corrections.csv, which ingest wrote, and the challenger's train features in
            processed/. Without these features the near-duplicates are not known, without the file nothing is.

    Returns:
        productid, imageid.
    """
    path = data / "interim" / CORRECTIONS_FILE
    if not path.is_file():
        log.info("%s is not here: products that people decided cannot be left out of the comparison", path)
        return pd.DataFrame(columns=ID_COLUMNS)
    corrected = read_table(path)[ID_COLUMNS]
    if corrected.empty or not are_features_of(challenger, data / "processed"):
        return corrected
    products = FeatureSet.open(data / "processed", TRAIN).metadata
    return products.loc[~is_unseen(products, corrected), ID_COLUMNS]


def without(predictions: pd.DataFrame, decided: pd.DataFrame) -> pd.DataFrame:
    """The predictions of the other products.

    Args:
        predictions: with productid and imageid.
        decided: from `decided_products`.
    """
    return predictions[~is_among(predictions, decided)]
