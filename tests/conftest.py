"""Fixtures that tests of several rooms share: catalogues, clones of the project, a trained model, an API."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from filelock import FileLock

from rakuten.data.synthetic import write_catalogue
from tests.support.api import Api
from tests.support.chromium import ARGUMENTS, TIMEOUT_MS, find_chromium
from tests.support.project import ROOT, copy_project, run_in

if TYPE_CHECKING:
    from playwright.sync_api import Browser

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


TESTS = Path(__file__).parent
HEAVY_FOLDERS = ("finetuning", "flows", "integration")
HEAVY_FIXTURES = {  # projects that ran (an API and a browser need `trained`), an MLflow store
    "workshop", "finished", "trained", "store",
}  # fmt: skip
HEAVY_FILES = {  # whose tests train, need a server or a browser, start many processes or write reports
    "commands/test_doctor.py", "commands/test_remote.py", "commands/test_serve.py", "commands/test_sign.py",
    "models/test_fusion_selection.py", "models/test_score_file.py", "models/test_text_model.py",
    "models/test_training.py", "monitoring/test_drift.py", "monitoring/test_monitor.py", "promotion/test_promote.py",
    "serving/test_app.py", "serving/test_attack.py", "serving/test_hostile.py", "serving/test_image_decoder.py",
    "serving/test_page.py", "test_main.py", "test_stage_deps.py", "tracking/test_dvc_lock.py",
    "tracking/test_load_versions.py",
}  # fmt: skip


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Do not import what `make check` leaves out as a whole: that alone takes seconds."""
    if "not heavy" not in str(config.getoption("markexpr")) or not collection_path.is_relative_to(TESTS):
        return None
    path = collection_path.relative_to(TESTS).as_posix()
    return True if path in HEAVY_FILES or path in HEAVY_FOLDERS else None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what `make check` leaves out, and put the longest files first: two processes share them."""
    for item in items:
        file = item.path.relative_to(TESTS)
        is_heavy = file.parts[0] in HEAVY_FOLDERS or file.as_posix() in HEAVY_FILES
        if is_heavy or HEAVY_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker("heavy")
    order = {"integration": 0, "serving": 1, "monitoring": 1, "finetuning": 2, "promotion": 2, "models": 3}
    items.sort(key=lambda item: order.get(item.path.parent.name, 4))


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
    """Raw files of 300 + 60 synthetic products with images. Read only."""
    return once("sample", lambda folder: write_catalogue(300, 60, 7, folder))


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Valid raw files of 4 + 2 products without images, for a test to change."""
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
def finished(once: Once, workshop: Path) -> Path:
    """The workshop after its whole pipeline ran. Copy it, do not use it."""

    def make(folder: Path) -> None:
        shutil.copytree(workshop, folder, symlinks=True)
        run_in(folder, "dvc", "repro")

    return once("finished", make)


@pytest.fixture(scope="session")
def trained(once: Once, sample: Path) -> Path:
    """A project that ran whole, with default parameters; beside it trained.log, what `dvc repro` printed. Read only."""

    def make(folder: Path) -> None:
        copy_project(folder)
        shutil.copytree(sample, folder / "data" / "raw")
        folder.with_suffix(".log").write_text(run_in(folder, "dvc", "repro"), encoding="utf-8")

    return once("trained", make)


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    """A real Chromium."""
    from playwright.sync_api import expect, sync_playwright  # most tests need no browser

    chromium = find_chromium()
    if chromium is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    expect.set_options(timeout=TIMEOUT_MS)
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        yield launched
        launched.close()


@pytest.fixture(scope="session")
def api(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    server = Api(trained, tmp_path_factory.mktemp("api") / "log").wait()
    yield server
    server.stop()


@pytest.fixture
def start(trained: Path, tmp_path: Path) -> Iterator[Callable[..., Api]]:
    """Start an API with settings of its own: `start(API_QUEUE="1")`; all are stopped at the end."""
    started: list[Api] = []

    def make(project: Path = trained, **settings: str) -> Api:
        started.append(Api(project, tmp_path / f"api{len(started)}.log", **settings))
        return started[-1].wait()

    yield make
    for server in started:
        server.stop(signal.SIGKILL)
