import numpy as np
import pandas as pd
import pytest

from rakuten.data.text_hashes import TextHashes, find_sorted, hash_texts


def collect(*chunks: list[str]) -> TextHashes:
    hashes = TextHashes()
    for chunk in chunks:
        hashes.add(pd.Series(chunk, dtype="str"))
    return hashes


def test_equal_texts_have_equal_hashes_in_any_chunk() -> None:
    hashes = collect(["a", "b"], [], ["b", ""])
    assert len(hashes) == 4
    assert hashes.unique().tolist() == sorted(hash_texts(pd.Series(["a", "b", ""])).tolist())


def test_a_union_has_each_hash_once() -> None:
    union = collect(["a", "b"]).union(collect(["b", "c", "c"]))
    assert union.tolist() == sorted(hash_texts(pd.Series(["a", "b", "c"])).tolist())


def test_no_text_gives_no_hash() -> None:
    assert len(TextHashes().unique()) == 0
    assert len(TextHashes().union(TextHashes())) == 0


@pytest.mark.parametrize("sorted_values", [[], [5], [1, 5, 9]])
def test_values_are_found_exactly_if_they_occur(sorted_values: list[int]) -> None:
    values = np.arange(11)
    positions, is_found = find_sorted(values, np.array(sorted_values, dtype=np.int64))
    assert values[is_found].tolist() == sorted_values
    assert positions[is_found].tolist() == list(range(len(sorted_values)))
