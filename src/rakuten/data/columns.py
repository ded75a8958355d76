"""The header of a CSV file: where its columns are, which one is the index, and which ones need another name."""

import difflib
import re
from collections.abc import Sequence
from typing import NamedTuple

from rakuten.data.schema import INDEX

# pandas writes an index without a name as "", and reads it back as the column "Unnamed: 0".
_INDEX_NAME = re.compile(rf"{INDEX}|level_0|unnamed: 0(\.[0-9]+)*", re.IGNORECASE)
_OTHER_INDEX_NAME = re.compile("id|idx|row[ _]?id", re.IGNORECASE)  # which other tools give it
_PUNCTUATION = re.compile(r"[\W_]")
_ALIASES = {  # names that the columns often have, as `_simplified` writes them
    INDEX: ("id", "idx", "rowid"),
    "designation": ("title", "titre", "name", "productname", "libelle"),
    "description": ("desc", "texte", "text"),
    "productid": ("product", "idproduct", "idproduit"),
    "imageid": ("image", "picture", "pictureid", "idimage"),
    "prdtypecode": ("code", "label", "category", "class", "target", "producttypecode"),
}
_SIMILAR = 0.8  # difflib's ratio: "designation" and "description" have 0.64


class Header(NamedTuple):
    """What a header has of the columns that are needed."""

    positions: dict[str, int]  # of each column that is there
    fault: str  # why the file cannot be used, and all that must be changed; "" if it can
    warning: str  # about optional columns that are missing; "" if none is


def examine_header(header: Sequence[str], required: Sequence[str], optional: Sequence[str] = ()) -> Header:
    """Look for columns in a header.

    Args:
        required: columns that it must have. With INDEX among them, it must not have a second index.
        optional: columns that may be missing, but not have another spelling, such as a capital letter.
    """
    names, wanted = _names(header), (*required, *optional)
    positions = {column: names.index(column) for column in wanted if column in names}
    missing = [column for column in wanted if column not in names]
    renames = _renames(names, missing)
    is_misspelt = any(_simplified(renames.get(column, "")) == _simplified(column) for column in optional)
    indexes = _several_indexes(header) if INDEX in required else []
    repeated = [column for column in wanted if names.count(column) > 1]
    if indexes:
        fault = (
            f"several index columns ({_quoted(indexes)}): pandas adds one whenever it saves a table; delete all but "
            "the original one, which is usually the last of them, and save the file with index=False"
        )
    elif repeated:
        fault = f"several columns are named {_quoted(repeated)}; keep one of each"
    elif is_misspelt or any(column in required for column in missing):
        fault = f"{_missing(missing, renames)} (columns found: {_quoted(header)})"
    else:
        fault = ""
    return Header(positions, fault, _missing(missing, renames) if missing else "")


def _missing(missing: Sequence[str], renames: dict[str, str]) -> str:
    """Which columns are missing, and what to do about it."""
    remedies = []
    if renames:
        remedies.append("rename " + ", ".join(f"'{old}' to '{new}'" for new, old in renames.items()))
    if INDEX in missing and INDEX not in renames:
        remedies.append(
            "the index, by which X_train.csv and Y_train.csv are joined, must be the first column: take the file from "
            "the challenge again, or save it from pandas without index=False"
        )
    return "; ".join([f"no column {_quoted(missing)}", *remedies])


def _several_indexes(header: Sequence[str]) -> list[str]:
    """The names of the columns that are an index if there are several, else none.

    A join by the wrong one would give each product the label of another.
    """
    names = [name.strip() for name in header]
    found = [
        at
        for at, name in enumerate(names)
        if _INDEX_NAME.fullmatch(name) or _OTHER_INDEX_NAME.fullmatch(name) or not any(names[: at + 1])
    ]
    is_certain = any(not _OTHER_INDEX_NAME.fullmatch(names[at]) for at in found)
    return [header[at] for at in found] if is_certain and len(found) > 1 else []


def _names(header: Sequence[str]) -> list[str]:
    """The names of a header's columns; INDEX where the challenge's files have none."""
    return [INDEX if name == "Unnamed: 0" or (at == 0 and not name) else name for at, name in enumerate(header)]


def _renames(names: Sequence[str], missing: Sequence[str]) -> dict[str, str]:
    """For each missing column the name that it probably has in the file."""
    free = {_simplified(name): name for name in names if _simplified(name) and name not in _ALIASES}
    found: dict[str, str] = {}
    for is_name_of in (_is_spelling, _is_alias, _is_similar):
        for column in missing:
            match = next((name for name in free if is_name_of(name, column)), None)
            if column not in found and match is not None:
                found[column] = free.pop(match)
    return {column: found[column] for column in missing if column in found}


def _is_spelling(name: str, column: str) -> bool:
    return name == _simplified(column)


def _is_alias(name: str, column: str) -> bool:
    return name in _ALIASES.get(column, ())


def _is_similar(name: str, column: str) -> bool:
    return bool(difflib.get_close_matches(column, [name], 1, _SIMILAR))


def _simplified(name: str) -> str:
    return _PUNCTUATION.sub("", name).casefold()


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names))
