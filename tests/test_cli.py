import argparse
import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from rakuten import cli
from rakuten.errors import UserError


def run(body: Callable[[argparse.Namespace], str], *argv: str) -> int:
    return cli.run_command("stage", body, argparse.ArgumentParser(), argv)


def raising(error: BaseException) -> Callable[[argparse.Namespace], str]:
    def body(_: argparse.Namespace) -> str:
        raise error

    return body


def test_a_stage_ends_with_counts_and_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(lambda _: "3 rows read") == 0
    assert capsys.readouterr().err.startswith("INFO stage: 3 rows read in 0.")


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


def test_a_script_of_another_checkout_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = tmp_path / "src" / "data" / "make_dataset.py"
    assert cli.run_stage("ingest", str(script), lambda _: "", {}, []) == 1
    assert "pip install -e ." in capsys.readouterr().err


def test_progress_is_plain_lines_without_a_terminal(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "PLAIN_LINE_EVERY", 0)
    with caplog.at_level(logging.INFO):
        assert list(cli.progress("abc", 3, "letters")) == ["a", "b", "c"]
    assert [record.getMessage() for record in caplog.records] == [f"letters: {done} of 3" for done in (1, 2, 3)]


def test_progress_is_a_bar_on_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert list(cli.progress("abc", 3, "letters")) == ["a", "b", "c"]
    assert "letters" in capsys.readouterr().err
