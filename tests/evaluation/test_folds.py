import numpy as np
import pandas as pd
import pytest

from rakuten.errors import UserError
from rakuten.evaluation.folds import assign_folds, assign_shards
from rakuten.types import HashArray, IntArray


def metadata(title_hash: HashArray, group: HashArray | None = None) -> pd.DataFrame:
    return pd.DataFrame({"title_hash": title_hash, "group": title_hash if group is None else group})


@pytest.fixture(scope="module")
def repeated() -> tuple[HashArray, IntArray]:
    """400 rows of 120 titles at most: the hash of the title, and a code that depends on the title."""
    titles = np.random.default_rng(0).integers(0, 120, 400)
    return pd.util.hash_array(titles), titles % 5


def test_rows_of_one_title_are_in_the_same_fold(repeated: tuple[HashArray, IntArray]) -> None:
    group, y = repeated
    fold = pd.Series(assign_folds(metadata(group), y, 5, 42))
    assert set(fold) == set(range(5))
    assert (fold.groupby(group).nunique() == 1).all()


def test_a_title_with_two_codes_is_still_in_one_fold(repeated: tuple[HashArray, IntArray]) -> None:
    group, y = repeated
    fold = pd.Series(assign_folds(metadata(group), np.where(np.arange(400) % 7 == 0, 4, y), 5, 42))
    assert (fold.groupby(group).nunique() == 1).all()


def test_folds_depend_on_rows_and_seed_but_not_on_the_order(repeated: tuple[HashArray, IntArray]) -> None:
    group, y = repeated
    y = np.where(np.arange(400) % 7 == 0, 4, y)  # some titles with two codes
    fold = assign_folds(metadata(group), y, 5, 42)
    order = np.random.default_rng(1).permutation(len(y))
    assert (assign_folds(metadata(group[order]), y[order], 5, 42) == fold[order]).all()
    assert (assign_folds(metadata(group), y, 5, 43) != fold).any()


def test_every_fold_has_its_share_of_each_class(repeated: tuple[HashArray, IntArray]) -> None:
    group, y = repeated
    first = ~pd.Series(group).duplicated().to_numpy()
    counts = pd.crosstab(assign_folds(metadata(group), y, 5, 42)[first], y[first])
    assert (counts.max() - counts.min()).max() <= 1


def test_classes_smaller_than_the_number_of_folds_are_spread() -> None:
    group = pd.util.hash_array(np.arange(8))
    fold = assign_folds(metadata(group), np.array([1, 1, 2, 2, 3, 3, 4, 4]), 4, 0)
    assert np.bincount(fold).tolist() == [2, 2, 2, 2]


def test_one_small_class_beside_a_large_one_is_no_error() -> None:
    fold = assign_folds(metadata(pd.util.hash_array(np.arange(21))), np.array([1] * 20 + [2]), 5, 0)
    assert sorted(np.bincount(fold).tolist()) == [4, 4, 4, 4, 5]


def test_fewer_titles_than_folds_are_an_error() -> None:
    group = pd.util.hash_array(np.array([0, 0, 1]))
    with pytest.raises(UserError, match="train.folds is 3 but there are only 2 distinct titles"):
        assign_folds(metadata(group), np.array([1, 1, 2]), 3, 0)
    assert sorted(assign_folds(metadata(group), np.array([1, 1, 2]), 2, 0)[1:].tolist()) == [0, 1]  # as many are enough


def test_shards_are_of_equal_size_and_depend_on_the_seed_alone() -> None:
    shard_of_row = assign_shards(1003, 4, 1)
    assert sorted(np.bincount(shard_of_row).tolist()) == [250, 251, 251, 251]
    assert (shard_of_row == assign_shards(1003, 4, 1)).all()
    assert (shard_of_row != assign_shards(1003, 4, 2)).any()
    assert not assign_shards(7, 1, 0).any()


def test_every_shard_has_one_of_consecutive_rows_in_a_random_order() -> None:
    """So neither a sorted table nor one that alternates between classes makes a shard of one class."""
    runs = assign_shards(400, 4, 0).reshape(100, 4)
    assert (np.sort(runs, axis=1) == np.arange(4)).all()
    assert len(np.unique(runs, axis=0)) > 10


def test_near_duplicates_are_in_one_fold_and_all_other_rows_stay_where_they_are(
    repeated: tuple[HashArray, IntArray],
) -> None:
    title, y = repeated
    before = assign_folds(metadata(title), y, 5, 42)
    low = title.min()
    high = title[before != before[title == low][0]].max()  # a title of another fold
    group = np.where(title == high, low, title)
    fold = assign_folds(metadata(title, group), y, 5, 42)
    assert len(set(fold[group == low])) == 1
    assert (fold == before)[title != high].all()


def test_near_duplicates_that_leave_a_fold_empty_are_an_error() -> None:
    title = pd.util.hash_array(np.arange(6))
    with pytest.raises(UserError, match="nearly all titles are near-duplicates"):
        assign_folds(metadata(title, np.full(6, title.min())), np.array([1, 1, 1, 2, 2, 2]), 3, 0)
