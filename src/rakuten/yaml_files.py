"""YAML files, read as DVC reads them, and what is wrong with their values in the words of the file."""

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from rakuten.errors import UserError

MAX_ERRORS = 5  # that are told at once
MAX_SHOWN = 40  # characters of a value
NAME, SECTION = "name", "section"  # tags of a value that may be a word or a section, in the place of pydantic's errors
LIMITS = {  # of JSON schema
    "minimum": "of at least",
    "exclusiveMinimum": "above",
    "maximum": "of at most",
    "exclusiveMaximum": "below",
    "multipleOf": "that is a multiple of",
}
UNKNOWN_KEY = ("extra_forbidden", "invalid_key")  # pydantic's types of error
EXPONENT_PATTERN = re.compile(r"[-+]?[0-9]+(?:\.[0-9]*)?[eE][-+]?[0-9]+$")  # PyYAML asks for a match at the start

Schema = Mapping[str, Any]


class _Loader(yaml.SafeLoader):
    """Reads YAML as DVC does, which writes 1e-05 for a number and refuses a key that is there twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        first_lines: dict[str, int] = {}
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            line = key.start_mark.line + 1
            if key.value in first_lines:
                raise UserError(f"line {line}: {key.value} is there already, in line {first_lines[key.value]}")
            first_lines[key.value] = line
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", EXPONENT_PATTERN, list("-+0123456789"))


def read_yaml(path: Path) -> Any:
    """The content of a YAML file.

    Raises:
        UserError: it cannot be read, is not YAML, or a key is there twice; the message names the file and the line.
    """
    try:
        return parse_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; `git restore {path.name}` brings back the committed one") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 (byte {error.start}); save it as UTF-8") from error
    except UserError as error:
        raise UserError(f"{path}, {error}") from error


def parse_yaml(text: str) -> Any:
    """The content of the text of a YAML file.

    Raises:
        UserError: it is not YAML, or a key is there twice; the message names the line.
    """
    try:
        return yaml.load(text, _Loader)  # noqa: S506 - it is a safe loader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise UserError(f"{place}not valid YAML: {error.problem or error.context}") from error
    except yaml.reader.ReaderError as error:
        line = text[: error.position].count("\n") + 1
        raise UserError(f"line {line}: not valid YAML: {error.reason}") from error


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """What is wrong with the values of a file, in one line: each key by its dotted name, and what it may be.

    Args:
        model: what the file was validated as.
    """
    texts = _texts(error.errors(), model.model_json_schema())
    more = [f"and {len(texts) - MAX_ERRORS} more"] if len(texts) > MAX_ERRORS else []
    return "; ".join(texts[:MAX_ERRORS] + more)


def _texts(errors: Sequence[ErrorDetails], schema: Schema) -> list[str]:
    unknown = {}
    for error in errors:
        if error["type"] in UNKNOWN_KEY:
            name, _ = _find(error["loc"], schema)
            section, node = _find(error["loc"][:-1], schema)
            unknown[name] = (section, list(_resolve(node, schema)["properties"]))
    texts, meant = [], set()  # meant: names of the keys that were misspelt
    for name, (section, known) in unknown.items():
        if closest := get_close_matches(name.rpartition(".")[2], known, n=1):
            meant.add(f"{section}.{closest[0]}".lstrip("."))
            texts.append(f"{name} is unknown, did you mean {closest[0]}?")
        else:
            texts.append(f"{name} is unknown, {section or 'the file'} may have {', '.join(known)}")
    for error in errors:
        name, node = _find(error["loc"], schema)
        if error["type"] == "missing" and name not in meant:
            texts.append(f"{name} is missing, it must be {_describe(node, schema)}")
        elif error["type"] == "value_error":
            texts.append(f"{name}: {error['ctx']['error']}")
        elif error["type"] not in (*UNKNOWN_KEY, "missing"):
            texts.append(f"{name or 'the file'} must be {_describe(node, schema)}, not {_show(error['input'])}")
    return texts


def _find(place: Sequence[int | str], schema: Schema) -> tuple[str, Schema]:
    """The dotted name of the place of one of pydantic's errors, and its part of the schema (empty if unknown)."""
    names: list[str] = []
    node = schema
    for part in place:
        node = _resolve(node, schema)
        if "oneOf" in node:  # a word or a section: part is the tag of what was written
            if part == SECTION:
                node = next(option for option in node["oneOf"] if "$ref" in option)
            continue
        names.append(str(part))
        node = node["items"] if isinstance(part, int) and "items" in node else node.get("properties", {}).get(part, {})
    return ".".join(names), node


def _resolve(node: Schema, schema: Schema) -> Schema:
    """The part of the schema that a part refers to."""
    return schema["$defs"][node["$ref"].rpartition("/")[2]] if "$ref" in node else node


def _describe(node: Schema, schema: Schema) -> str:
    """What a value may be, in words."""
    node = _resolve(node, schema)
    if options := node.get("oneOf") or node.get("anyOf"):
        return _or([word for option in options for word in option.get("enum") or [_describe(option, schema)]])
    if "enum" in node:
        return _or(node["enum"])
    match node.get("type"):
        case "object":
            return f"a section with {', '.join(node['properties'])}"
        case "array":
            return f"a list{_length(node)}, each {_describe(node['items'], schema)}"
        case "integer":
            return f"a whole number{_limits(node)}"
        case "number":
            return f"a number{_limits(node)}"
        case "boolean":
            return "true or false"
        case "null":
            return "null"
        case _:
            return str(node.get("const") or node.get("description") or "text")


def _limits(node: Schema) -> str:
    texts = [f"{word} {node[limit]:.12g}" for limit, word in LIMITS.items() if limit in node]
    return " " + " and ".join(texts) if texts else ""


def _length(node: Schema) -> str:
    shortest, longest = node.get("minItems", 0), node.get("maxItems")
    if shortest == longest:
        return f" of {shortest}"
    return f" of at least {shortest}" if shortest else ""


def _or(words: Sequence[str]) -> str:
    *others, last = words
    return f"{', '.join(others)} or {last}" if others else last


def _show(value: object) -> str:
    """A value as it stands in the file, shortened."""
    match value:
        case None:
            return "empty"
        case bool():
            return str(value).lower()
        case dict():
            return "a section"
        case list():
            return f"a list of {len(value)}"
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 3]}..."
