"""Style tokens, and the language that is read from them."""

import pytest

from rakuten.features.style import description_language, style_tokens, title_language


@pytest.mark.parametrize(
    ("title", "description", "raw", "expected"),
    [
        ("Gazette N° 263 Du 18/02/1909", "", "", {"title_year", "title_numero", "undescribed", "capitalised3"}),
        ("Table 120 x 60 cm", "", "", {"title_dimensions", "title_unit", "title_ascii"}),
        ("Le Château De Ma Mère", "", "", {"title_french", "title_accented", "little2"}),
        ("the silent harbour", "", "", {"title_english", "little0", "capitalised0"}),
        ("Das Blaue Haus Und Die Katze", "", "", {"title_german"}),
        ("PS4 JEU", "", "", {"shouted5", "title_unknown", "words2"}),
        ("", "", "", {"title_wordless", "letters0", "digits0"}),
        ("Lampe", "lampe de bureau", "<p>lampe&nbsp;de <B>bureau</B></p>",
         {"tag_p", "tag_b", "entity_nbsp", "text_starts_small", "text_repeats_title", "text_french"}),
        ("Lot", "<NA>", "&lt;NA&gt; <Le Petit Prince>", {"text_unknown"}),
        ("x", "L'été", "&lt;li&gt;L&#39;&eacute;t&eacute;", {"entity_apostrophe", "tag_li", "text_accented"}),
    ],
)  # fmt: skip
def test_tokens(title: str, description: str, raw: str, expected: set[str]) -> None:
    tokens = style_tokens(title, description, raw).split()
    assert expected <= set(tokens)
    assert len(tokens) == len(set(tokens))


def test_the_counter_of_words_reads_each_token_as_one_word() -> None:
    assert style_tokens("A-B (c) / d", "• x", "").replace(" ", "").replace("_", "").isalnum()


def test_the_language_of_a_title() -> None:
    assert title_language(style_tokens("Le livre de la jungle", "", "")) == "french"
    assert title_language(style_tokens("The book of the jungle", "", "")) == "english"
    assert title_language(style_tokens("Das Buch der Tiere", "", "")) == "german"
    assert title_language(style_tokens("XJ-900", "Le livre de la jungle", "")) == "unknown"
    assert title_language(style_tokens("", "", "")) == "unknown"


def test_the_language_of_a_description_or_else_of_the_title() -> None:
    assert (
        description_language(style_tokens("Le livre de la jungle", "This is the book of the jungle", "")) == "english"
    )
    assert description_language(style_tokens("Le livre de la jungle", "", "")) == "french"
    assert description_language(style_tokens("XJ-900", "5 x 7", "")) == "unknown"


def test_of_two_languages_the_more_frequent_one_wins_or_else_the_first() -> None:
    assert title_language(style_tokens("le chat and the dog", "", "")) == "english"
    assert title_language(style_tokens("the cat le chat", "", "")) == "french"


def test_no_token_is_written_for_what_is_absent() -> None:
    tokens = style_tokens("Lampe", "Une autre chose", "Une autre <chose>").split()
    assert not {"text_starts_small", "text_repeats_title", "undescribed"} & set(tokens)
    assert not [
        token for token in tokens if token.startswith(("tag_", "entity_", "little", "title_u3", "title_u4", "text_u4"))
    ]
