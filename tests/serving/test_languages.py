import pytest

from rakuten.serving.languages import preferred_language


@pytest.mark.parametrize(
    ("accept_language", "language"),
    [
        ("", "fr"),
        ("en", "en"),
        ("en-GB", "en"),
        ("EN-us , fr ; q = 0.9", "en"),
        ("fr;q=0.5, en;q=0.6", "en"),
        ("fr, en", "fr"),
        ("de, en;q=0.1", "en"),
        ("de, it", "fr"),
        ("*, en;q=0.5", "fr"),
        ("en, *;q=0.1", "en"),
        ("en;q=0", "fr"),
        ("en;q=0, fr;q=0", "fr"),
        ("en;q=high, fr;q=0.1", "fr"),
        ("en;q=nan, fr;q=0.1", "fr"),
        ("en;q=2, fr;q=0.1", "fr"),
        ("english", "fr"),
        (",;,;q=,en", "en"),
    ],
)
def test_the_most_wanted_language_of_the_taxonomy_is_taken(accept_language: str, language: str) -> None:
    assert preferred_language(accept_language) == language
