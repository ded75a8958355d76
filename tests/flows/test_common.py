"""What the flows share: the lock of a folder, which failures are retried, DVC's errors, whose code is imported."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows import common
from flows.common import BusyError, RetryableError, dvc, dvc_environment, exclusive_lock, is_retryable
from rakuten.errors import UserError
from tests.support.project import ROOT, run_in


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that the flows take for the project."""
    monkeypatch.setattr(common, "ROOT", tmp_path)
    monkeypatch.setattr(common, "LOCK_FILE", tmp_path / ".dvc" / "tmp" / "flow.lock")
    monkeypatch.setattr(common, "HOLDER_FILE", tmp_path / ".dvc" / "tmp" / "flow.json")
    return tmp_path


def test_a_second_flow_is_refused_and_told_who_holds_the_lock(folder: Path) -> None:
    message = rf"another flow works in {folder} \(process {os.getpid()}, flow run none\)"
    with exclusive_lock(), pytest.raises(BusyError, match=message), exclusive_lock():
        pass


def test_the_lock_is_released_also_after_an_error(folder: Path) -> None:
    with pytest.raises(ZeroDivisionError), exclusive_lock():
        raise ZeroDivisionError
    assert not common.HOLDER_FILE.exists()
    with exclusive_lock():
        assert common.HOLDER_FILE.exists()


def test_a_holder_that_left_no_name_is_unknown(folder: Path) -> None:
    with exclusive_lock():
        common.HOLDER_FILE.write_text("{")
        with pytest.raises(BusyError, match="unknown process"), exclusive_lock():
            pass


class FakeState:
    """A Prefect state with a result, or the error that its task raised."""

    def __init__(self, result: object) -> None:
        self._result = result

    def result(self) -> object:
        if isinstance(self._result, BaseException):
            raise self._result
        return self._result


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (RetryableError("the network"), True),
        (UserError("a stage failed"), False),
        (BusyError("locked"), False),
        (KeyboardInterrupt(), False),
        ("a result", False),
    ],
    ids=repr,
)
def test_only_retryable_errors_are_retried(result: object, expected: bool) -> None:
    task: Any = None
    assert is_retryable(task, task, FakeState(result)) == expected  # type: ignore[arg-type]


def test_an_error_of_dvc_names_the_command_and_has_the_end_of_its_output(folder: Path) -> None:
    with pytest.raises(UserError, match=r"^dvc repro nothing failed: .*you are not inside of a DVC repository"):
        dvc("repro", "nothing")


def test_dvc_starts_this_python() -> None:
    assert dvc_environment()["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)


@pytest.mark.parametrize("script", ["flows/pipeline.py", "flows/monitor_and_retrain.py"])
def test_a_flow_script_imports_the_code_of_its_own_tree(
    clone: Callable[[str], Path], tmp_path: Path, script: str
) -> None:
    tree = clone("tree")
    code = f"import runpy; runpy.run_path({str(tree / script)!r}); import flows.common, rakuten; "
    code += "print(flows.common.__file__, rakuten.__file__)"
    other_tree = os.pathsep.join([str(ROOT), str(ROOT / "src")])
    output = run_in(tmp_path, sys.executable, "-c", code, PYTHONPATH=other_tree)
    assert output.split() == [str(tree / "flows" / "common.py"), str(tree / "src" / "rakuten" / "__init__.py")]


@pytest.mark.parametrize(("home", "own"), [("/dev/null", True), (None, False)])
def test_prefect_has_a_home_where_the_users_cannot_be_written(home: str | None, own: bool, tmp_path: Path) -> None:
    code = "import flows, prefect.settings as s; print(s.get_current_settings().home)"
    settings = {"HOME": home or str(tmp_path)}
    used = run_in(ROOT, sys.executable, "-c", code, **settings).strip().splitlines()[-1]
    assert used == str(ROOT / ".dvc" / "tmp" / "prefect" if own else tmp_path / ".prefect")
