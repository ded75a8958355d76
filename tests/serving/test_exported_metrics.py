"""What the monitoring and the pipeline leave for Prometheus, whole or broken."""

import json
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from rakuten.serving.exported_metrics import MonitoringCollector
from rakuten.serving.model_holder import LoadedModel

REPORT = {
    "model_version": "one",
    "drift": [{"column": "language", "kind": "text", "score": 0.2, "threshold": 0.1}],
    "alarms": ["text: language has drifted"], "rows": 700, "review": 0.4, "promised_review": 0.3,
    "live": {"weighted_f1": 0.7, "interval": [0.65, 0.74], "promised": 0.75},
}  # fmt: skip
ABOUT = {"scores": {"weighted_f1": 0.75}, "trained_at": "2026-01-01T00:00:00+00:00"}


def told(folder: Path, version: str = "one") -> str:
    registry = CollectorRegistry()
    champion = LoadedModel(None, version, "local", None, ABOUT)  # type: ignore[arg-type]
    registry.register(MonitoringCollector(folder, lambda: champion))
    return generate_latest(registry).decode()


def write(folder: Path, name: str, what: Any) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(what if isinstance(what, str) else json.dumps(what))


def test_a_report_is_told(tmp_path: Path) -> None:
    write(tmp_path, "drift/drift.json", REPORT)
    write(tmp_path, "drift/looked.json", {"checked": "2026-01-02T00:00:00+00:00"})
    write(tmp_path, "pipeline.json", {"succeeded": False, "seconds": 3.5, "ended": "2026-01-02T00:00:00+00:00"})
    text = told(tmp_path)
    for line in (
        'rakuten_drift_score{column="language",kind="text"} 0.2',
        "rakuten_drift_alarms 1.0",
        'rakuten_review_share{which="promised"} 0.3',
        'rakuten_live_weighted_f1{which="live_high"} 0.74',
        "rakuten_drift_checked_timestamp_seconds 1.7673",
        "rakuten_pipeline_succeeded 0.0",
        'rakuten_model_score{score="weighted_f1"} 0.75',
        "rakuten_model_trained_timestamp_seconds 1.7672",
    ):
        assert line in text


def test_a_report_on_another_model_is_not(tmp_path: Path) -> None:
    write(tmp_path, "drift/drift.json", REPORT)
    assert "rakuten_drift" not in told(tmp_path, "two")


@pytest.mark.parametrize(
    "broken", ["", "[]", "{", "{}", {"model_version": "one"}, {**REPORT, "live": {"weighted_f1": 0.7}}]
)
def test_what_is_broken_shows_nothing_and_the_scrape_goes_on(tmp_path: Path, broken: Any) -> None:
    for name in ("drift/drift.json", "drift/looked.json", "pipeline.json"):
        write(tmp_path, name, broken)
    text = told(tmp_path)
    assert "rakuten_drift" not in text
    assert "rakuten_pipeline" not in text
    assert "rakuten_model_score" in text
