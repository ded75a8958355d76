"""The product type codes, as data/taxonomy.csv lists them: their names, their parents, and codes merged into others.

A row with a prdtypecode names a code. A row without one names the parent of its column `parent`. A code that was merged
into another keeps its row: its old labels become the other code wherever labels are read, and a model that was trained
before the merger can still be read.
"""

import re
import sysconfig
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Literal, NamedTuple

import pandas as pd

from rakuten.config import SOURCE, TAXONOMY
from rakuten.data.columns import examine_header
from rakuten.data.schema import INTEGER_PATTERN, normalise_id
from rakuten.data.tables import read_records
from rakuten.errors import UserError

Language = Literal["fr", "en"]
LANGUAGES: tuple[Language, ...] = ("fr", "en")
DEFAULT_LANGUAGE: Language = "fr"  # of tables and plots, and of a reader who asks for neither
CODE_COLUMNS = ("prdtypecode", "predicted")  # of tables of labels and predictions
COLUMNS = ("prdtypecode", *LANGUAGES, "parent", "merged_into")
_KEY = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


class Names(NamedTuple):
    """What a code or a parent is called."""

    fr: str
    en: str


@dataclass(frozen=True)
class Taxonomy:
    """The codes and their parents. Rakuten publishes no names for the codes: the wording is ours."""

    names: Mapping[int, Names]  # of every code, those merged into another included
    parents: Mapping[str, Names]  # by key, such as "books"
    parent_of: Mapping[int, str]  # code -> key of its parent; codes without a parent are not there
    merged_into: Mapping[int, int]  # code that was merged -> the code that its products have now

    @property
    def codes(self) -> frozenset[int]:
        """The codes that a product can have: all but those merged into another."""
        return frozenset(self.names) - frozenset(self.merged_into)

    def label(self, code: int, language: Language = DEFAULT_LANGUAGE) -> str:
        """The code's name, or "" for a code that is not there: a model may be older or newer than the taxonomy."""
        return getattr(self.names[code], language) if code in self.names else ""

    def parent_label(self, key: str, language: Language = DEFAULT_LANGUAGE) -> str:
        """The parent's name, or "" for a key that is not there."""
        return getattr(self.parents[key], language) if key in self.parents else ""

    def follow(self, label: str) -> str:
        """The code that products with a label have now: another one if its code was merged, else the label itself.

        Args:
            label: any text, with `schema.normalise_id` applied.
        """
        return self._followed.get(label, label)

    def follow_code(self, code: int) -> int:
        """The same for a code as a number."""
        return self.merged_into.get(code, code)

    def follow_codes(self, table: pd.DataFrame) -> pd.DataFrame:
        """A table with the codes in its columns of CODE_COLUMNS, numbers or missing, replaced by those of today.

        Labels and predictions alike: a model that was trained before a merger still predicts the merged code.
        """
        columns = [name for name in CODE_COLUMNS if name in table]
        return table.assign(**{name: table[name].replace(dict(self.merged_into)) for name in columns})

    @cached_property
    def _followed(self) -> dict[str, str]:
        return {str(code): str(target) for code, target in self.merged_into.items()}

    @classmethod
    def read(cls, path: Path) -> "Taxonomy":
        """Read a taxonomy.

        Raises:
            UserError: there is no such file, it is no CSV, or a row is wrong: a code that is no whole number or there
                twice, a missing name, a parent without a row, a merger into a code that is missing or merged itself.
        """
        if not path.is_file():
            raise UserError(f"{path}: no such file; get it back with `git checkout -- data/taxonomy.csv`")
        rows = list(_read_rows(path))
        codes = {int(row.code): row for row in rows if row.code}
        return cls(
            names={code: Names(row.fr, row.en) for code, row in codes.items()},
            parents={row.parent: Names(row.fr, row.en) for row in rows if not row.code},
            parent_of={code: row.parent for code, row in codes.items() if row.parent},
            merged_into={code: int(row.merged_into) for code, row in codes.items() if row.merged_into},
        )


class _Row(NamedTuple):
    line: int
    code: str  # "" in the row of a parent
    fr: str
    en: str
    parent: str
    merged_into: str


def _read_rows(path: Path) -> Iterable[_Row]:
    """The rows of the file, checked."""
    records = read_records(path)
    header = examine_header(next(records)[1], COLUMNS)
    if header.fault:
        raise UserError(f"{path}: line 1: {header.fault}")
    rows = []
    for line, record in records:
        code, fr, en, parent, merged_into = (record[header.positions[name]].strip() for name in COLUMNS)
        rows.append(_Row(line, normalise_id(code), fr, en, parent, normalise_id(merged_into)))
    parents = {row.parent for row in rows if not row.code}
    merged_into_by_code = {row.code: row.merged_into for row in rows if row.code}
    first_line: dict[str, int] = {}
    for row in rows:
        fault = _cell_fault(row) or _reference_fault(row, parents, merged_into_by_code)
        if not fault and (first := first_line.setdefault(row.code or row.parent, row.line)) != row.line:
            name, value = ("prdtypecode", row.code) if row.code else ("parent", f"{row.parent!r}")
            fault = f"{name}: {value} is on line {first} already; remove one of the rows"
        if fault:
            raise UserError(f"{path}: line {row.line}, column {fault}")
    return rows


def _cell_fault(row: _Row) -> str:
    """The first cell that is wrong by itself: its column, and what is wrong; "" if none is."""
    for name, code in (("prdtypecode", row.code), ("merged_into", row.merged_into)):
        if code and not INTEGER_PATTERN.fullmatch(code):
            return f"{name}: {code!r} is not a whole number"
    for language in LANGUAGES:
        if not getattr(row, language):
            return f"{language}: the name is missing"
    if row.parent and not _KEY.fullmatch(row.parent):
        return f"parent: {row.parent!r} is not a key of small letters, digits and hyphens, such as video-games"
    if not row.code and not row.parent:
        return "prdtypecode: the row has neither a code nor, as the row of a parent, the parent's key"
    return ""


def _reference_fault(row: _Row, parents: set[str], merged_into: Mapping[str, str]) -> str:
    """The first cell that names another row wrongly: its column, and what is wrong; "" if none does."""
    target = row.merged_into
    if row.parent and row.parent not in parents:
        return (
            f"parent: no row names the parent {row.parent!r}; add one with an empty prdtypecode, "
            f"{row.parent} in this column, and its names"
        )
    if not target:
        return ""
    if not row.code:
        return "merged_into: a parent is not merged; leave this empty, and change the parent of its codes"
    if target == row.code:
        return f"merged_into: {target} is the code itself"
    if target not in merged_into:
        return f"merged_into: there is no code {target}"
    if merged_into[target]:
        return f"merged_into: {target} was merged into {merged_into[target]} itself; write the code that is left"
    return ""


def taxonomy_file() -> Path:
    """Where this code's taxonomy is: in its tree, beside the package in a version of MLflow's, or as installed."""
    folder = Path(__file__).resolve().parents[2]
    if folder == SOURCE:
        return TAXONOMY
    beside = folder / TAXONOMY.name
    return beside if beside.is_file() else Path(sysconfig.get_path("data"), "share", "rakuten", TAXONOMY.name)


@cache
def current_taxonomy() -> Taxonomy:
    """The taxonomy of this code, read once in each process.

    Raises:
        UserError: see `Taxonomy.read`.
    """
    return Taxonomy.read(taxonomy_file())


def label_of(code: int, language: Language = DEFAULT_LANGUAGE) -> str:
    """The code's name in the current taxonomy, or "" if it is not there."""
    return current_taxonomy().label(code, language)
