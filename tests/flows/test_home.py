"""Where Prefect keeps its files: `flows/__init__.py`."""

import os
import subprocess
import sys
from pathlib import Path

from tests.support.project import ROOT, environment

CODE = "import flows, os; print(os.environ.get('PREFECT_HOME'))"


def import_flows(**env: str) -> "subprocess.CompletedProcess[str]":
    """Import the flows with these variables; a folder below a file can be written by nobody, root included."""
    inherited = environment(ROOT)
    inherited.pop("PREFECT_HOME", None)
    return subprocess.run([sys.executable, "-c", CODE], env=inherited | env, capture_output=True, text=True)


def test_a_home_that_is_named_but_cannot_be_written_is_one_line() -> None:
    done = import_flows(PREFECT_HOME=f"{__file__}/prefect")
    assert done.returncode == 1
    assert done.stderr == (
        f"ERROR flows: PREFECT_HOME: {__file__}/prefect cannot be written: name another folder, or unset it\n"
    )


def test_where_the_home_folder_cannot_be_written_the_project_has_it() -> None:
    done = import_flows(HOME=f"{__file__}/home")
    assert done.stdout.strip() == str(ROOT / ".dvc" / "tmp" / "prefect"), done.stderr


def test_otherwise_prefect_decides(tmp_path: Path) -> None:
    assert import_flows(HOME=str(tmp_path)).stdout.strip() == "None"
    assert import_flows(PREFECT_HOME=str(tmp_path / "a" / "b")).stdout.strip() == str(tmp_path / "a" / "b")
    assert os.access(tmp_path / "a" / "b", os.W_OK)
