"""How a seller writes, as words: what cleaning takes away tells classes apart too.

Magazines are dated and numbered, imported toys are Capitalised With Unaccented French, books
have no description, furniture has sizes. Each trait is one word, so the n-gram blocks count
them as they count words. docs/model.md has what they add.
"""

import html
import math
import re


def _words(words: str) -> frozenset[str]:
    return frozenset(words.split())


FRENCH = _words(
    "le la les de des du un une et en pour avec sur dans par est ce cette vous votre qui que pas au aux son sa ses"
)
ENGLISH = _words("the of and in for with on is this your by to a an from you are be it at as")
GERMAN = _words("der die das und mit für von ein eine ist im den zu auf nicht sie aus")

FRENCH_NAME, ENGLISH_NAME, GERMAN_NAME, UNKNOWN = "french", "english", "german", "unknown"
_WORD = re.compile(r"[^\W\d_]+")
_TAG = re.compile(r"</?\s*([a-zA-Z][a-zA-Z0-9]*)")
_TITLE_PATTERNS = {
    "year": re.compile(r"\b(?:1[89]\d\d|20[0-2]\d)\b"),
    "dimensions": re.compile(r"\d\s*[x*×]\s*\d", re.IGNORECASE),
    "unit": re.compile(r"\d\s*(?:cm|mm|m|ml|l|kg|g|w|v)\b", re.IGNORECASE),
    "numero": re.compile(r"\bn\s?[°º]\s*\d", re.IGNORECASE),
    "reference": re.compile(r"\d{5,}$"),
    "dash": re.compile(r"\s-\s"),
}
_TITLE_MARKS = "-()[]!?/:,.;\"'&+*|°’"
_DESCRIPTION_MARKS = "•-:?!*"


def style_tokens(designation: str, description: str, raw_description: str) -> str:
    """Traits of a product's text, separated by spaces.

    Args:
        designation: the title, cleaned but with its case and accents.
        description: the description, likewise.
        raw_description: the description as the seller wrote it, with its tags and entities.
    """
    return " ".join(
        [*_title_tokens(designation), *_description_tokens(designation, description), *_markup_tokens(raw_description)]
    )


def _title_tokens(title: str) -> list[str]:
    words = title.split()
    count = max(1, len(words))
    little = [word for word in words if word.lower() in FRENCH | ENGLISH]
    traits = [
        f"capitalised{int(5 * sum(word[:1].isupper() for word in words) / count)}",
        f"shouted{int(5 * sum(word.isupper() and len(word) > 1 for word in words) / count)}",
        f"letters{_bucket(len(title))}",
        f"words{_bucket(len(words))}",
        f"digits{int(12 * sum(char.isdigit() for char in title) / max(1, len(title)))}",
        *(f"title_{name}" for name, pattern in _TITLE_PATTERNS.items() if pattern.search(title)),
        *(f"title_u{ord(mark)}" for mark in _TITLE_MARKS if mark in title),
        *_language_tokens("title", title),
    ]
    if little:
        traits.append(f"little{int(2 * sum(word[:1].isupper() for word in little) / len(little))}")
    return traits


def _description_tokens(title: str, text: str) -> list[str]:
    if not text:
        return ["undescribed"]
    traits = [f"described{_bucket(len(text))}", *_language_tokens("text", text)]
    traits += [f"text_u{ord(mark)}" for mark in _DESCRIPTION_MARKS if mark in text]
    if text[:1].islower():
        traits.append("text_starts_small")
    if title and text.lower().startswith(title.lower()[:20]):
        traits.append("text_repeats_title")
    return traits


def _markup_tokens(raw: str) -> list[str]:
    entities = [f"entity_{name}" for name, mark in (("nbsp", "&nbsp"), ("apostrophe", "&#39")) if mark in raw]
    return entities + [f"tag_{name}" for name in sorted({tag.lower() for tag in _TAG.findall(html.unescape(raw))})]


def _language_tokens(where: str, text: str) -> list[str]:
    words = [word.lower() for word in _WORD.findall(text)]
    if not words:
        return [f"{where}_wordless"]
    hits = {
        name: sum(word in known for word in words)
        for name, known in ((FRENCH_NAME, FRENCH), (ENGLISH_NAME, ENGLISH), (GERMAN_NAME, GERMAN))
    }
    best = max(hits, key=lambda name: hits[name])
    return [
        f"{where}_{best if hits[best] else UNKNOWN}",
        f"{where}_{'ascii' if text.isascii() else 'accented'}",
    ]


def title_language(traits: str) -> str:
    """The title's language by what `style` wrote of it: french, english, german, or unknown."""
    return _parse_language("title_", traits)


def description_language(traits: str) -> str:
    """The product's language: the description's, which has more words, or else the title's."""
    found = _parse_language("text_", traits)
    return found if found != UNKNOWN else title_language(traits)


def _parse_language(where: str, traits: str) -> str:
    told = (trait.removeprefix(where) for trait in traits.split() if trait.startswith(where))
    return next((trait for trait in told if trait in (FRENCH_NAME, ENGLISH_NAME, GERMAN_NAME)), UNKNOWN)


def _bucket(size: int) -> int:
    return int(1.5 * math.log2(size + 1))
