"""Labels that are probably wrong: the model doubts them, or products that are nearly the same have different ones.

The model's doubts are found by confident learning on out-of-fold probabilities (Northcutt et al. 2021).
"""

import warnings

import numpy as np
import pandas as pd
from cleanlab.filter import find_label_issues

from rakuten.data.taxonomy import label_of
from rakuten.evaluation.folds import assign_shards
from rakuten.evaluation.out_of_fold import OutOfFold
from rakuten.features.feature_set import FeatureSet
from rakuten.types import FloatArray, HashArray, IntArray


def label_issues_table(features: FeatureSet, out_of_fold: OutOfFold, shard_rows: int, seed: int) -> pd.DataFrame:
    """Products whose label is doubted, the least probable label first.

    Args:
        out_of_fold: of the rows of `features`.
        shard_rows: rows that are examined at once; more rows are split into shards, which bounds the memory.

    Returns:
        productid, imageid, prdtypecode, label, suggested_prdtypecode, suggested_label, probability (of the given
        label), suggested_probability, designation_clean, reason (model, near-duplicate, or both), and near_duplicate:
        the productid of a near-duplicate that has another code, the suggested one unless the model suggests another.
    """
    y, classes = out_of_fold.y, out_of_fold.classes
    n_shards = -(-len(y) // shard_rows)
    shard_of_row = assign_shards(len(y), n_shards, seed)
    shards = [np.flatnonzero(shard_of_row == shard) for shard in range(n_shards)]
    doubted = np.concatenate([shard[_doubted_rows(y[shard], out_of_fold.proba[shard])] for shard in shards])
    other = near_duplicate_with_other_code(features.metadata["group"].to_numpy(), y)
    rows = np.union1d(doubted, np.flatnonzero(other >= 0))
    by_model, by_near_duplicate = np.isin(rows, doubted), other[rows] >= 0
    suggested = np.where(by_model, out_of_fold.y_pred[rows], y[other[rows]])
    proba, numbers = out_of_fold.proba[rows], np.arange(len(rows))
    given_proba, suggested_proba = proba[numbers, y[rows]], proba[numbers, suggested]
    # Ties are broken by row number, so that they do not depend on how a platform sorts.
    order = np.lexsort((rows, given_proba.round(6)))
    titles = features.take_table(rows, ["designation_clean"])["designation_clean"].to_numpy()
    products = features.metadata.iloc[rows[order]]
    productid = features.metadata["productid"].astype("str")
    near_duplicate = np.where(by_near_duplicate, productid.iloc[other[rows]], "")
    reason = np.select([by_model & by_near_duplicate, by_model], ["both", "model"], "near-duplicate")
    given_code, suggested_code = classes[y[rows[order]]], classes[suggested[order]]
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
            "reason": reason[order],
            "near_duplicate": near_duplicate[order],
        }
    )


def near_duplicate_with_other_code(group: HashArray, y: IntArray) -> IntArray:
    """For each product that has no more near-duplicates with its own code than with another: a row of the other code.

    Args:
        group: see `FeatureSet.metadata`.
        y: class column of each product.

    Returns:
        The first row of the group with the most frequent other code; -1 for all other products.
    """
    products = pd.DataFrame({"group": group, "y": y})
    other = np.full(len(y), -1)
    in_conflict = products.groupby("group")["y"].transform("nunique") > 1
    for _, members in products[in_conflict].groupby("group"):
        rows, columns = members.index.to_numpy(), members["y"].to_numpy()
        counts = members["y"].value_counts().sort_index()
        for column in counts.index:
            others = counts.drop(column)
            if others.max() >= counts[column]:
                other[rows[columns == column]] = rows[columns == others.idxmax()][0]
    return other


def _doubted_rows(y: IntArray, proba: FloatArray) -> IntArray:
    """Numbers of the rows whose label is doubted."""
    if len(np.unique(y)) < 2:  # there is no other label
        return np.array([], dtype=np.int64)
    with warnings.catch_warnings():
        # The warning is about small classes, whose issues may be missed; ingest warns of small classes.
        warnings.filterwarnings("ignore", "May not flag all label issues", UserWarning)
        rows = find_label_issues(y, proba, return_indices_ranked_by="self_confidence", n_jobs=1)
    return np.asarray(rows, dtype=np.int64)
