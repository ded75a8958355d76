from pathlib import Path

import pandas as pd
import pytest

from rakuten.commands import trace as command
from rakuten.data.corrections import CORRECTIONS_FILE, REPLACED, Corrections
from rakuten.data.tables import write_table
from rakuten.tracking import server, trace


@pytest.fixture(autouse=True)
def tracked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tracking server with one run, `abc`."""
    monkeypatch.setattr(server, "check_server", lambda: None)
    monkeypatch.setattr(server, "get_client", lambda: "client")
    monkeypatch.setattr(trace, "find_training", lambda client, name: {"abc": "the run"}[name])
    monkeypatch.setattr(trace, "format_training", lambda client, run: f"all about {run}")
    monkeypatch.setattr(trace, "restore_dvc_lock", lambda run: f"dvc.lock is that of {run}")


def test_a_run_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["abc"]) == 0
    output = capsys.readouterr()
    assert (output.out, output.err) == ("all about the run\n", "")


@pytest.fixture
def corrected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Product 7 got its label by a decision; there is no review desk on this machine."""
    table = Corrections(pd.DataFrame()).outcome_table()
    table.loc[0] = ["12", "7", "8", "40", "2583", "3;5", REPLACED]
    write_table(table, tmp_path / CORRECTIONS_FILE)
    monkeypatch.setattr(command, "INTERIM", tmp_path)
    monkeypatch.setenv("REVIEW_DATABASE_URL", f"sqlite:///{tmp_path / 'none.db'}")


@pytest.mark.usefixtures("corrected")
def test_the_decisions_behind_a_train_row_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--product", "7"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "train row 12: product 7, image 8: 40 -> 2583: label replaced",
        "  decision 3: does not stand in this review desk",
        "  decision 5: does not stand in this review desk",
    ]


@pytest.mark.usefixtures("corrected")
def test_a_product_that_nobody_corrected_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--product", "8"]) == 1
    assert "no correction of product 8; its label is that of the raw files" in capsys.readouterr().err


def test_dvc_lock_is_restored_and_nothing_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["abc", "--restore-lock"]) == 0
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("INFO trace: dvc.lock is that of the run (")
