"""Products that are nearly the same: titles that differ by a number or a word, images that differ by their encoding.

A model that was trained on one of them knows the code of the other, so folds hold them together: see
`FeatureSet.metadata`, column group. All of it takes time and memory in proportion to the number of products.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from rakuten.disk_array import Array2D, row_chunks
from rakuten.features.feature_set import LABEL_COLUMN, FeatureSet, title_hashes
from rakuten.types import BoolArray, HashArray, IntArray

# A shorter title has too little left without one word: "round pool" and "oval pool" are different products.
MIN_WORDS = 5
N_BITS = 512  # of an image's signature
BAND_BITS = 16  # bits that are compared at once
# Two images are the same from a cosine of 0.93 of their centred embeddings (docs/notebook.md), an angle of 0.38.
MAX_DIFFERENT_BITS = int(N_BITS * np.arccos(0.93) / np.pi)
WINDOW = 16  # neighbours in sorted order that a signature is compared with, in each band
KEY_PARTS = 8  # the keys of titles are sorted in so many parts, to save memory

Signatures = NDArray[np.uint16]
Pairs = NDArray[np.int64]  # n x 2, row numbers


class Fingerprints(NamedTuple):
    """What near-duplicates are found by. Row i of code, title_hash, signature and has_image belongs to product i."""

    code: IntArray  # prdtypecode; -1 without a label
    title_hash: HashArray  # see `feature_set.title_hashes`
    key_row: IntArray  # the product of each key
    key: HashArray  # see `title_keys`
    signature: Signatures  # see `image_signatures`
    has_image: BoolArray

    def followed_by(self, other: "Fingerprints") -> "Fingerprints":
        """The products of both."""
        other = other._replace(key_row=other.key_row + len(self.code))
        columns: list[NDArray[Any]] = [np.concatenate([mine, its]) for mine, its in zip(self, other, strict=True)]
        return Fingerprints(*columns)


class NearDuplicates(NamedTuple):
    """The result of `find_near_duplicates`."""

    group: HashArray  # of each train product: the lowest title hash of its group
    counts: dict[str, Any]  # as they are written to near_duplicates.json


def find_near_duplicates(train: FeatureSet, test: FeatureSet, seed: int) -> NearDuplicates:
    """The groups of train products that are nearly the same, and how many there are, also between train and test.

    Args:
        seed: of the random projections that images are compared by.
    """
    products = _fingerprints(train, train.image_embeddings, seed)
    pairs, n_train = _all_pairs(products), len(products.code)
    with_test = products.followed_by(_fingerprints(test, train.image_embeddings, seed))
    component = _components(np.concatenate(list(pairs.values())), n_train)
    group = pd.Series(products.title_hash).groupby(component).transform("min").to_numpy()
    sizes = np.bincount(component)
    codes = pd.Series(products.code).groupby(component).nunique()
    return NearDuplicates(
        group,
        {
            "train": {
                "products": int((sizes[component] > 1).sum()),
                "groups": int((sizes > 1).sum()),
                "largest_group": int(sizes.max(initial=0)),
                "groups_with_several_codes": int((codes > 1).sum()),
                **{name: len(np.unique(linked)) for name, linked in pairs.items()},
            },
            "test_like_train": {
                name: _n_test_rows_like_train(_components(linked, len(with_test.code)), n_train)
                for name, linked in _all_pairs(with_test).items()
            },
        },
    )


def _fingerprints(features: FeatureSet, centre_on: Array2D | None, seed: int) -> Fingerprints:
    """The fingerprints of a feature set; the embeddings of images are centred on the mean of `centre_on`."""
    chunks = [_text_fingerprints(chunk) for chunk in features.table_chunks()]
    code, title_hash, row, key = (np.concatenate(column) for column in zip(*chunks, strict=True))
    embeddings, has_image = features.image_embeddings, np.zeros(len(code), dtype=bool)
    signature = np.zeros((len(code), N_BITS // BAND_BITS), dtype=np.uint16)
    if embeddings is not None and centre_on is not None:
        signature, has_image = image_signatures(embeddings, _mean(centre_on), seed)
    return Fingerprints(code, title_hash, row, key, signature, has_image)


def _text_fingerprints(chunk: pd.DataFrame) -> tuple[IntArray, HashArray, IntArray, HashArray]:
    """The code, title_hash, key_row and key of a chunk of the table; see `Fingerprints`."""
    row, key = title_keys(chunk["designation_clean"])
    code = chunk[LABEL_COLUMN].to_numpy(dtype=np.int64) if LABEL_COLUMN in chunk else np.full(len(chunk), -1)
    return code, title_hashes(chunk), chunk.index.to_numpy(dtype=np.int64)[row], key


def title_keys(titles: pd.Series) -> tuple[IntArray, HashArray]:
    """Keys of titles; two titles that differ by numbers and at most one word have one in common.

    The keys of a title are the sum of the hashes of its words, with every number alike, and the same sum without each
    of the words. The order of the words does not count. A title of fewer than MIN_WORDS words has no key.

    Returns:
        For each key its title's position in `titles`, and the key.
    """
    words = titles.str.casefold().str.replace(r"\d+", "0", regex=True).str.split()
    n_words = words.str.len().to_numpy(dtype=np.int64)
    title = np.repeat(np.arange(len(titles)), n_words)
    hashed = pd.util.hash_array(words.explode().dropna().to_numpy(dtype=object), categorize=False)
    total = np.zeros(len(titles), dtype=np.uint64)
    np.add.at(total, title, hashed)  # modulo 2^64
    long = n_words >= MIN_WORDS
    in_long = long[title]
    rows = np.concatenate([np.flatnonzero(long), title[in_long]])
    return rows, np.concatenate([total[long], (total[title] - hashed)[in_long]])


def image_signatures(embeddings: Array2D, mean: NDArray[np.float32], seed: int) -> tuple[Signatures, BoolArray]:
    """Signatures of images: of any two, the share of bits that differ is about their embeddings' angle over pi.

    Each bit is the side of a random plane through the mean on which the embedding lies (Charikar 2002).

    Args:
        embeddings: rows x width; NaN for a product without image.
        mean: width.

    Returns:
        rows x (N_BITS / BAND_BITS), and for each row whether it has an image.
    """
    planes = np.random.default_rng(seed).standard_normal((embeddings.shape[1], N_BITS), dtype=np.float32)
    signatures = np.zeros((len(embeddings), N_BITS // BAND_BITS), dtype=np.uint16)
    has_image = np.zeros(len(embeddings), dtype=bool)
    for rows in row_chunks(len(embeddings), 4096):
        chunk = np.asarray(embeddings[rows], dtype=np.float32)
        has_image[rows] = ~np.isnan(chunk[:, 0])
        bits = np.packbits((np.nan_to_num(chunk) - mean) @ planes > 0, axis=1, bitorder="little")
        signatures[rows] = bits.view("<u2")
    return signatures, has_image


def _mean(embeddings: Array2D) -> NDArray[np.float32]:
    """The mean of the rows that are not NaN; zeros if there are none."""
    total, n_rows = np.zeros(embeddings.shape[1]), 0
    for rows in row_chunks(len(embeddings), 4096):
        chunk = np.asarray(embeddings[rows], dtype=np.float64)
        present = ~np.isnan(chunk[:, 0])
        total += chunk[present].sum(axis=0)
        n_rows += int(present.sum())
    return (total / max(n_rows, 1)).astype(np.float32)


def _all_pairs(products: Fingerprints) -> dict[str, Pairs]:
    """Pairs of products that are nearly the same, by what they have in common.

    Of many products with one title there are not all pairs, but enough to connect them.
    """
    by_key = [np.empty((0, 2), dtype=np.int64)]
    for number in range(KEY_PARTS):
        in_part = products.key % np.uint64(KEY_PARTS) == number
        by_key.append(_equal_pairs(products.key[in_part], products.key_row[in_part]))
    return {
        "same_title": _equal_pairs(products.title_hash, np.arange(len(products.title_hash))),
        "similar_title": np.concatenate(by_key),
        "same_picture": _image_pairs(products.signature, np.flatnonzero(products.has_image)),
    }


def _equal_pairs(values: HashArray, rows: IntArray) -> Pairs:
    """Rows with the same value, each with the next one."""
    order = np.lexsort((rows, values))
    equal = values[order][1:] == values[order][:-1]
    pairs = np.stack([rows[order][:-1][equal], rows[order][1:][equal]], axis=1)
    different: Pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    return different


def _image_pairs(signatures: Signatures, rows: IntArray) -> Pairs:
    """Rows whose signatures differ by at most MAX_DIFFERENT_BITS.

    Two such signatures are equal in one of the bands with a probability of 0.98 or more. Those that are equal in a
    band, and close to each other once they are sorted by it and the two after it, are compared as a whole.
    """
    signatures = signatures[rows]
    n_bands = signatures.shape[1]
    found = [np.empty((0, 2), dtype=np.int64)]
    for band in range(n_bands):
        order = np.lexsort([signatures[:, (band + offset) % n_bands] for offset in (2, 1, 0)])
        for first, second in _neighbours(order, signatures[:, band]):
            n_different = np.bitwise_count(signatures[first] ^ signatures[second]).sum(axis=1)
            near = n_different <= MAX_DIFFERENT_BITS
            found.append(np.stack([rows[first[near]], rows[second[near]]], axis=1))
    return np.unique(np.concatenate(found), axis=0)


def _neighbours(order: IntArray, band: NDArray[np.uint16]) -> Iterator[tuple[IntArray, IntArray]]:
    """Pairs of positions that are at most WINDOW apart in the order and equal in the band."""
    for distance in range(1, min(WINDOW, len(order) - 1) + 1):
        first, second = order[:-distance], order[distance:]
        equal = band[first] == band[second]
        yield first[equal], second[equal]


def _components(pairs: Pairs, n_rows: int) -> IntArray:
    """The number of each row's group; rows that pairs connect are one group."""
    graph = coo_matrix((np.ones(len(pairs), dtype=bool), (pairs[:, 0], pairs[:, 1])), shape=(n_rows, n_rows))
    component: IntArray = connected_components(graph, directed=False)[1].astype(np.int64)
    return component


def _n_test_rows_like_train(component: IntArray, n_train: int) -> int:
    return int(np.isin(component[n_train:], component[:n_train]).sum())
