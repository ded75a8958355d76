"""Training on a few products in memory."""

from collections.abc import Mapping
from pathlib import Path
from tempfile import mkdtemp

from rakuten.config import Params, load_params
from rakuten.evaluation.out_of_fold import OutOfFold
from rakuten.features.feature_set import FeatureBatch, FeatureSet
from rakuten.models.classifier import ProductClassifier
from rakuten.models.training import fit

PARAMS = load_params()


def fit_batch(
    batch: FeatureBatch,
    folder: Path,
    params: Params = PARAMS,
    encoder_fingerprints: Mapping[str, str] | None = None,
    none: FeatureBatch | None = None,
) -> tuple[ProductClassifier, OutOfFold]:
    """Train on a batch whose table has prdtypecode; intermediate results go to a new folder in `folder`."""
    features, scratch = FeatureSet.from_batch(batch), Path(mkdtemp(dir=folder))
    return fit(features, params, encoder_fingerprints or {}, scratch, none=none)
