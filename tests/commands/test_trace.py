import pytest

from rakuten.commands import trace as command
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


def test_dvc_lock_is_restored_and_nothing_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["abc", "--restore-lock"]) == 0
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("INFO trace: dvc.lock is that of the run (")
