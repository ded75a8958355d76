"""Labels that are probably wrong: confident learning on out-of-fold probabilities (Northcutt et al. 2021)."""

import warnings

import numpy as np
import pandas as pd
from cleanlab.filter import find_label_issues

from rakuten.data.schema import label_of
from rakuten.evaluation.folds import assign_shards
from rakuten.evaluation.out_of_fold import OutOfFold
from rakuten.features.feature_set import FeatureSet
from rakuten.types import FloatArray, IntArray


def label_issues_table(features: FeatureSet, out_of_fold: OutOfFold, shard_rows: int, seed: int) -> pd.DataFrame:
    """Products whose label the out-of-fold model doubts, the least probable label first.

    Args:
        out_of_fold: of the rows of `features`.
        shard_rows: rows that are examined at once; more rows are split into shards, which bounds the memory.

    Returns:
        productid, imageid, prdtypecode, label, suggested_prdtypecode, suggested_label, probability (of the given
        label), suggested_probability, designation_clean.
    """
    y, y_pred, classes = out_of_fold.y, out_of_fold.y_pred, out_of_fold.classes
    n_shards = -(-len(y) // shard_rows)
    shard_of_row = assign_shards(len(y), n_shards, seed)
    shards = [np.flatnonzero(shard_of_row == shard) for shard in range(n_shards)]
    rows = np.sort(np.concatenate([shard[_doubted_rows(y[shard], out_of_fold.proba[shard])] for shard in shards]))
    proba, numbers = out_of_fold.proba[rows], np.arange(len(rows))
    given_proba, suggested_proba = proba[numbers, y[rows]], proba[numbers, y_pred[rows]]
    # Ties are broken by row number, so that they do not depend on how a platform sorts.
    order = np.lexsort((rows, given_proba.round(6)))
    titles = features.take_table(rows, ["designation_clean"])["designation_clean"].to_numpy()
    products = features.metadata.iloc[rows[order]]
    given_code, suggested_code = classes[y[rows[order]]], classes[y_pred[rows[order]]]
    return pd.DataFrame(
        {
            "productid": products["productid"].to_numpy(),
            "imageid": products["imageid"].to_numpy(),
            "prdtypecode": given_code,
            "label": [label_of(int(code)) for code in given_code],
            "suggested_prdtypecode": suggested_code,
            "suggested_label": [label_of(int(code)) for code in suggested_code],
            "probability": given_proba[order].round(6),
            "suggested_probability": suggested_proba[order].round(6),
            "designation_clean": titles[order],
        }
    )


def _doubted_rows(y: IntArray, proba: FloatArray) -> IntArray:
    """Numbers of the rows whose label is doubted."""
    if len(np.unique(y)) < 2:  # there is no other label
        return np.array([], dtype=np.int64)
    with warnings.catch_warnings():
        # The warning is about small classes, whose issues may be missed; ingest warns of small classes.
        warnings.filterwarnings("ignore", "May not flag all label issues", UserWarning)
        rows = find_label_issues(y, proba, return_indices_ranked_by="self_confidence", n_jobs=1)
    return np.asarray(rows, dtype=np.int64)
