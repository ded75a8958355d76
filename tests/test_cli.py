import argparse
import errno
import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rakuten import cli
from rakuten.config import PARAMS, ROOT, SOURCE, Params
from rakuten.errors import UserError
from tests.support.project import environment


@pytest.fixture(autouse=True)
def no_dotenv(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the environment becomes is undone; a .env in this tree is not read."""
    monkeypatch.setattr(cli, "load_env", lambda: None)
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))


def run(command: Callable[[argparse.Namespace], str], *argv: str) -> int:
    return cli.run_command("stage", command, argparse.ArgumentParser(), argv)


def raising(error: BaseException) -> Callable[[argparse.Namespace], str]:
    def command(_: argparse.Namespace) -> str:
        raise error

    return command


def test_a_command_ends_with_its_closing_line_and_the_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(lambda _: "3 rows read") == 0
    assert re.fullmatch(r"INFO stage: 3 rows read \(\d+\.\d s\)\n", capsys.readouterr().err)


def test_without_a_closing_line_nothing_is_logged(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(lambda _: "") == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (UserError("X.csv: line 3:\n  broken"), "ERROR stage: X.csv: line 3: broken\n"),
        (PermissionError(13, "Permission denied", "models/x"), "ERROR stage: models/x: Permission denied\n"),
        (KeyError("a"), "ERROR stage: unexpected KeyError: 'a' (add --debug for the traceback)\n"),
    ],
)
def test_an_error_is_one_line(error: Exception, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(raising(error)) == 1
    assert capsys.readouterr().err == line


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(raising(UserError("no")), "--debug") == 1
    assert "Traceback" in capsys.readouterr().err


def test_stopping_is_no_error_of_the_program(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(raising(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err == "ERROR stage: stopped by the user\n"


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
def test_sigterm_ends_a_command_like_ctrl_c(capsys: pytest.CaptureFixture[str]) -> None:
    """What the command has opened is closed: temporary files are removed, a run of MLflow is ended."""
    closed = []

    def command(_: argparse.Namespace) -> str:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            return "never"
        finally:
            closed.append(signal.getsignal(signal.SIGTERM))

    assert run(command) == 143
    assert capsys.readouterr().err == "ERROR stage: stopped by SIGTERM\n"
    assert closed == [signal.SIG_DFL]  # the second one ends the process at once
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
def test_a_handler_of_sigterm_that_is_there_stays() -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        run(lambda _: str(signal.getsignal(signal.SIGTERM)))
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
def test_ctrl_c_while_a_script_imports_shows_no_traceback() -> None:
    code = "import rakuten.interrupts; raise KeyboardInterrupt"
    done = subprocess.run([sys.executable, "-c", code], env=environment(ROOT), capture_output=True, text=True)
    assert done.stderr == "ERROR: stopped by the user\n"
    assert done.returncode == -signal.SIGINT
    code = "import rakuten.interrupts; raise ValueError('seen')"
    done = subprocess.run([sys.executable, "-c", code], env=environment(ROOT), capture_output=True, text=True)
    assert "Traceback" in done.stderr
    assert "ValueError: seen" in done.stderr


def test_processes_of_a_command_import_the_library_of_this_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    """First of all, and once."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["/another/src", str(SOURCE)]))
    run(lambda _: "")
    assert os.environ["PYTHONPATH"].split(os.pathsep) == [str(SOURCE), "/another/src"]


def test_a_stage_gets_the_parameters_and_its_paths(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    calls: list[tuple[Params, Path, Path]] = []

    def stage(params: Params, raw: Path, out: Path) -> str:
        calls.append((params, raw, out))
        return "done"

    params = tmp_path / "params.yaml"
    params.write_text(PARAMS.read_text(encoding="utf-8").replace("seed: 42", "seed: 7"), encoding="utf-8")
    paths = {"raw": ROOT / "data" / "raw", "out": ROOT / "out"}
    assert cli.run_stage("ingest", stage, paths, ["--out", "/elsewhere", "--params", str(params)]) == 0
    ((given, raw, out),) = calls
    assert (given.seed, raw, out) == (7, ROOT / "data" / "raw", Path("/elsewhere"))
    assert "INFO ingest: done (" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("running", "recorded", "is_told"),
    [("ingest", "ingest", True), ("ingest", "train", False), (None, "ingest", False)],
)
def test_a_stage_of_dvc_that_fails_says_how_its_last_results_come_back(
    running: str | None,
    recorded: str,
    is_told: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """DVC deletes the results of a stage before it runs it."""

    def stage(params: Params) -> str:
        raise UserError("no data")

    (tmp_path / "dvc.lock").write_text(f"stages: {{{recorded}: {{}}}}\n", encoding="utf-8")
    monkeypatch.setattr(cli, "DVC_LOCK", tmp_path / "dvc.lock")
    monkeypatch.delenv("DVC_STAGE", raising=False)
    if running:
        monkeypatch.setenv("DVC_STAGE", running)
    assert cli.run_stage("ingest", stage, {}, []) == 1
    error, *hint = capsys.readouterr().err.splitlines()
    assert error == "ERROR ingest: no data"
    assert [line[:30] for line in hint] == (["WARNING ingest: DVC deleted the"[:30]] if is_told else [])
    assert not is_told or "`dvc checkout`" in hint[0]


def test_the_help_of_a_stage_shows_default_paths_from_the_root(capsys: pytest.CaptureFixture[str]) -> None:
    def stage(params: Params, raw: Path) -> str:
        """Read the raw files."""
        raise AssertionError

    with pytest.raises(SystemExit):
        cli.run_stage("ingest", stage, {"raw": ROOT / "data" / "raw"}, ["--help"])
    text = capsys.readouterr().out
    assert "Read the raw files." in text
    assert "default: data/raw" in text


def test_progress_is_plain_lines_without_a_terminal(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "LOG_PROGRESS_SECONDS", 0)
    with caplog.at_level(logging.INFO):
        assert list(cli.progress("abc", 3, "letters")) == ["a", "b", "c"]
    assert [record.getMessage() for record in caplog.records] == [f"letters: {done} of 3" for done in (1, 2, 3)]


def test_progress_is_a_bar_on_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert list(cli.progress("abc", 3, "letters")) == ["a", "b", "c"]
    assert "letters" in capsys.readouterr().err


def test_a_full_disk_is_named_with_its_folder(capsys: pytest.CaptureFixture[str]) -> None:
    def command(_: argparse.Namespace) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    assert cli.run_command("a name", command, argparse.ArgumentParser(), []) == 1
    error = capsys.readouterr().err
    assert re.search(r"ERROR a name: the disk is full: free some space in /\S+, then run this again", error)


def test_a_full_disk_is_named_with_the_folder_of_the_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    def command(_: argparse.Namespace) -> str:
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path / ".a.partial"))

    assert cli.run_command("a name", command, argparse.ArgumentParser(), []) == 1
    assert f"the disk is full: free some space in {tmp_path}, then run" in capsys.readouterr().err


def test_an_error_before_logging_is_set_up_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def load_env() -> None:
        raise UserError(".env: not UTF-8")

    monkeypatch.setattr(cli, "load_env", load_env)
    assert cli.run_command("a name", lambda _: "never", argparse.ArgumentParser(), []) == 1
    assert capsys.readouterr().err == "ERROR a name: .env: not UTF-8\n"
