"""The one cleaning of text: training, prediction and serving all call `clean_text`."""

import html
import re
import unicodedata

from ftfy import TextFixerConfig, fix_text

# A "<" opens a tag only before a letter, "/" or "!": "3 < 5" and "<3" are text.
_HIDDEN = re.compile(r"<(script|style)\b[^>]*>.*?</\1\s*>|<!--.*?-->", re.IGNORECASE | re.DOTALL)
_TAG = re.compile(r"</?[a-zA-Z!][^<>]*>")
_FIXES = TextFixerConfig(unescape_html=False, explain=False)
_ROUNDS = 8  # each round undoes one level of escaping; real text takes one or two


def clean_text(text: str, *, lowercase: bool, strip_accents: bool) -> str:
    """Plain text of a title or a description.

    HTML entities (also twice escaped) and tags go, mojibake is mended (ftfy), characters take
    their compatibility form (NFKC), and white space becomes single spaces. Cleaning what is
    clean changes nothing.
    """
    if _is_plain(text):
        return " ".join((text.lower() if lowercase else text).split())
    for _ in range(_ROUNDS):
        cleaned = _clean_once(text, lowercase, strip_accents)
        if cleaned == text:
            break
        text = cleaned
    return text


def _is_plain(text: str) -> bool:
    """Whether only case and white space can need cleaning; mending would find nothing, but takes its time."""
    return text.isascii() and text.isprintable() and "&" not in text and "<" not in text


def _clean_once(text: str, lowercase: bool, strip_accents: bool) -> str:
    text = html.unescape(text)
    if "<" in text:
        text = _TAG.sub(" ", _HIDDEN.sub(" ", text))
    text = unicodedata.normalize("NFKC", fix_text(text, _FIXES))
    if strip_accents:
        decomposed = unicodedata.normalize("NFKD", text)
        bare = "".join(char for char in decomposed if not unicodedata.combining(char))
        text = unicodedata.normalize("NFKC", bare)
    if lowercase:
        text = text.lower()
    return " ".join(text.split())
