"""`rakuten monitor`: what it prints, and its exit code. What it writes: tests/monitoring/test_monitor.py."""

import sys
from pathlib import Path

import pytest

from rakuten.commands import monitor
from rakuten.monitoring.alerts import DriftReport
from rakuten.monitoring.live_precision import LivePrecision
from rakuten.monitoring.monitor import DriftCheck
from tests.support.project import run_in

REPORT = DriftReport(
    n_rows=600, columns=[], review_share=0.2, expected_review_share=0.2, live=None, alarms=["one alarm", "another"]
)


def run(check: DriftCheck, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """Standard error of the command after a check with this result."""
    monkeypatch.setattr(monitor, "check_drift", lambda *_: check)
    assert monitor.main([]) == 0
    return capsys.readouterr().err


def test_each_alarm_is_a_warning_and_the_closing_line_names_the_report(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = run(DriftCheck(REPORT, "2 alarms", html=Path("drift.html")), monkeypatch, capsys).splitlines()
    assert lines[:2] == ["WARNING monitoring: one alarm", "WARNING monitoring: another"]
    assert lines[2].startswith("INFO monitoring: 2 alarms; drift.html (")


def test_decided_predictions_to_label_are_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    check = DriftCheck(REPORT, "2 alarms", n_to_audit=150, html=Path("drift.html"))
    line = run(check, monkeypatch, capsys).splitlines()[2]
    assert "150 decided predictions need a label" in line
    assert line.endswith("audit.csv")


def test_without_a_report_the_closing_line_is_the_summary(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = run(DriftCheck(None, "too few to judge"), monkeypatch, capsys)
    assert output.startswith("INFO monitoring: too few to judge (")


def test_a_precision_below_the_promise_is_a_warning_without_a_report_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    precision = LivePrecision(0.8, (0.75, 0.85), 150, 0.95)
    output = run(DriftCheck(None, "too few to judge", precision=precision), monkeypatch, capsys)
    assert output.startswith("WARNING monitoring: audit: precision of automatic decisions 0.800 [0.750, 0.850] by 150 ")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("local", "no reference data; train a model with `make run`"),
        ("registry", "no champion: promote one with `make promote`"),
    ],
)
def test_without_a_model_it_says_what_to_do(workshop: Path, tmp_path: Path, model: str, message: str) -> None:
    settings = {"API_LIVE": str(tmp_path / "live"), "API_MODEL": model}
    settings["MLFLOW_TRACKING_URI"] = f"sqlite:///{tmp_path / 'mlflow.db'}"
    output = run_in(workshop, sys.executable, "-m", "rakuten", "monitor", code=1, **settings)
    assert message in output
    assert "Traceback" not in output
