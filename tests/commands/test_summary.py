import json
import sys
from pathlib import Path

import pytest

from rakuten.commands import summary
from rakuten.commands.summary import Results, summary_table
from rakuten.tracking import dvc_lock, server

QUALITY = {"train": {"rows_in": 84_916, "rows_rejected": 3}, "test": {"rows_in": 13_812}}
SCORES = {
    "weighted_f1": 0.81234, "macro_f1": 0.7, "synthetic": False,
    "interval": {"weighted_f1": [0.8, 0.82], "macro_f1": [0.69, 0.71]},
}  # fmt: skip
DECISIONS = {"decided": 10_000, "rows": 13_812, "target_precision": 0.95}


def rows(scores: dict[str, object]) -> dict[str, str]:
    table = summary_table(Results(QUALITY, scores, DECISIONS, "abc"), Path("data/p.csv"), "the UI", "bin/rakuten")
    return {line[2:13].strip(): line[15:] for line in table.splitlines()}


def test_the_table_has_counts_scores_and_places() -> None:
    assert rows(SCORES) == {
        "Train rows": "84,916 read, 3 rejected",
        "Test rows": "13,812 read, all predicted",
        "Weighted F1": "0.8123  [0.8000, 0.8200]",
        "Macro F1": "0.7000  [0.6900, 0.7100]",
        "": "out of fold, 95 % interval",
        "Decided": "10,000 of 13,812 test products without review, for a precision of 95%",
        "Model": "version abc    (bin/rakuten trace abc)",
        "Predictions": "data/p.csv",
        "Runs": "the UI",
    }


def test_scores_of_synthetic_products_are_marked() -> None:
    assert rows(SCORES | {"synthetic": True})[""] == "out of fold, 95 % interval, on SYNTHETIC data"


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folders models, reports and processed of a pipeline that has run."""
    for name in ("models", "reports", "processed"):
        (tmp_path / name).mkdir()
        monkeypatch.setattr(summary, name.upper(), tmp_path / name)
    monkeypatch.setattr(summary, "ROOT", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(server, "uri", lambda: server.EMBEDDED)
    for name, value in (
        ("reports/data_quality.json", QUALITY),
        ("models/scores.json", SCORES),
        ("models/manifest.json", {}),
        ("reports/decisions.json", DECISIONS),
    ):
        (tmp_path / name).write_text(json.dumps(value))
    return tmp_path


@pytest.fixture
def attached(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders of models whose runs were given dvc.lock."""
    folders: list[Path] = []
    monkeypatch.setattr(dvc_lock, "attach_dvc_lock", folders.append)
    return folders


def test_the_summary_attaches_dvc_lock_and_prints_the_table(
    folders: Path, attached: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert summary.main([]) == 0
    output = capsys.readouterr()
    assert "Predictions  processed/predictions.csv" in output.out
    assert "make ui" in output.out
    assert output.err == ""
    assert attached == [folders / "models"]


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A virtual environment `.venv` in the current folder, whose Python runs this; it is not active."""
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    (programs / "rakuten").touch(0o755)
    monkeypatch.setattr(sys, "executable", str(programs / "python"))
    monkeypatch.setattr(sys, "prefix", str(tmp_path / ".venv"))
    monkeypatch.setenv("PATH", "/usr/bin")
    for name in ("VIRTUAL_ENV", "MAKELEVEL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path / ".venv"


def test_a_program_is_called_by_its_path_where_the_environment_is_not_active(
    environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert summary.call("rakuten") == ".venv/bin/rakuten"
    monkeypatch.setenv("PATH", f"{environment}/bin:/usr/bin")  # as make sets it for what it runs
    monkeypatch.setenv("MAKELEVEL", "1")
    assert summary.call("rakuten") == ".venv/bin/rakuten"
    (environment.parent / "elsewhere").mkdir()
    monkeypatch.chdir(environment.parent / "elsewhere")
    assert summary.call("rakuten") == f"{environment}/bin/rakuten"


@pytest.mark.parametrize("by_make", [False, True])
def test_a_program_is_called_by_its_name_where_the_environment_is_active(
    by_make: bool, environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{environment}/bin:/usr/bin")
    monkeypatch.setenv("VIRTUAL_ENV", str(environment))
    if by_make:
        monkeypatch.setenv("MAKELEVEL", "1")
    assert summary.call("rakuten") == "rakuten"


def test_runs_that_wait_are_a_warning(folders: Path, attached: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    (folders / "models" / "unsent" / "abc").mkdir(parents=True)
    (folders / "models" / "unsent" / "abc" / "record.json").write_text("{}")
    assert summary.main([]) == 0
    assert "WARNING summary: 1 run(s) not sent to sqlite:" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["reports/data_quality.json", "models/scores.json", "reports/decisions.json"])
def test_before_the_first_run_there_is_nothing_to_show(
    name: str, folders: Path, attached: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    (folders / name).unlink()
    assert summary.main([]) == 1
    assert f"{name}: cannot be read; run `dvc repro` first" in capsys.readouterr().err
