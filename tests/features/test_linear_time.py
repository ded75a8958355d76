"""The time that a text takes grows in proportion to its length, whatever it holds.

The texts repeat what the regular expressions of this project and of ftfy look for, and what is hard to put into a
Unicode normal form.
"""

import time
from collections.abc import Iterator
from re import _parser  # type: ignore[attr-defined]
from typing import Any

import ftfy.chardata
import ftfy.fixes
import pandas as pd
import pytest

from rakuten.config import FeatureParams
from rakuten.data.schema import MAX_TEXT
from rakuten.data.validation import count_quality_issues
from rakuten.features import style, text
from rakuten.features.text_features import RawText, clean_product
from tests.support.patterns import compiled

SMALL, LARGE = 500, 4_000  # characters
MAX_GROWTH = 14.0  # 8 if the time is linear, 64 if it is quadratic
MIN_SECONDS = 0.01  # for the large text; what takes less is dominated by costs that do not depend on the length
ATTEMPTS = 4  # the machine may be busy
PARAMS = FeatureParams(lowercase=True, strip_accents=True, image_encoder="none", text_encoder="none")

CHARACTERS = [*"aAzé1²-' \t\n\r.&<>;#/=*°_!?\"\0\x1b\x85\xa0\u200b\ufeff\ufffd\ud83d漢한😀ﬁð"]
COMBINING = [
    "\u0301", "\u0301\u0323", "\u0323\u0301", "e\u0301", "\u0344", "\u0345", "\u0e47", "\u0f73", "\u0f71\u0f72\u0f74",
    "ｶﾞ", "ﾞ", "\u1112\u1161", "\ufdfa",
]  # fmt: skip
MOJIBAKE = ["Ã", "Ã©", "Ì\x81Ì£", "ÃƒÂ©", "â‚¬", "é\n", "é\n\n", "\x1b[1;"]
MARKUP = [
    "<a", "<a ", "<a =", "<a / ", "<a>", "< ", "</", "<!-- -->", "<script", "<script ", "<script>", "</script",
    "<script></style>", "<script><!--", "<style></script >", "&#1", "&#x1", "&#0", "&amp;", "&amp;amp;",
    "&lt;script&gt;", "&notit;", "&aaaaaaaaaaaaaaaaaaaa",
]  # fmt: skip


def literals(parsed: Any) -> Iterator[str]:
    """What each branch of a parsed regular expression looks for, with one character of each set."""
    found = ""
    for kind, value in parsed:
        match str(kind):
            case "LITERAL":
                found += chr(value)
            case "IN":
                found += member(*value[0])
            case "BRANCH":
                for branch in value[1]:
                    yield from literals(branch)
            case "SUBPATTERN" | "MAX_REPEAT" | "MIN_REPEAT":
                *others, last = literals(value[-1])
                yield from others
                found += last
    yield found


def member(kind: Any, value: Any) -> str:
    """A character of a set, given the first item of the set; none of one that is negated."""
    match str(kind):
        case "LITERAL":
            return chr(value)
        case "RANGE":
            return chr(value[0])
        case "CATEGORY":
            return {"CATEGORY_DIGIT": "1", "CATEGORY_SPACE": " ", "CATEGORY_WORD": "a"}.get(str(value), "")
    return ""


def pieces() -> list[str]:
    modules = (text, style, ftfy.chardata, ftfy.fixes)
    looked_for = {
        literal
        for module in modules
        for pattern in compiled(module)
        for literal in literals(_parser.parse(pattern.pattern))
        if literal
    }
    return [*CHARACTERS, *COMBINING, *MOJIBAKE, *MARKUP, *sorted(looked_for)]


def seconds(content: str) -> float:
    """The time that a product takes, in this thread alone."""
    text.clean_cased_text.cache_clear()
    table = pd.DataFrame([(content, content, "")], columns=["designation", "description", "image_error"])
    started = time.thread_time()
    clean_product(PARAMS, RawText("1", content, content))
    count_quality_issues(table)
    return time.thread_time() - started


def test_the_time_grows_with_the_length() -> None:
    for piece in pieces():
        small, large = ((piece * size)[:size] + "a" for size in (SMALL, LARGE))
        for _ in range(ATTEMPTS):
            took = seconds(large)
            growth = took / seconds(small)
            if took < MIN_SECONDS or growth < MAX_GROWTH:
                break
        else:
            pytest.fail(f"{piece!r} repeated: {growth:.0f} times the time for {LARGE // SMALL} times the length")


def test_the_pieces_are_those_that_the_patterns_look_for() -> None:
    assert {"<script", "-->", "</style >", "\x1b[1a", "1 x 1"} <= set(pieces()), pieces()


@pytest.mark.parametrize("content", ["\ufdfa" * MAX_TEXT, "1" * (10 * MAX_TEXT), "e\u0301" * MAX_TEXT])
def test_of_a_very_long_text_only_the_beginning_is_read(content: str) -> None:
    cleaned = clean_product(PARAMS, RawText("1", content, content))
    assert 0 < len(cleaned.designation) <= MAX_TEXT
    assert cleaned == clean_product(PARAMS, RawText("1", content[:MAX_TEXT], content[:MAX_TEXT]))
