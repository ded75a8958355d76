"""Style tokens: how a text is written, in words that the n-gram blocks can count.

Cleaning removes case, accents, punctuation and markup, which carry signal: magazines are dated and numbered, imported
toys are Capitalised With Unaccented French, books have no description, furniture has dimensions.
docs/notebook.md has the gain in score. The tokens are terms of saved models, so they must not be renamed.
"""

import math
import re

from rakuten.data.schema import MAX_TEXT
from rakuten.features.text import tag_names, unescape

FRENCH_NAME, ENGLISH_NAME, GERMAN_NAME, UNKNOWN = "french", "english", "german", "unknown"

# Frequent short words, by which a language is recognised. At equal counts the first language wins.
STOP_WORDS = {
    language: frozenset(words.split())
    for language, words in (
        (
            FRENCH_NAME,
            "le la les de des du un une et en pour avec sur dans par est ce cette vous votre qui que pas au aux son sa "
            "ses",
        ),
        (ENGLISH_NAME, "the of and in for with on is this your by to a an from you are be it at as"),
        (GERMAN_NAME, "der die das und mit für von ein eine ist im den zu auf nicht sie aus"),
    )
}
_TITLE_STOP_WORDS = STOP_WORDS[FRENCH_NAME] | STOP_WORDS[ENGLISH_NAME]
_TITLE, _DESCRIPTION = "title", "text"  # prefixes of tokens
_WORD = re.compile(r"[^\W\d_]+")
_TITLE_PATTERNS = {  # titles are cleaned: they have no two spaces in a row
    "year": re.compile(r"\b(?:1[89]\d\d|20[0-2]\d)\b"),
    "dimensions": re.compile(r"\d\s?[x*×]\s?\d", re.IGNORECASE),
    "unit": re.compile(r"\d\s?(?:cm|mm|m|ml|l|kg|g|w|v)\b", re.IGNORECASE),
    "numero": re.compile(r"\bn\s?[°º]\s?\d", re.IGNORECASE),
    "reference": re.compile(r"\d{5}$"),
    "dash": re.compile(r"\s-\s"),
}
_TITLE_MARKS = "-()[]!?/:,.;\"'&+*|°’"
_DESCRIPTION_MARKS = "•-:?!*"


def style_tokens(designation: str, description: str, raw_description: str) -> str:
    """The style tokens of a product, separated by spaces.

    Args:
        designation: the title, cleaned but with its case and accents.
        description: the description, cleaned but with its case and accents.
        raw_description: the description before cleaning, with its tags and entities.
    """
    return " ".join(
        [*_title_tokens(designation), *_description_tokens(designation, description), *_markup_tokens(raw_description)]
    )


def _title_tokens(title: str) -> list[str]:
    words = title.split()
    n_words = max(1, len(words))
    stop_words = [word for word in words if word.lower() in _TITLE_STOP_WORDS]
    tokens = [
        f"capitalised{int(5 * sum(word[:1].isupper() for word in words) / n_words)}",
        f"shouted{int(5 * sum(word.isupper() and len(word) > 1 for word in words) / n_words)}",
        f"letters{_bucket(len(title))}",
        f"words{_bucket(len(words))}",
        f"digits{int(12 * sum(char.isdigit() for char in title) / max(1, len(title)))}",
        *(f"title_{name}" for name, pattern in _TITLE_PATTERNS.items() if pattern.search(title)),
        *(f"title_u{ord(mark)}" for mark in _TITLE_MARKS if mark in title),
        *_language_tokens(_TITLE, title),
    ]
    if stop_words:
        tokens.append(f"little{int(2 * sum(word[:1].isupper() for word in stop_words) / len(stop_words))}")
    return tokens


def _description_tokens(title: str, description: str) -> list[str]:
    if not description:
        return ["undescribed"]
    tokens = [f"described{_bucket(len(description))}", *_language_tokens(_DESCRIPTION, description)]
    tokens += [f"text_u{ord(mark)}" for mark in _DESCRIPTION_MARKS if mark in description]
    if description[:1].islower():
        tokens.append("text_starts_small")
    if title and description.lower().startswith(title.lower()[:20]):
        tokens.append("text_repeats_title")
    return tokens


def _markup_tokens(raw_description: str) -> list[str]:
    entities = (("nbsp", "&nbsp"), ("apostrophe", "&#39"))
    tags = tag_names(unescape(raw_description[:MAX_TEXT]))
    return [
        *(f"entity_{name}" for name, entity in entities if entity in raw_description),
        *(f"tag_{name}" for name in sorted(tags)),
    ]


def _language_tokens(prefix: str, text: str) -> list[str]:
    words = [word.lower() for word in _WORD.findall(text)]
    if not words:
        return [f"{prefix}_wordless"]
    counts = {language: sum(word in stop_words for word in words) for language, stop_words in STOP_WORDS.items()}
    best = max(counts, key=lambda language: counts[language])
    return [
        f"{prefix}_{best if counts[best] else UNKNOWN}",
        f"{prefix}_{'ascii' if text.isascii() else 'accented'}",
    ]


def title_language(style: str) -> str:
    """The title's language, from a product's style tokens: french, english, german or unknown."""
    return _parse_language(_TITLE, style)


def description_language(style: str) -> str:
    """The description's language, from a product's style tokens; the title's if that is unknown."""
    language = _parse_language(_DESCRIPTION, style)
    return language if language != UNKNOWN else title_language(style)


def _parse_language(prefix: str, style: str) -> str:
    tokens = set(style.split())
    return next((language for language in STOP_WORDS if f"{prefix}_{language}" in tokens), UNKNOWN)


def _bucket(size: int) -> int:
    """A number or length on a logarithmic scale."""
    return int(1.5 * math.log2(size + 1))
