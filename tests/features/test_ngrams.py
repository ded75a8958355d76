"""Word and character n-grams, against scikit-learn's TF-IDF."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix, hstack
from sklearn.feature_extraction.text import TfidfVectorizer

from rakuten.features.ngrams import (
    TOKEN_PATTERN,
    NgramBlock,
    NgramVectorizer,
    TfidfWeighter,
    count_ngrams,
    fit_vocabulary,
    remap_columns,
    select_columns,
)

TITLES = ["piscine ronde 360 cm", "piscine a bulles", "roman d occasion", "roman policier", "bache de piscine", ""]
TABLE = pd.DataFrame({"designation_clean": TITLES, "description_clean": ["", "", "un roman", "", "solide", ""]})
WORDS = NgramBlock(("designation_clean",), False, "word", (1, 2), 1000, 1.0)
CHARS = NgramBlock(("description_clean",), False, "char_wb", (2, 4), 1000, 0.5)


def fit(rows: list[int], *blocks: NgramBlock, table: pd.DataFrame = TABLE) -> NgramVectorizer:
    """The vectorizer of these blocks, fitted on some rows of a table."""
    terms, idf = [], []
    for block in blocks:
        matrix, all_terms = count_ngrams(table, block)
        frequency = np.bincount(matrix[rows].indices, minlength=len(all_terms))
        vocabulary = fit_vocabulary(block, frequency, len(rows))
        terms.append(all_terms[vocabulary.kept].tolist())
        idf.append(vocabulary.idf)
    return NgramVectorizer(blocks, terms, idf)


def test_it_equals_sklearns_tfidf() -> None:
    expected = TfidfVectorizer(ngram_range=(1, 2), token_pattern=TOKEN_PATTERN, sublinear_tf=True).fit_transform(TITLES)
    assert np.allclose(fit([0, 1, 2, 3, 4, 5], WORDS).transform(TABLE).toarray(), expected.toarray(), atol=1e-6)


def test_a_vectorizer_of_some_rows_equals_one_fitted_on_their_texts() -> None:
    train_rows, held_out = [0, 2, 3], [1, 4, 5]
    expected = TfidfVectorizer(ngram_range=(1, 2), token_pattern=TOKEN_PATTERN, sublinear_tf=True)
    expected.fit([TITLES[row] for row in train_rows])
    vectorizer = fit(train_rows, WORDS)
    assert vectorizer.terms[0] == expected.get_feature_names_out().tolist()
    actual = vectorizer.transform(TABLE.iloc[held_out]).toarray()
    assert np.allclose(actual, expected.transform([TITLES[row] for row in held_out]).toarray(), atol=1e-6)


def test_counts_and_texts_give_the_same_features() -> None:
    blocks, rows = (WORDS, CHARS), list(range(len(TABLE)))
    vectorizer = fit(rows, *blocks)
    counts = []
    for block, terms in zip(blocks, vectorizer.terms, strict=True):
        matrix, all_terms = count_ngrams(TABLE, block)
        counts.append(select_columns(matrix, np.flatnonzero(np.isin(all_terms, terms))))
    weighted = TfidfWeighter(blocks, vectorizer.idf).transform(csr_matrix(hstack(counts, format="csr")))
    assert (weighted != vectorizer.transform(TABLE)).nnz == 0


def test_unknown_terms_are_ignored() -> None:
    vectorizer = fit(list(range(len(TABLE))), WORDS, CHARS)
    features = vectorizer.transform(TABLE.assign(designation_clean="ronde inconnue ronde", description_clean=""))
    assert set(features.indices.tolist()) == {vectorizer.terms[0].index("ronde")}


def test_each_block_has_its_weight_as_norm() -> None:
    features = fit(list(range(len(TABLE))), WORDS, CHARS).transform(TABLE)
    norms = np.sqrt(features.power(2).sum(axis=1)).A1
    assert norms == pytest.approx([1, 1, 1.25**0.5, 1, 1.25**0.5, 0])


def test_max_features_keeps_the_terms_of_highest_document_frequency() -> None:
    assert fit([0, 1, 2, 3, 4, 5], WORDS._replace(max_features=2)).terms == (["piscine", "roman"],)


def test_document_frequency_counts_rows_and_not_occurrences() -> None:
    table = pd.DataFrame({"designation_clean": ["bleu bleu bleu", "vert", "vert"]})
    assert fit([0, 1, 2], WORDS._replace(max_features=1), table=table).terms == (["vert"],)


def test_terms_of_equal_frequency_are_kept_in_alphabetical_order() -> None:
    table = pd.DataFrame({"designation_clean": ["d c b a"]})
    assert fit([0], WORDS._replace(ngram_range=(1, 1), max_features=2), table=table).terms == (["a", "b"],)


def test_many_terms_of_equal_frequency_are_kept_in_alphabetical_order() -> None:
    """As many as a sort that is not stable would bring out of order."""
    rng = np.random.default_rng(0)
    frequency = rng.choice([1, 2], 5000)
    kept = fit_vocabulary(WORDS._replace(max_features=4000), frequency, 9).kept
    frequent, rare = np.flatnonzero(frequency == 2), np.flatnonzero(frequency == 1)
    assert kept.tolist() == sorted([*frequent, *rare[: 4000 - len(frequent)]])


def test_repeated_terms_count_by_their_logarithm() -> None:
    titles = ["roman roman roman policier", "roman", "policier policier"]
    table = pd.DataFrame({"designation_clean": titles})
    expected = TfidfVectorizer(ngram_range=(1, 2), token_pattern=TOKEN_PATTERN, sublinear_tf=True).fit_transform(titles)
    assert np.allclose(fit([0, 1, 2], WORDS, table=table).transform(table).toarray(), expected.toarray(), atol=1e-6)


def test_terms_of_other_rows_are_not_kept() -> None:
    assert fit([5], WORDS).terms == ([],)


def test_a_column_without_words_gives_no_features() -> None:
    empty = TABLE.assign(description_clean="")
    vectorizer = fit(list(range(len(TABLE))), WORDS, CHARS, table=empty)
    assert vectorizer.terms[1] == []
    assert vectorizer.transform(TABLE).shape == (6, len(vectorizer.terms[0]))


def test_a_block_that_cannot_be_counted_is_an_error() -> None:
    with pytest.raises(ValueError, match="ngram_range"):
        count_ngrams(TABLE, WORDS._replace(ngram_range=(3, 2)))


def test_columns_are_joined() -> None:
    both = WORDS._replace(columns=("designation_clean", "description_clean"), ngram_range=(1, 1))
    assert fit([2], both).terms[0] == ["d", "occasion", "roman", "un"]


def test_digits_can_be_masked() -> None:
    masked = WORDS._replace(mask_digits=True, ngram_range=(1, 1))
    assert fit([0], masked).terms[0] == ["000", "cm", "piscine", "ronde"]


def test_a_feature_has_a_name() -> None:
    table = pd.DataFrame({"designation_clean": ["bleu vif"], "style": ["words3"]})
    blocks = [
        NgramBlock(("designation_clean",), False, "word", (1, 2), 9, 1.0),
        NgramBlock(("style",), False, "word", (1, 1), 9, 1.0),
    ]
    vectorizer = fit([0], *blocks, table=table)
    assert vectorizer.get_feature_names(range(4)) == [
        ("designation_clean", "word", "bleu"), ("designation_clean", "word", "bleu vif"),
        ("designation_clean", "word", "vif"), ("style", "word", "words3"),
    ]  # fmt: skip


def test_a_block_is_made_from_params() -> None:
    block = NgramBlock.from_dict({
        "columns": ["designation_clean"], "mask_digits": False, "analyzer": "word", "ngram_range": [1, 2],
        "max_features": 1000, "weight": 1.0,
    })  # fmt: skip
    assert block == WORDS


def test_a_stored_block_has_the_names_of_the_first_model_format() -> None:
    stored = json.loads(json.dumps(CHARS.to_stored()))
    assert stored == {
        "columns": ["description_clean"], "mask_digits": False, "analyzer": "char_wb", "shortest": 2, "longest": 4,
        "limit": 1000, "weight": 0.5,
    }  # fmt: skip
    assert NgramBlock.from_stored(stored) == CHARS


def test_columns_are_renumbered_and_dropped() -> None:
    counts = csr_matrix(np.array([[1, 2, 3, 4], [0, 5, 0, 6]], dtype=np.float32))
    remapped = remap_columns(counts, np.array([1, -1, 3, 4]), 6)
    assert remapped.toarray().tolist() == [[0, 1, 0, 3, 4, 0], [0, 0, 0, 0, 6, 0]]
    assert select_columns(counts, np.array([1, 3])).toarray().tolist() == [[2, 4], [5, 6]]
