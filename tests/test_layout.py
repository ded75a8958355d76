"""The layers of the library and the stages' dependencies, read from the imports and dvc.yaml."""

import ast
import subprocess
from pathlib import PurePosixPath

import pytest
import yaml

from tests.support.project import ROOT

SOURCES = {
    path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
    for folder in ("src", "flows")
    for path in (ROOT / folder).rglob("*.py")
}
LIBRARY = "src/rakuten"
STAGE_SCRIPTS = {
    "ingest": "src/data/make_dataset.py",
    "features": "src/features/build_features.py",
    "finetune": "src/models/finetune_encoders.py",
    "train": "src/models/train_model.py",
    "predict": "src/models/predict_model.py",
}
SCRIPTS = {*STAGE_SCRIPTS.values(), "src/models/promote.py"}
# A room imports only from those before it, and from itself.
LAYERS = [
    "interrupts",
    "errors",
    "yaml_files",
    "config",
    "types",
    "files",
    "disk_array",
    "compute",
    "cli",
    "tracking",
    "data",
    "features",
]
LAYERS += ["evaluation", "finetuning", "models", "review", "promotion", "monitoring", "serving", "commands", "__main__"]
# Rooms that do not change what a stage writes: settings, logs, where work runs, what is recorded.
PLUMBING = {"interrupts", "errors", "yaml_files", "config", "types", "compute", "cli", "tracking", "commands"}
PIPELINE = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
STAGES = PIPELINE["stages"]
ONE_DOOR = {  # library -> where alone it is imported
    "mlflow": f"{LIBRARY}/tracking",
    "evidently": f"{LIBRARY}/monitoring/drift.py",
    "prefect": "flows",
    "distributed": f"{LIBRARY}/compute/dask.py",
    "torch": f"{LIBRARY}/finetuning",
    "transformers": f"{LIBRARY}/finetuning",
}


def imported_names(file: str) -> set[str]:
    """Dotted names that a file imports; `from a import b` counts as a and as a.b, since b may be a module."""
    names = set()
    for node in ast.walk(SOURCES[file]):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module
            assert node.level == 0, f"{file}: a relative import"
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def imported_files(file: str) -> set[str]:
    """Files of this project that a file imports."""
    candidates = set()
    for name in imported_names(file):
        path = name.replace(".", "/")
        for prefix in ("src/", ""):  # flows/ is at the root
            candidates |= {f"{prefix}{path}.py", f"{prefix}{path}/__init__.py"}
    return candidates & set(SOURCES)


def reached_files(file: str) -> set[str]:
    """The file and every file of this project that it imports, directly or not."""
    reached, pending = set(), {file}
    while pending:
        file = pending.pop()
        reached.add(file)
        pending |= imported_files(file) - reached
    return reached


def room(file: str) -> str:
    """The folder or module directly below src/rakuten that a file belongs to."""
    return PurePosixPath(file).relative_to(LIBRARY).parts[0].removesuffix(".py")


def is_within(file: str, folder: str) -> bool:
    """Whether a path is the other one or lies below it."""
    return PurePosixPath(file).is_relative_to(folder)


def library_files() -> set[str]:
    return {file for file in SOURCES if is_within(file, LIBRARY) and file != f"{LIBRARY}/__init__.py"}


def test_a_room_imports_only_rooms_before_it() -> None:
    wrong = {
        (file, other)
        for file in library_files()
        for other in imported_files(file) & library_files()
        if LAYERS.index(room(other)) > LAYERS.index(room(file))
    }
    assert not wrong


def test_the_library_imports_neither_flows_nor_a_script() -> None:
    for file in SOURCES:
        allowed = {other for other in SOURCES if is_within(other, LIBRARY) or is_within(other, "flows")} - SCRIPTS
        if is_within(file, LIBRARY):
            allowed = {other for other in allowed if is_within(other, LIBRARY)}
        assert imported_files(file) <= allowed, file


@pytest.mark.parametrize(("package", "door"), ONE_DOOR.items())
def test_a_large_dependency_has_one_door(package: str, door: str) -> None:
    users = {file for file in SOURCES if any(name.split(".")[0] == package for name in imported_names(file))}
    assert users
    assert {file for file in users if not is_within(file, door)} == set()


def test_the_four_stages_run_the_four_scripts() -> None:
    assert {name: stage["cmd"].removeprefix("python ") for name, stage in STAGES.items()} == STAGE_SCRIPTS


@pytest.mark.parametrize("script", sorted(SCRIPTS))
def test_a_script_is_quiet_on_ctrl_c_before_it_imports_anything_else_of_the_library(script: str) -> None:
    lines = (ROOT / script).read_text(encoding="utf-8").splitlines()
    after = next(number for number, line in enumerate(lines) if line.startswith("sys.path.insert"))
    assert next(line for line in lines[after + 1 :] if line).startswith("import rakuten.interrupts  # noqa: F401")


@pytest.mark.parametrize("stage", STAGE_SCRIPTS)
def test_a_stage_depends_on_all_code_that_can_change_its_result_and_on_no_other(stage: str) -> None:
    script = STAGE_SCRIPTS[stage]
    listed = {dep for dep in STAGES[stage]["deps"] if dep.startswith("src/")}
    reached = reached_files(script)
    needed = {script} | {file for file in reached & library_files() if room(file) not in PLUMBING}
    assert {file for file in needed if not any(is_within(file, dep) for dep in listed)} == set()
    assert {dep for dep in listed if not any(is_within(file, dep) for file in needed)} == set()


def test_every_stage_and_the_model_are_described() -> None:
    assert all(stage["desc"] for stage in STAGES.values())
    (model,) = PIPELINE["artifacts"].values()
    assert model["type"] == "model"
    assert model["desc"]
    written = [out for out in cached_outputs("train") if is_within(out, model["path"]) and "scores" not in out]
    assert written == [dep for dep in STAGES["predict"]["deps"] if is_within(dep, "models")]


def cached_outputs(stage: str) -> list[str]:
    """The outputs of a stage that DVC keeps; the others are in Git."""
    return [out for out in STAGES[stage]["outs"] if isinstance(out, str)]


def test_an_output_is_in_git_or_in_the_cache() -> None:
    small = {
        name: how
        for stage in STAGES.values()
        for out in stage["outs"]
        if isinstance(out, dict)
        for name, how in out.items()
    }
    assert set(small) == {"reports/data_quality.json", "reports/near_duplicates.json", "reports/decisions.json"}
    assert all(how == {"cache": False} for how in small.values())
    cached = [out for stage in STAGES for out in cached_outputs(stage)]
    tracked = subprocess.run(["git", "ls-files", "--", *cached], cwd=ROOT, capture_output=True, text=True, check=True)
    assert tracked.stdout == ""


def test_regular_expressions_are_global_variables_of_the_library() -> None:
    """`make lint-patterns` finds only those."""
    for file, tree in SOURCES.items():
        in_assignments = {
            id(node) for statement in tree.body if isinstance(statement, ast.Assign) for node in ast.walk(statement)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "re":
                is_type_or_flag = node.attr in ("Match", "Pattern") or node.attr.isupper()
                is_global = node.attr == "compile" and id(node) in in_assignments and file.startswith(LIBRARY)
                assert is_type_or_flag or is_global, f"{file}:{node.lineno}: re.{node.attr}"


def test_every_folder_of_the_library_is_a_package() -> None:
    """Otherwise it is missing from an installation that is not editable."""
    folders = {path.parent for path in (ROOT / LIBRARY).rglob("*.py")}
    assert [folder for folder in sorted(folders) if not (folder / "__init__.py").is_file()] == []
