from pathlib import Path

import pytest

from rakuten.commands import sync
from rakuten.errors import UserError
from rakuten.tracking import server, training_run


def test_kept_runs_are_sent_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(server, "check_server", lambda: None)
    monkeypatch.setattr(server, "redacted_uri", lambda: "http://host")
    monkeypatch.setattr(training_run, "send_pending", {tmp_path: ["a", "b"]}.get)
    assert sync.main(["--models", str(tmp_path)]) == 0
    assert "INFO sync: 2 kept run(s) sent to http://host (" in capsys.readouterr().err


def test_to_a_server_that_is_away_nothing_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse() -> None:
        raise UserError("does not answer")

    monkeypatch.setattr(server, "check_server", refuse)
    monkeypatch.setattr(training_run, "send_pending", lambda _: pytest.fail("runs were sent"))
    assert sync.main(["--models", str(tmp_path)]) == 1
    assert capsys.readouterr().err == "ERROR sync: does not answer\n"
