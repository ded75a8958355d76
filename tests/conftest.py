"""Catalogues to test on: a sample drawn once, and a small one written by hand to be broken."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from rakuten.data.synthetic import write_catalogue
from tests.support.project import ROOT, copy_project, run_in

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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first: they are dealt out to two processes, which should end together."""
    order = {"flows": 0, "stack": 0, "serving": 1, "monitoring": 1, "model": 2}
    items.sort(key=lambda item: order.get(item.path.parent.name, 3))


Once = Callable[[str, Callable[[Path], object]], Path]


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """Make a folder once for all of pytest-xdist's processes: `once(name, make)`; the others wait for it."""
    base = tmp_path_factory.getbasetemp()
    root = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def made(name: str, make: Callable[[Path], object]) -> Path:
        folder, whole = root / name, root / f"{name}.whole"
        with FileLock(root / f"{name}.lock"):
            if not whole.exists():
                make(folder)
                whole.touch()
        return folder

    return made


@pytest.fixture(scope="session")
def sample(once: Once) -> Path:
    """300 + 60 synthetic products with pictures. Read only."""
    return once("sample", lambda folder: write_catalogue(300, 60, 7, folder))


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

    return lambda name: copy_project(tmp_path / name)


@pytest.fixture(scope="session")
def workshop(once: Once, sample: Path) -> Path:
    """A clone with a sample catalogue, quick parameters, and features made by DVC. Copy it, do not use it."""

    def make(folder: Path) -> None:
        copy_project(folder, quick=True)
        shutil.copytree(sample, folder / "data" / "raw")
        run_in(folder, "dvc", "repro", "features")

    return once("workshop", make)


@pytest.fixture(scope="session")
def trained(once: Once, sample: Path) -> Path:
    """A project that ran whole, with default parameters. Read only."""

    def make(folder: Path) -> None:
        copy_project(folder)
        shutil.copytree(sample, folder / "data" / "raw")
        run_in(folder, "dvc", "repro")

    return once("trained", make)
