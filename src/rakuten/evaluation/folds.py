"""How rows are split: into folds that share no title, and into shards of the same composition."""

import warnings

import numpy as np
from sklearn.model_selection import StratifiedKFold

from rakuten.errors import UserError
from rakuten.types import HashArray, IntArray


def assign_folds(group: HashArray, y: IntArray, n_folds: int, seed: int) -> IntArray:
    """Fold number of each row, stratified by code; rows of one group are in one fold.

    The distinct groups are split, each under the lowest of its codes: a title with two codes is rare. scikit-learn's
    StratifiedGroupKFold balances groups row by row instead, which takes a minute at full size. The same rows in another
    order get the same folds.

    Args:
        group: see `feature_set.title_groups`.
        y: the prdtypecode of each row.

    Raises:
        UserError: there are fewer distinct titles than folds.
    """
    order = np.lexsort((y, group))
    groups, first = np.unique(group[order], return_index=True)
    if len(groups) < n_folds:
        raise UserError(f"train.folds is {n_folds} but there are only {len(groups)} distinct titles; lower it")
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
    fold_of_row: IntArray = fold[np.searchsorted(groups, group)]
    return fold_of_row


def assign_shards(n_rows: int, n_shards: int, seed: int) -> IntArray:
    """Shard number of each row, for shards of equal size.

    Of every `n_shards` consecutive rows each shard gets one, in a random order: a table that is sorted, or that
    alternates between classes, still gives shards with the same shares of each class.
    """
    runs = np.tile(np.arange(n_shards), (-(-n_rows // n_shards), 1))
    shard_of_row: IntArray = np.random.default_rng(seed).permuted(runs, axis=1).ravel()[:n_rows]
    return shard_of_row
