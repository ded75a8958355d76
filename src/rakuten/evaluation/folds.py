"""How rows are split: into folds that share no near-duplicates, and into shards of the same composition."""

import warnings

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedKFold

from rakuten.errors import UserError
from rakuten.types import IntArray


def assign_folds(metadata: pd.DataFrame, y: IntArray, n_folds: int, seed: int) -> IntArray:
    """Fold number of each row, stratified by code; rows of one group are in one fold.

    The distinct titles are split, each under the lowest of its codes: a title with two codes is rare. Then each group
    of near-duplicates goes to the fold of one of its titles. scikit-learn's StratifiedGroupKFold balances groups row by
    row instead, which takes a minute at full size. The same rows in another order get the same folds.

    Args:
        metadata: title_hash and group; see `FeatureSet.metadata`.
        y: the prdtypecode of each row.

    Raises:
        UserError: there are fewer distinct titles than folds, or a fold is left without rows.
    """
    title, group = metadata["title_hash"].to_numpy(), metadata["group"].to_numpy()
    order = np.lexsort((y, title))
    titles, first = np.unique(title[order], return_index=True)
    if len(titles) < n_folds:
        raise UserError(f"train.folds is {n_folds} but there are only {len(titles)} distinct titles; lower it")
    code = y[order][first]
    # A class smaller than the number of folds is missing from some; ingest warns of it. If every class is that small,
    # scikit-learn refuses, and there is nothing to stratify by.
    if np.unique(code, return_counts=True)[1].max() < n_folds:
        code = np.zeros_like(code)
    fold = np.empty(len(code), dtype=np.int64)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class in y", UserWarning)
        splitter = StratifiedKFold(n_folds, shuffle=True, random_state=seed)
        for number, (_, held_out) in enumerate(splitter.split(code, code)):
            fold[held_out] = number
    fold_of_row: IntArray = fold[np.searchsorted(titles, group)]  # a group is named by the hash of one of its titles
    if len(np.unique(fold_of_row)) < n_folds:
        raise UserError(f"train.folds is {n_folds} but nearly all titles are near-duplicates; lower it")
    return fold_of_row


def assign_shards(n_rows: int, n_shards: int, seed: int) -> IntArray:
    """Shard number of each row, for shards of equal size.

    Of every `n_shards` consecutive rows each shard gets one, in a random order: a table that is sorted, or that
    alternates between classes, still gives shards with the same shares of each class.
    """
    runs = np.tile(np.arange(n_shards), (-(-n_rows // n_shards), 1))
    shard_of_row: IntArray = np.random.default_rng(seed).permuted(runs, axis=1).ravel()[:n_rows]
    return shard_of_row
