"""The regular expressions of the project: `make lint-patterns` has recheck judge what this prints.

In Python they are global variables of modules, which tests/test_layout.py sees to; in the page they are literals.
"""

import importlib
import json
import re
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any, NamedTuple

from tests.support.project import ROOT

_FLAGS = ((re.IGNORECASE, "i"), (re.MULTILINE, "m"), (re.DOTALL, "s"))
_LITERAL = re.compile(r"(?:[(,=:]|return) ?/(?![/*])((?:[^/\\\n\[]|\\.|\[(?:[^\]\\\n]|\\.)*\])+)/([a-z]*)")


class Pattern(NamedTuple):
    """A regular expression in the syntax of JavaScript, which recheck reads."""

    where: str
    source: str
    flags: str


def compiled(module: ModuleType) -> Iterator[re.Pattern[Any]]:
    """The regular expressions among a module's global variables, and in dictionaries that are."""
    for value in vars(module).values():
        for item in value.values() if isinstance(value, dict) else [value]:
            if isinstance(item, re.Pattern):
                yield item


def python_patterns() -> Iterator[Pattern]:
    """Those of every module."""
    for path in sorted((ROOT / "src" / "rakuten").rglob("*.py")):
        name = ".".join(path.relative_to(ROOT / "src").with_suffix("").parts).removesuffix(".__init__")
        for pattern in compiled(importlib.import_module(name)):
            flags = "u" + "".join(letter for flag, letter in _FLAGS if pattern.flags & flag)
            yield Pattern(name, pattern.pattern.replace("(?P<", "(?<"), flags)


def page_patterns() -> Iterator[Pattern]:
    """Those of the page's scripts."""
    for path in sorted((ROOT / "src" / "rakuten" / "serving" / "page").glob("*.js")):
        for match in _LITERAL.finditer(path.read_text(encoding="utf-8")):
            yield Pattern(path.name, match[1], match[2])


if __name__ == "__main__":
    json.dump([pattern._asdict() for pattern in (*python_patterns(), *page_patterns())], sys.stdout)
