"""The documents: the French README has the structure of the English one, and what documents name exists."""

import re
import subprocess
from collections.abc import Iterator
from functools import cache
from itertools import groupby
from pathlib import Path

import pytest

from rakuten.__main__ import COMMANDS
from tests.support.project import ROOT

README, FRENCH_README = "README.md", "README.fr.md"
DOCUMENTS = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("**/*.md"), *(ROOT / "data").glob("**/*.md"))
)
LINE_LENGTH = 120
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CODE_SPAN = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^(#+) (.+)$", re.MULTILINE)
# Paths below these folders are in Git; those below data/, models/ and reports/ are made by the pipeline.
COMMITTED_PATH = re.compile(r"(?<![\w./-])(?:\.github|bench|deploy|docs|flows|src|tests)/[\w./*-]*[\w*/]")
TEST_NAME = re.compile(r"\btest_\w+\b(?!\.)")  # of a function, not of a file


@cache
def text_of(document: str) -> str:
    return (ROOT / document).read_text(encoding="utf-8")


def prose_of(document: str) -> str:
    """The document without its fenced code blocks."""
    return FENCE.sub("", text_of(document))


def code_of(document: str) -> list[str]:
    """Every fenced code block and every code span."""
    return [block for _, block in FENCE.findall(text_of(document))] + CODE_SPAN.findall(prose_of(document))


def named(pattern: str) -> Iterator[tuple[str, str]]:
    """(document, match of the pattern's group) for every match in the code of every document."""
    for document in DOCUMENTS:
        for code in code_of(document):
            for match in re.finditer(pattern, code):
                yield document, match.group(1)


def anchor(heading: str) -> str:
    """The anchor that GitHub gives to a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def without_comments(block: str) -> str:
    """A code block without comments, which are translated, and without the spaces before them."""
    return re.sub(r"[ \t]+#.*$", "", block, flags=re.MULTILINE)


def test_the_french_readme_has_the_headings_of_the_english_one() -> None:
    levels, french_levels = (
        [marks for marks, _ in HEADING.findall(prose_of(name))] for name in (README, FRENCH_README)
    )
    assert french_levels == levels


def test_the_french_readme_has_the_code_blocks_of_the_english_one() -> None:
    blocks, french_blocks = (
        [(language, without_comments(block)) for language, block in FENCE.findall(text_of(name))]
        for name in (README, FRENCH_README)
    )
    assert french_blocks == blocks


def test_the_french_readme_has_the_tables_and_links_of_the_english_one() -> None:
    def table_lengths(name: str) -> list[int]:
        runs = groupby(prose_of(name).splitlines(), lambda line: line.startswith("|"))
        return [len(list(lines)) for is_table, lines in runs if is_table]

    def links(name: str) -> list[str]:
        kept = [link for link in LINK.findall(prose_of(name)) if not link.startswith(("#", "README"))]
        return [link.replace(".fr.png", ".png") for link in kept]

    assert table_lengths(FRENCH_README) == table_lengths(README)
    assert links(FRENCH_README) == links(README)


@pytest.mark.parametrize("name", [README, FRENCH_README])
def test_the_page_is_shown_before_the_first_section(name: str) -> None:
    introduction = prose_of(name).partition("\n## ")[0]
    assert re.search(r"!\[[^]]+\]\(docs/images/classify(\.fr)?\.png\)", introduction)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_relative_link_leads_to_a_file_or_a_heading(document: str) -> None:
    for link in LINK.findall(prose_of(document)):
        if re.match(r"\w+://", link):
            continue
        path, _, fragment = link.partition("#")
        target = (ROOT / document).parent / path if path else ROOT / document
        assert target.exists(), link
        if fragment:
            headings = HEADING.findall(prose_of(target.resolve().relative_to(ROOT).as_posix()))
            assert fragment in {anchor(heading) for _, heading in headings}, link


def test_every_page_of_docs_is_linked_in_the_readme() -> None:
    linked = set(LINK.findall(prose_of(README)))
    assert {document for document in DOCUMENTS if document.startswith("docs/")} <= linked


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_path_of_the_project_that_is_named_exists(document: str) -> None:
    paths = {path for code in code_of(document) if "<" not in code for path in COMMITTED_PATH.findall(code)}
    paths |= set(re.findall(r"\bdocs/[\w-]+\.md", text_of(document)))
    assert {path for path in paths if not list(ROOT.glob(path.rstrip("/")))} == set()


def test_every_make_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    called = set(named(r"(?:^|(?<=[\n ]))make ([a-z][a-z-]*)"))
    assert ("README.md", "run") in called
    assert {call for call in called if call[1] not in targets} == set()


def test_every_rakuten_command_that_is_named_exists() -> None:
    called = set(named(r"(?<![\w/.-])rakuten ([a-z]+)"))
    assert ("README.md", "score") in called
    assert {call for call in called if call[1] not in COMMANDS} == set()


def test_every_python_script_and_module_that_is_named_exists() -> None:
    scripts = set(named(r"python[\d.]* ([\w./-]+\.py)\b"))
    assert ("README.md", "src/models/train_model.py") in scripts
    assert {call for call in scripts if not (ROOT / call[1]).is_file()} == set()
    modules = {call for call in named(r"python[\d.]* -m ([\w.]+)") if call[1] not in ("venv", "pip")}
    assert ("docs/notebook.md", "bench.fusion") in modules
    assert {call for call in modules if not (ROOT / f"{call[1].replace('.', '/')}.py").is_file()} == set()


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_test_that_is_named_exists(document: str) -> None:
    names = {name for code in CODE_SPAN.findall(prose_of(document)) for name in TEST_NAME.findall(code)}
    grep = ["git", "grep", "--untracked", "-hoE", r"def test_\w+", "--", "tests"]
    listed = subprocess.run(grep, cwd=ROOT, capture_output=True, text=True, check=True)
    existing = {line.removeprefix("def ") for line in listed.stdout.splitlines()}
    assert names <= existing


@pytest.mark.parametrize("document", DOCUMENTS)
def test_prose_is_wrapped(document: str) -> None:
    """Lines of tables, images and code cannot be wrapped."""
    lines = [line for line in prose_of(document).splitlines() if not line.startswith(("|", "!["))]
    assert [line for line in lines if len(line) > LINE_LENGTH] == []


def test_documents_that_must_exist_are_found() -> None:
    assert Path(README).name in DOCUMENTS
    assert {"README.fr.md", "CONTRIBUTING.md", "docs/model.md", "data/encoders/README.md"} <= set(DOCUMENTS)
