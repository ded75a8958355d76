"""Catalogues to test on: a sample drawn once, and a small one written by hand to be broken."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from src.data.sample import write_catalogue

ROOT = Path(__file__).resolve().parents[1]

X_TRAIN = """\
,designation,description,productid,imageid
0,Piscine gonflable,<p>Avec pompe</p>,11,21
1,Roman policier,,12,22
2,Pompe de piscine,"Filtre, 400 W",13,23
3,Recueil de poèmes,,14,24
"""
Y_TRAIN = """\
,prdtypecode
0,2583
1,2705
2,2583
3,2705
"""
X_TEST = """\
,designation,description,productid,imageid
4,Bâche à bulles,,15,25
5,,,16,26
"""


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 + 60 synthetic products with pictures. Read only."""
    folder = tmp_path_factory.mktemp("sample")
    write_catalogue(300, 60, 7, folder)
    return folder


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """A sound catalogue of 4 + 2 products, without pictures, to break."""
    folder = tmp_path / "raw"
    (folder / "images" / "image_train").mkdir(parents=True)
    for name, text in (("X_train.csv", X_TRAIN), ("Y_train.csv", Y_TRAIN), ("X_test.csv", X_TEST)):
        (folder / name).write_text(text, encoding="utf-8", newline="\n")
    return folder


@pytest.fixture
def run_script() -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Run a script of the project with this Python: `run_script("src/data/make_dataset.py", "--raw", raw)`."""

    def run(script: str, *arguments: object, cwd: Path = ROOT, **more: object) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, str(ROOT / script), *map(str, arguments)]
        return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, **more)  # type: ignore[call-overload, no-any-return]

    return run


@pytest.fixture
def clone(tmp_path: Path) -> Callable[[str], Path]:
    """Copies of the project as Git sees it, changes not committed included, each a repository of its own."""

    def make(name: str) -> Path:
        folder = tmp_path / name
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT, capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        for file in filter(None, listed.split("\0")):
            if (ROOT / file).is_file():
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / file, folder / file)
        git(folder, "init", "--quiet", "--initial-branch=main")
        git(folder, "add", "--all")
        git(folder, "commit", "--quiet", "--message", "as tested")
        return folder

    return make


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.com"]
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()
