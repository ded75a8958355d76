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
    select_columns,
)

TITLES = ["piscine ronde 360 cm", "piscine a bulles", "roman d occasion", "roman policier", "bache de piscine", ""]
TABLE = pd.DataFrame({"designation_clean": TITLES, "description_clean": ["", "", "un roman", "", "solide", ""]})
WORDS = NgramBlock(("designation_clean",), False, "word", 1, 2, 1000, 1.0)
CHARS = NgramBlock(("description_clean",), False, "char_wb", 2, 4, 1000, 0.5)


def fit(rows: list[int], *blocks: NgramBlock, table: pd.DataFrame = TABLE) -> NgramVectorizer:
    terms, idf = [], []
    for block in blocks:
        matrix, names = count_ngrams(table, block)
        kept, own = fit_vocabulary(block, np.bincount(matrix[rows].indices, minlength=len(names)), len(rows))
        terms.append(names[kept].tolist())
        idf.append(own)
    return NgramVectorizer(blocks, terms, idf)


def test_it_is_sklearns_tfidf() -> None:
    expected = TfidfVectorizer(ngram_range=(1, 2), token_pattern=TOKEN_PATTERN, sublinear_tf=True).fit_transform(TITLES)
    assert np.allclose(fit([0, 1, 2, 3, 4, 5], WORDS).transform(TABLE).toarray(), expected.toarray(), atol=1e-6)


def test_a_folds_vectorizer_knows_the_folds_texts_alone() -> None:
    seen, held_out = [0, 2, 3], [1, 4, 5]
    alone = TfidfVectorizer(ngram_range=(1, 2), token_pattern=TOKEN_PATTERN, sublinear_tf=True)
    alone.fit([TITLES[row] for row in seen])
    vectorizer = fit(seen, WORDS)
    assert vectorizer.terms[0] == alone.get_feature_names_out().tolist()
    ours = vectorizer.transform(TABLE.iloc[held_out]).toarray()
    assert np.allclose(ours, alone.transform([TITLES[row] for row in held_out]).toarray(), atol=1e-6)


def test_counted_rows_and_texts_give_the_same_features() -> None:
    blocks, rows = (WORDS, CHARS), list(range(len(TABLE)))
    vectorizer = fit(rows, *blocks)
    counts = []
    for block, terms in zip(blocks, vectorizer.terms, strict=True):
        matrix, names = count_ngrams(TABLE, block)
        counts.append(select_columns(matrix, np.flatnonzero(np.isin(names, terms))))
    weighed = TfidfWeighter(blocks, vectorizer.idf).of(csr_matrix(hstack(counts, format="csr")))
    assert (weighed != vectorizer.transform(TABLE)).nnz == 0
    stranger = TABLE.assign(designation_clean="ronde inconnue ronde")
    assert vectorizer.transform(stranger).indices.tolist()[:1] == [vectorizer.terms[0].index("ronde")]
    lengths = np.sqrt(vectorizer.transform(TABLE).power(2).sum(axis=1)).A1
    assert lengths == pytest.approx([1, 1, 1.25**0.5, 1, 1.25**0.5, 0])


def test_the_limit_keeps_the_terms_of_most_rows() -> None:
    assert fit([0, 1, 2, 3, 4, 5], WORDS._replace(limit=2)).terms == (["piscine", "roman"],)


def test_a_field_without_a_word_gives_no_features() -> None:
    empty = TABLE.assign(description_clean="")
    vectorizer = fit(list(range(len(TABLE))), WORDS, CHARS, table=empty)
    assert vectorizer.terms[1] == []
    assert vectorizer.transform(TABLE).shape == (6, len(vectorizer.terms[0]))


def test_a_block_that_cannot_be_counted_is_not_dropped_unsaid() -> None:
    with pytest.raises(ValueError, match="ngram_range"):
        count_ngrams(TABLE, WORDS._replace(shortest=3))


def test_columns_are_read_together() -> None:
    both = WORDS._replace(columns=("designation_clean", "description_clean"), longest=1)
    assert fit([2], both).terms[0] == ["d", "occasion", "roman", "un"]


def test_numbers_may_be_told_by_their_shape() -> None:
    masked = WORDS._replace(mask_digits=True, longest=1)
    assert fit([0], masked).terms[0] == ["000", "cm", "piscine", "ronde"]


def test_a_column_knows_its_ngram() -> None:
    table = pd.DataFrame({"designation_clean": ["bleu vif"], "style": ["words3"]})
    blocks = [
        NgramBlock(("designation_clean",), False, "word", 1, 2, 9, 1.0),
        NgramBlock(("style",), False, "word", 1, 1, 9, 1.0),
    ]
    vectorizer = fit([0], *blocks, table=table)
    assert vectorizer.names(range(4)) == [
        ("designation_clean", "word", "bleu"), ("designation_clean", "word", "bleu vif"),
        ("designation_clean", "word", "vif"), ("style", "word", "words3"),
    ]  # fmt: skip
