"""Text cleaning. Training, prediction and serving all call `clean_text`.

The time grows in proportion to the text, whatever it holds: tests/features/test_linear_time.py.
"""

import html
import re
import unicodedata
from functools import lru_cache

from ftfy import TextFixerConfig, fix_text

from rakuten.data.schema import MAX_TEXT

_ELEMENT_NAMES = """
    a abbr acronym address applet area article aside audio b base basefont bdi bdo bgsound big blink blockquote body br
    button canvas caption center cite code col colgroup data datalist dd del details dfn dialog dir div dl dt em embed
    fieldset figcaption figure font footer form frame frameset h1 h2 h3 h4 h5 h6 head header hgroup hr html i iframe img
    input ins kbd label legend li link main map mark marquee menu meta meter nav nobr noframes noscript object ol
    optgroup option output p param picture pre progress q rp rt ruby s samp script search section select slot small
    source span strike strong style sub summary sup svg table tbody td template textarea tfoot th thead time title tr
    track tt u ul var video wbr
"""  # of HTML, obsolete ones too; other words in angle brackets are text
_ELEMENTS = frozenset(_ELEMENT_NAMES.split())
_OFFICE_PREFIXES = frozenset(("m", "o", "st1", "v", "w", "x"))  # of elements such as <o:p>, in text pasted from Word
# A name is followed by an attribute with a value or by nothing: "<Table basse>" is text.
_TAG = re.compile(r"</?([a-z][a-z0-9]*)(:[a-z]+)?(?:\s[^<>=]*=[^<>]*|\s*(?:/\s*)?)>", re.IGNORECASE)
_DECLARATION = re.compile(r"<!(?:doctype\b|\[|--)[^<>]*>", re.IGNORECASE)
_HIDDEN_START = re.compile(r"<(!--|script\b|style\b)", re.IGNORECASE | re.ASCII)
_HIDDEN_END = {
    "!--": re.compile("-->"),
    "script": re.compile(r"</script\s*>", re.IGNORECASE | re.ASCII),
    "style": re.compile(r"</style\s*>", re.IGNORECASE | re.ASCII),
}
_TAG_END = re.compile(">")
_LONG_REFERENCE = re.compile(r"&#[0-9]{8,}")  # no character has a number of more than seven digits
# Unicode Standard Annex 15, stream-safe text: more combining characters in a row are in no language, and putting them
# into canonical order takes the square of their number.
_MAX_COMBINING = 30
_NOT_LATIN_RUN = re.compile("[\u0300-\U0010ffff]{31}")
# Of Unicode's category Cf, those that text copied from a page, a spreadsheet or a chat holds inside its words: soft
# hyphens, zero-width spaces and joiners, byte order marks, marks of direction. Nobody sees them, but they split a word.
_INVISIBLE = re.compile("[\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff]")
_FIXES = TextFixerConfig(unescape_html=False, explain=False, normalization=None)
_MAX_ROUNDS = 8  # each round undoes one level of escaping; real text takes one or two


def clean_text(text: str, *, lowercase: bool, strip_accents: bool) -> str:
    """Plain text of a title or a description.

    HTML tags are removed and entities decoded, also if they are escaped twice; other words in angle brackets are kept;
    mojibake is repaired by ftfy; characters that nobody sees are removed, the others normalised to NFKC; every run of
    white space becomes one space.
    Cleaning a text twice gives the same as cleaning it once. Only the first MAX_TEXT characters are read, and at most
    as many returned.
    """
    text = text[:MAX_TEXT]
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


def unescape(text: str) -> str:
    """`html.unescape`, also for numbers of more digits than Python parses: it raises ValueError over 4,300."""
    return html.unescape(_LONG_REFERENCE.sub(_shorten_reference, text))


def _shorten_reference(reference: re.Match[str]) -> str:
    """A shorter reference to the same character, or to none as before."""
    return "&#" + (reference[0].removeprefix("&#").lstrip("0")[:8] or "0")


