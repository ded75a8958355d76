"""The champion's predictions of products that only the challenger was trained on, so that both are compared on them."""

import logging
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from rakuten.config import DATA, FeatureParams, Params
from rakuten.data.images import ImageFiles, image_paths, usable_image_bytes
from rakuten.data.tables import read_table_chunks
from rakuten.data.taxonomy import current_taxonomy
from rakuten.disk_array import CHUNK_ROWS
from rakuten.errors import UntrustedModelError, UserError
from rakuten.features.encoders.factory import current_fingerprint, encoder_fingerprints
from rakuten.features.feature_set import TRAIN, FeatureBatch, FeaturePaths, FeatureSet
from rakuten.files import digest
from rakuten.models.classifier import ProductClassifier
from rakuten.models.pyfunc_model import finetuned_scores
from rakuten.tracking import lineage, registered_model, trace
from rakuten.tracking.registry import Version
from rakuten.types import BoolArray

log = logging.getLogger(__name__)

ID_COLUMNS = ["productid", "imageid"]


def predict_unseen(
    challenger: Version, champion: Version, seen: pd.DataFrame, params: Params, data: Path = DATA
) -> pd.DataFrame:
    """The champion's predictions of the products that the challenger was trained on and the champion was not.

    Args:
        seen: productid and imageid of the champion's train products.
        data: folder with the challenger's train features in processed/; for a champion with a fine-tuned network also
            with its train products in interim/ and their images in raw/.

    Returns:
        productid, imageid, prdtypecode, predicted. No rows if the challenger's features are not in `data`, if they were
        made with other parameters than the champion's, or if this code cannot read its model files.
    """
    no_rows = pd.DataFrame(columns=[*ID_COLUMNS, "prdtypecode", "predicted"])
    if not are_features_of(challenger, data / "processed"):
        log.info("the challenger's features are not here: comparing only on products that both were trained on")
        return no_rows
    features = FeatureSet.open(data / "processed", TRAIN)
    mask = is_unseen(features.metadata, seen)
    if not mask.any():
        return no_rows
    with tempfile.TemporaryDirectory() as folder:
        classifier = _load_champion(champion, Path(folder) / "model", params.models.require_signature)
        if classifier is None:
            return no_rows
        if not _has_same_features(classifier, params.features):
            log.info(
                "the champion's features were made with other parameters: "
                "comparing only on products that both were trained on"
            )
            return no_rows
        batches: Iterator[FeatureBatch] = map(
            features.batch, (chunk[mask[chunk.index]] for chunk in features.table_chunks())
        )
        if classifier.networks:
            batches = _with_networks(batches, classifier, data)
        return pd.concat([_predict(classifier, batch) for batch in batches])


def _predict(classifier: ProductClassifier, batch: FeatureBatch) -> pd.DataFrame:
    y_pred = classifier.predict(batch)["predicted_prdtypecode"].astype("int64")
    return current_taxonomy().follow_codes(batch.table[[*ID_COLUMNS, "prdtypecode"]].assign(predicted=y_pred))


def _with_networks(
    batches: Iterator[FeatureBatch], classifier: ProductClassifier, data: Path
) -> Iterator[FeatureBatch]:
    """The batches with the scores of the champion's own networks, which read texts and images as they were written."""
    files = ImageFiles(data / "raw" / "images")
    chunks = read_table_chunks(data / "interim" / f"merged_{TRAIN}.csv", size=CHUNK_ROWS)
    for batch, chunk in zip(batches, chunks, strict=True):  # of the same rows, as both are read in the same chunks
        products = chunk.loc[batch.table.index]
        texts = zip(products["designation"], products["description"], strict=True)
        images = map(usable_image_bytes, image_paths(products, files))
        yield replace(batch, finetuned=finetuned_scores(classifier.networks, texts, images))


def is_unseen(products: pd.DataFrame, seen: pd.DataFrame) -> BoolArray:
    """For each product, whether a model trained on the products `seen` saw neither it nor a near-duplicate.

    Args:
        products: productid, imageid, group (see `FeatureSet.metadata`).
        seen: productid, imageid.
    """
    is_seen = is_among(products, seen)
    group = products["group"].to_numpy()
    unseen: BoolArray = ~is_seen & ~np.isin(group, group[is_seen])
    return unseen


def is_among(products: pd.DataFrame, others: pd.DataFrame) -> BoolArray:
    """For each product, whether one of the others has its productid and imageid."""
    ids, other_ids = (pd.MultiIndex.from_frame(table[ID_COLUMNS].astype("int64")) for table in (products, others))
    is_in: BoolArray = ids.isin(other_ids)
    return is_in


def are_features_of(version: Version, processed: Path) -> bool:
    """Whether the train features in this folder are those that a version was trained on."""
    inputs = trace.inputs_of_run(version.run_id)
    return all(
        path.is_file() and inputs.get(lineage.repo_relative(path)) == digest(path, "md5")
        for path in FeaturePaths.of(processed, TRAIN)
    )


def _load_champion(champion: Version, folder: Path, require_signature: str) -> ProductClassifier | None:
    """The champion's model, downloaded to a folder; None if it is not trusted or cannot be read by this code.

    Raises:
        UserError: it cannot be downloaded.
    """
    try:
        registered_model.download_model(champion, folder, require_signature)
    except UntrustedModelError as error:
        log.info("%s: comparing only on products that both were trained on", error)
        return None
    try:
        return ProductClassifier.load(folder)
    except UserError as error:
        log.info("the champion cannot be loaded (%s): comparing only on products that both were trained on", error)
        return None


def _has_same_features(classifier: ProductClassifier, params: FeatureParams) -> bool:
    """Whether the model was trained on features made by these parameters."""
    trained, fingerprints = classifier.config.features, encoder_fingerprints(params)
    same_text = (trained.lowercase, trained.strip_accents) == (params.lowercase, params.strip_accents)
    return same_text and all(
        fingerprints.get(view) == current_fingerprint(fingerprint)
        for view, fingerprint in classifier.config.encoders.items()
    )
