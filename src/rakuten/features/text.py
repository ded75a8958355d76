"""Text cleaning. Training, prediction and serving all call `clean_text`."""

import html
import re
import unicodedata
from functools import lru_cache

from ftfy import TextFixerConfig, fix_text

# A "<" opens a tag only before a letter, "/" or "!": "3 < 5" and "<3" are text.
_HIDDEN = re.compile(r"<(script|style)\b[^>]*>.*?</\1\s*>|<!--.*?-->", re.IGNORECASE | re.DOTALL)
_TAG = re.compile(r"</?[a-zA-Z!][^<>]*>")
_FIXES = TextFixerConfig(unescape_html=False, explain=False)
_MAX_ROUNDS = 8  # each round undoes one level of escaping; real text takes one or two


def clean_text(text: str, *, lowercase: bool, strip_accents: bool) -> str:
    """Plain text of a title or a description.

    HTML tags are removed and entities decoded, also if they are escaped twice; mojibake is repaired by ftfy; characters
    are normalised to NFKC; every run of white space becomes one space. Cleaning a text twice gives the same as cleaning
    it once.
    """
    if _is_plain(text):
        return " ".join((text.lower() if lowercase else text).split())
    for _ in range(_MAX_ROUNDS):
        cleaned = _clean_once(text, lowercase, strip_accents)
        if cleaned == text:
            break
        text = cleaned
    return text


@lru_cache(maxsize=64)  # of one product, style tokens and a fine-tuned network both need it
def clean_cased_text(text: str) -> str:
    """`clean_text` with case and accents kept."""
    return clean_text(text, lowercase=False, strip_accents=False)


def _is_plain(text: str) -> bool:
    """Whether cleaning can change only case and white space. Such texts are common and skip the slow steps."""
    return text.isascii() and text.isprintable() and "&" not in text and "<" not in text


def _clean_once(text: str, lowercase: bool, strip_accents: bool) -> str:
    text = html.unescape(text)
    if "<" in text:
        text = _TAG.sub(" ", _HIDDEN.sub(" ", text))
    text = unicodedata.normalize("NFKC", fix_text(text, _FIXES))
    if strip_accents:
        decomposed = unicodedata.normalize("NFKD", text)
        unaccented = "".join(char for char in decomposed if not unicodedata.combining(char))
        text = unicodedata.normalize("NFKC", unaccented)
    if lowercase:
        text = text.lower()
    return " ".join(text.split())
