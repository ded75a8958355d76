"""Products that are nearly the same are found, whatever the order of the rows; others are not."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest

from rakuten.features.feature_set import FeatureBatch, FeatureSet, title_hashes
from rakuten.features.near_duplicates import find_near_duplicates, image_signatures, title_keys
from rakuten.types import EmbeddingArray
from tests.support.features import feature_table

WIDTH = 300


def feature_set(
    titles: Sequence[str], images: EmbeddingArray | None = None, codes: Sequence[int] | None = None
) -> FeatureSet:
    table = feature_table(titles, [""] * len(titles), has_image=int(images is not None))
    if codes is not None:
        table = table.assign(prdtypecode=codes)
    return FeatureSet.from_batch(FeatureBatch(table, None, images))


def groups(titles: Sequence[str], images: EmbeddingArray | None = None) -> list[set[int]]:
    """The groups of more than one product, by row number."""
    found = find_near_duplicates(feature_set(titles, images, [10] * len(titles)), feature_set([""], None), 0)
    rows = pd.Series(range(len(titles))).groupby(found.group).agg(set)
    return sorted((group for group in rows if len(group) > 1), key=min)


def images(n_rows: int, seed: int = 0) -> EmbeddingArray:
    return np.random.default_rng(seed).standard_normal((n_rows, WIDTH)).astype(np.float16)


def turned(image: EmbeddingArray, cosine: float) -> EmbeddingArray:
    """An embedding with this cosine to another."""
    noise = np.random.default_rng(1).standard_normal(len(image))
    noise -= (noise @ image) * image / (image @ image)
    noise *= np.linalg.norm(image) / np.linalg.norm(noise)
    return (cosine * image + np.sqrt(1 - cosine**2) * noise).astype(np.float16)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("piscine gonflable ronde tortue bleue", "piscine gonflable ronde tortue verte"),  # another word
        ("piscine gonflable ronde tortue bleue", "piscine gonflable ronde tortue bleue enfant"),  # a word more
        ("lot de 6 leurres 6.8cm minnow", "lot de 12 leurres 9.5cm minnow"),  # other numbers
        ("coussin en lin pour voiture", "Pour voiture coussin en lin"),  # another order, another case
    ],
)
def test_titles_that_differ_by_numbers_or_one_word_are_near_duplicates(one: str, other: str) -> None:
    assert groups([one, "un livre ancien sur les oiseaux", other]) == [{0, 2}]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("piscine ronde", "piscine ovale"),  # too short: half of it differs
        ("jeu video neuf pc", "jeu video neuf wii"),
        ("piscine gonflable ronde tortue bleue", "piscine gonflable ronde baleine verte"),  # two words
        ("", ""),  # two products without text have nothing in common
    ],
)
def test_other_titles_are_not(one: str, other: str) -> None:
    assert groups([one, other]) == []


def test_the_same_title_is_one_however_short() -> None:
    assert groups(["piscine", "livre", "piscine"]) == [{0, 2}]


def test_near_duplicates_of_near_duplicates_are_one_group() -> None:
    words = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta"]
    assert groups([" ".join(words[:5]), " ".join(words[:6]), " ".join(words)]) == [{0, 1, 2}]


def test_an_image_that_differs_a_little_is_the_same() -> None:
    embeddings = images(400)
    embeddings[7] = turned(embeddings[300], 0.97)
    embeddings[8] = turned(embeddings[301], 0.85)
    embeddings[20] = np.nan
    embeddings[21] = np.nan  # two products without image have nothing in common
    assert groups([f"titre{number}" for number in range(400)], embeddings) == [{7, 300}]


def test_the_same_image_many_times_is_one_group() -> None:
    embeddings = images(200)
    embeddings[50:150] = embeddings[0]
    assert groups([f"titre{number}" for number in range(200)], embeddings) == [{0, *range(50, 150)}]


def test_nearly_all_similar_images_are_found() -> None:
    """Of images with a cosine of 0.95 to another; 0.98 is the least that is expected of cosines of 0.93."""
    embeddings = images(2000)
    embeddings[1000:] = [turned(image, 0.95) for image in embeddings[:1000]]
    found = groups([f"titre{number}" for number in range(2000)], embeddings)
    pairs = [group for group in found if max(group) - min(group) == 1000]
    assert len(pairs) >= 960
    assert len(found) - len(pairs) == 0


def test_a_group_is_named_by_its_lowest_title_and_does_not_depend_on_the_order() -> None:
    titles = [
        "un livre",
        "coussin en lin pour voiture",
        "coussin en soie pour voiture",
        "coussin en laine pour voiture",
    ]
    train = feature_set(titles, images(4), [10] * 4)
    group = find_near_duplicates(train, feature_set([""]), 0).group
    hashes = title_hashes(feature_table(titles, [""] * 4, has_image=0))
    assert group.tolist() == [hashes[0], *[hashes[1:].min()] * 3]
    reverse = feature_set(titles[::-1], images(4)[::-1], [10] * 4)
    assert find_near_duplicates(reverse, feature_set([""]), 0).group[::-1].tolist() == group.tolist()


def test_counts() -> None:
    train = feature_set(
        ["piscine", "piscine", "lot de 6 leurres minnow", "lot de 8 leurres minnow", "autre", "image"],
        images(6),
        [10, 10, 40, 50, 10, 10],
    )
    test_images = images(4, seed=9)
    test_images[3] = images(6)[5]
    test = feature_set(["piscine", "lot de 9 leurres minnow", "nouveau", "encore"], test_images)
    counts = find_near_duplicates(train, test, 0).counts
    assert counts == {
        "train": {
            "products": 4,
            "groups": 2,
            "largest_group": 2,
            "groups_with_several_codes": 1,
            "same_title": 2,
            "similar_title": 2,
            "same_picture": 0,
        },
        "test_like_train": {"same_title": 1, "similar_title": 1, "same_picture": 1},
    }


def test_test_products_do_not_change_the_groups() -> None:
    """They could connect two train products."""
    train = ["alpha beta gamma delta epsilon", "beta gamma delta epsilon zeta eta"]
    between = "alpha beta gamma delta epsilon zeta eta"
    without = find_near_duplicates(feature_set(train, None, [10, 10]), feature_set([""]), 0).group
    with_test = find_near_duplicates(feature_set(train, None, [10, 10]), feature_set([between]), 0).group
    assert without.tolist() == with_test.tolist()
    assert len(set(without.tolist())) == 2


def test_signatures_differ_by_the_angle() -> None:
    one = images(50).astype(np.float32)
    for cosine in (0.99, 0.8, 0.0, -1.0):
        other = np.stack([turned(image, cosine) for image in one])
        both, _ = image_signatures(np.concatenate([one, other]), np.zeros(WIDTH, dtype=np.float32), 0)
        share = np.bitwise_count(both[:50] ^ both[50:]).sum(axis=1).mean() / 512
        assert share == pytest.approx(np.arccos(cosine) / np.pi, abs=0.01)


def test_a_very_long_title_has_as_many_keys_as_words() -> None:
    rows, keys = title_keys(pd.Series(["mot " * 100_000, "court"]))
    assert len(rows) == len(keys) == 100_001
    assert set(rows.tolist()) == {0}
