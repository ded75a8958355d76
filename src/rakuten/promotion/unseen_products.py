"""The champion's predictions of the challenger's products that it never saw, so that both can be compared on them."""

import logging
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from rakuten.config import PROCESSED, FeatureParams, Params
from rakuten.errors import UserError
from rakuten.features.encoders.factory import encoder_fingerprints
from rakuten.features.feature_set import TRAIN, FeaturePaths, FeatureSet
from rakuten.files import digest
from rakuten.models.classifier import ProductClassifier
from rakuten.tracking import lineage, registered_model, trace
from rakuten.tracking.registry import Version
from rakuten.types import BoolArray

log = logging.getLogger(__name__)

ID_COLUMNS = ["productid", "imageid"]


def predict_unseen(
    challenger: Version, champion: Version, seen: pd.DataFrame, params: Params, processed: Path = PROCESSED
) -> pd.DataFrame:
    """The champion's predictions of the products that the challenger was trained on and the champion was not.

    Args:
        seen: productid and imageid of the champion's train products.
        processed: folder with the challenger's train features.

    Returns:
        productid, imageid, prdtypecode, predicted. No rows where the challenger's features are not in `processed`, or
        were made in another way than the champion's, or the champion's files have another format.
    """
    none = pd.DataFrame(columns=[*ID_COLUMNS, "prdtypecode", "predicted"])
    inputs = trace.inputs_of_run(challenger.run_id)
    for path in FeaturePaths.of(processed, TRAIN):
        if not path.is_file() or inputs.get(lineage.repo_relative(path)) != digest(path, "md5"):
            log.info("the challenger's features are not here: compared only on products that both were trained on")
            return none
    features = FeatureSet.open(processed, TRAIN)
    unseen = is_unseen(features.metadata, seen)
    if not unseen.any():
        return none
    classifier = _load_champion(champion)
    if classifier is None or not _same_features(classifier, params.features):
        log.info("the champion cannot read these features: compared only on products that both were trained on")
        return none
    parts = []
    for chunk in features.table_chunks():
        batch = features.batch(chunk[unseen[chunk.index]])
        predicted = classifier.predict(batch)["predicted_prdtypecode"].astype("int64")
        parts.append(batch.table[[*ID_COLUMNS, "prdtypecode"]].assign(predicted=predicted))
    return pd.concat(parts)


def is_unseen(products: pd.DataFrame, seen: pd.DataFrame) -> BoolArray:
    """For each product, whether a model trained on the products `seen` saw neither it nor its title.

    Args:
        products: productid, imageid, group (see `feature_set.title_groups`).
        seen: productid, imageid.
    """
    seen_ids = pd.MultiIndex.from_frame(seen[ID_COLUMNS].astype("int64"))
    is_seen = pd.MultiIndex.from_frame(products[ID_COLUMNS].astype("int64")).isin(seen_ids)
    group = products["group"].to_numpy()
    unseen: BoolArray = ~is_seen & ~np.isin(group, group[is_seen])
    return unseen


def _load_champion(champion: Version) -> ProductClassifier | None:
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model"
        registered_model.download_model(champion, model)
        try:
            return ProductClassifier.load(model)
        except UserError as error:
            log.info("the champion cannot be loaded: %s", error)
            return None


def _same_features(classifier: ProductClassifier, features: FeatureParams) -> bool:
    """Whether features made by these parameters are what the model was trained on."""
    own, here = classifier.config.features, encoder_fingerprints(features)
    same_text = (own.lowercase, own.strip_accents) == (features.lowercase, features.strip_accents)
    return same_text and all(here.get(view) == known for view, known in classifier.config.encoders.items())
