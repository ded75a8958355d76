"""The structure that the design agreed on, held by the imports and the pipeline themselves."""

import ast
import re
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
SOURCES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for folder in ("src", "flows")
    for path in (ROOT / folder).rglob("*.py")
}
SCRIPTS = {
    "src/data/make_dataset.py",
    "src/features/build_features.py",
    "src/models/train_model.py",
    "src/models/predict_model.py",
}
FLOORS = ["src/errors", "src/config", "src/files", "src/scratch", "src/compute", "src/cli", "src/tracking"]
FLOORS += ["src/data", "src/features", "src/models", "src/serving", "src/monitoring", "flows"]
PIPELINE = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
# Shared plumbing: flags, paths, logs and MLflow do not change what a stage writes.
PLUMBING = {"src/cli.py", "src/compute.py", "src/scratch.py", "src/config.py", "src/errors.py"} | {
    file for file in SOURCES if file.startswith("src/tracking/")
}
ROOFS = {"src/__init__.py", "src/summary.py", "src/doctor.py", "src/remote.py"}
ROOFS |= {"src/serving/__main__.py", "src/monitoring/__main__.py"}


def imports(file: str) -> set[str]:
    """Files of this project that a file imports."""
    names = set()
    for node in ast.walk(ast.parse(SOURCES[file])):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return {f"{name.replace('.', '/')}.py" for name in names} & set(SOURCES)


def reached(file: str) -> set[str]:
    found, todo = set(), {file}
    while todo:
        file = todo.pop()
        found.add(file)
        todo |= imports(file) - found
    return found


def floor(file: str) -> int:
    return next(at for at, start in enumerate(FLOORS) if file == f"{start}.py" or file.startswith(f"{start}/"))


def test_a_room_imports_only_rooms_above_it() -> None:
    for file in SOURCES:
        if file not in ROOFS:
            below = {other for other in imports(file) if floor(other) > floor(file)}
            assert not below, f"{file} imports {below}"


def test_nothing_imports_a_script() -> None:
    assert not {(file, other) for file in SOURCES for other in imports(file) & (SCRIPTS | ROOFS - {"src/__init__.py"})}


@pytest.mark.parametrize(
    ("package", "door"),
    [
        ("mlflow", "src/tracking/"),
        ("evidently", "src/monitoring/drift.py"),
        ("prefect", "flows/"),
        ("distributed", "src/compute.py"),
    ],
)
def test_what_may_change_has_one_door(package: str, door: str) -> None:
    pattern = re.compile(rf"^\s*(import|from) {package}\b", re.MULTILINE)
    doors = [file for file, text in SOURCES.items() if pattern.search(text)]
    assert doors
    assert all(file.startswith(door) for file in doors)


def test_each_stage_depends_on_every_module_that_can_change_its_result() -> None:
    for name, stage in PIPELINE.items():
        script = stage["cmd"].removeprefix("python ")
        listed = {dep for dep in stage["deps"] if dep.endswith(".py")}
        needed = {file for file in reached(script) if not file.endswith("__init__.py")} - PLUMBING
        assert listed == needed, f"stage {name}"


def test_the_four_stages_run_the_four_scripts() -> None:
    assert list(PIPELINE) == ["ingest", "features", "train", "predict"]
    assert {stage["cmd"].removeprefix("python ") for stage in PIPELINE.values()} == SCRIPTS


def test_no_cached_output_is_in_git() -> None:
    cached = [out for stage in PIPELINE.values() for out in stage["outs"]]
    assert all(isinstance(out, str) for out in cached)
    tracked = subprocess.run(["git", "ls-files", "--", *cached], cwd=ROOT, capture_output=True, text=True, check=True)
    assert tracked.stdout == ""


def test_the_lock_begins_with_the_project_and_pins_the_rest() -> None:
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "-e ."
    pins = [line for line in lines[1:] if not line.strip().startswith("#")]
    assert pins
    assert all(re.match(r"[A-Za-z0-9_.-]+(\[[a-z0-9,-]+\])?==[^ ]+", pin) for pin in pins)


def test_modules_stay_short() -> None:
    for file, text in SOURCES.items():
        assert text.count("\n") <= (180 if file in SCRIPTS else 300), file
