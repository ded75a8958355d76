"""What the champion says of the challenger's products that it never saw: there both can be compared, too."""

import logging
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from rakuten.config import PROCESSED, FeatureParams, Params
from rakuten.data.tables import table_chunks
from rakuten.errors import UserError
from rakuten.evaluation.metrics import Flags, groups
from rakuten.features.embedding import pick, read_embeddings
from rakuten.files import digest
from rakuten.models.classifier import ProductClassifier, Products
from rakuten.models.pyfunc_model import encoder_identities
from rakuten.tracking import lineage, trace
from rakuten.tracking import registered_model as registered
from rakuten.tracking.registry import Version

log = logging.getLogger(__name__)

KEYS = ["productid", "imageid"]
NUMBERS = ("designation_len", "description_len", "has_description", "has_image", "prdtypecode")
PARTS = ("features.csv", "texts.npy", "images.npy")


def champion_on_new(
    challenger: Version, champion: Version, seen: pd.DataFrame, params: Params, processed: Path = PROCESSED
) -> pd.DataFrame:
    """The champion's predictions of the products that the challenger was trained on and the champion was not.

    Args:
        seen: the champion's own products: productid, imageid.

    Returns:
        productid, imageid, prdtypecode, predicted; no rows where the challenger's features are not in `processed`,
        or were made otherwise than the champion's, or its files are of another format.
    """
    none = pd.DataFrame(columns=[*KEYS, "prdtypecode", "predicted"])
    sources = [processed / f"train_{part}" for part in PARTS]
    inputs = trace.inputs_of(challenger.run_id)
    if any(not path.is_file() or inputs.get(lineage.shown(path)) != digest(path, "md5") for path in sources):
        log.info("the challenger's features are not here: compared on the products of both alone")
        return none
    rows = unseen(sources[0], seen)
    if not rows.any():
        return none
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model"
        registered.fetch(champion, model)
        try:
            classifier = ProductClassifier.load(model)
        except UserError as error:
            log.info("the champion cannot be asked (%s): compared on the products of both alone", error)
            return none
    if not _alike(classifier, params.features):
        log.info("the champion's features were made otherwise: compared on the products of both alone")
        return none
    embedded = [read_embeddings(path, len(rows)) for path in sources[1:]]
    found = []
    for part in table_chunks(sources[0], NUMBERS):
        new = part[rows[part.index]]
        products = Products(new, *(None if each is None else pick(each, new.index.to_numpy()) for each in embedded))
        predicted = classifier.predict(products)["predicted_prdtypecode"].astype("int64")
        found.append(new[[*KEYS, "prdtypecode"]].assign(predicted=predicted))
    return pd.concat(found)


def unseen(table: Path, seen: pd.DataFrame) -> Flags:
    """Which rows of the features a model has not seen that was trained on these products, nor their titles."""
    ids = pd.MultiIndex.from_frame(seen[KEYS].astype("int64"))
    known, titles = [], []
    for part in table_chunks(table):
        known.append(pd.MultiIndex.from_frame(part[KEYS].astype("int64")).isin(ids))
        titles.append(groups(part))
    there, title = np.concatenate(known), np.concatenate(titles)
    rows: Flags = ~there & ~np.isin(title, title[there])
    return rows


def _alike(classifier: ProductClassifier, features: FeatureParams) -> bool:
    """Whether today's features mean to this model what its own did."""
    theirs, here = classifier.features, encoder_identities(features)
    cleaned = (theirs.lowercase, theirs.strip_accents) == (features.lowercase, features.strip_accents)
    return cleaned and all(here.get(view) == identity for view, identity in classifier.settings.encoders.items())