def tag_names(text: str) -> set[str]:
    """The names of the elements whose tags are in a text, in lower case; "o" for Office's "o:p"."""
    return {tag[1].lower() for tag in _TAG.finditer(text) if _is_element(tag)}


def _is_element(tag: re.Match[str]) -> bool:
    return tag[1].lower() in (_OFFICE_PREFIXES if tag[2] else _ELEMENTS)


def _remove_tag(tag: re.Match[str]) -> str:
    return " " if _is_element(tag) else tag[0]


def _is_plain(text: str) -> bool:
    """Whether cleaning can change only case and white space. Such texts are common and skip the slow steps."""
    return _is_printable_ascii(text) and "&" not in text and "<" not in text


def _is_printable_ascii(text: str) -> bool:
    return text.isascii() and text.isprintable()


def _clean_once(text: str, lowercase: bool, strip_accents: bool) -> str:
    text = unescape(text)
    if "<" in text:
        text = _TAG.sub(_remove_tag, _DECLARATION.sub(" ", _remove_hidden(text)))
    # A soft hyphen may be half of mojibake ("Ã" and it are "í"), so ftfy goes first. Both steps may bring combining
    # characters together, so they are limited again.
    text = _limit_combining(_INVISIBLE.sub("", _fix_mojibake(_limit_combining(text))))
    text = unicodedata.normalize("NFKC", text)[:MAX_TEXT]  # one character can become eighteen
    if strip_accents:
        decomposed = unicodedata.normalize("NFKD", text)
        unaccented = "".join(char for char in decomposed if not unicodedata.combining(char))
        text = unicodedata.normalize("NFKC", unaccented)
    if lowercase:
        text = text.lower()
    return " ".join(text.split())


def _remove_hidden(text: str) -> str:
    """The text with each comment, script and style sheet replaced by a space; those that never end stay."""
    kept: list[str] = []
    end = 0  # of the last one removed
    tag_ends = _ForwardSearch(_TAG_END, text)
    hidden_ends = {name: _ForwardSearch(pattern, text) for name, pattern in _HIDDEN_END.items()}
    for start in _HIDDEN_START.finditer(text):
        if start.start() < end:
            continue
        name = start[1].lower()
        content = start if name == "!--" else tag_ends.first(start.end())
        hidden_end = content and hidden_ends[name].first(content.end())
        if hidden_end:
            kept += [text[end : start.start()], " "]
            end = hidden_end.end()
    return "".join([*kept, text[end:]])


class _ForwardSearch:
    """Finds the first match of a pattern at or after positions that only grow, and so reads the text only once.

    One regular expression with both ends of a script would read all the rest of the text for each that never ends.
    """

    def __init__(self, pattern: re.Pattern[str], text: str) -> None:
        self._pattern, self._text = pattern, text
        self._match = pattern.search(text)

    def first(self, position: int) -> re.Match[str] | None:
        """The first match that starts at or after the position; None if there is none."""
        if self._match and self._match.start() < position:
            self._match = self._pattern.search(self._text, position)
        return self._match


def _fix_mojibake(text: str) -> str:
    """The text with each line repaired by ftfy, which takes ten microseconds even for one that needs no repair."""
    lines = [line for line in text.split("\n") if line.strip()]
    return "\n".join(line if _is_printable_ascii(line) else fix_text(line, _FIXES) for line in lines)


def _limit_combining(text: str) -> str:
    """The text without the combining characters that follow _MAX_COMBINING others."""
    if not _NOT_LATIN_RUN.search(text):
        return text
    kept: list[str] = []
    n_combining = 0
    for char in text:
        # Of its decomposition: a few characters decompose to combining ones without being one.
        is_combining = unicodedata.combining(unicodedata.normalize("NFKD", char)[0])
        n_combining = n_combining + 1 if is_combining else 0
        if n_combining <= _MAX_COMBINING:
            kept.append(char)
    return "".join(kept)
