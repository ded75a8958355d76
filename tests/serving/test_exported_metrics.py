"""Metrics from the files that the monitoring and the pipeline leave, complete or broken."""

import json
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from rakuten.monitoring.status_files import DRIFT_FILE, LAST_CHECK_FILE, PIPELINE_FILE, PRECISION_FILE
from rakuten.serving.exported_metrics import MonitoringCollector, read_live_precision
from rakuten.serving.model_holder import LoadedModel

REPORT = {
    "model_version": "one",
    "drift": [{"column": "language", "kind": "text", "score": 0.2, "threshold": 0.1}],
    "alarms": ["text: language has drifted"], "rows": 700, "review": 0.4, "promised_review": 0.3,
    "live": [{"products": "decided", "labels": 300, "weighted_f1": 0.7, "interval": [0.65, 0.74], "promised": 0.75}],
    "novelty": {"rows": 700, "share": 0.02, "interval": [0.015, 0.04], "promised": 0.01, "limit": 0.016},
}  # fmt: skip
LAST_CHECK = {"checked": "2026-01-02T00:00:00+00:00"}
PIPELINE = {"succeeded": False, "seconds": 3.5, "ended": "2026-01-02T00:00:00+00:00"}
PRECISION = {"precision": 0.9, "low": 0.85, "high": 0.94, "labels": 150, "promised": 0.95}
METADATA = {"scores": {"weighted_f1": 0.75}, "trained_at": "2026-01-01T00:00:00+00:00"}


def scrape(folder: Path, model_version: str = "one", metadata: dict[str, Any] = METADATA) -> list[str]:
    """The samples of one scrape."""
    registry = CollectorRegistry()
    model = LoadedModel(None, model_version, "local", None, metadata)  # type: ignore[arg-type]
    registry.register(MonitoringCollector(folder, lambda: model))
    return [line for line in generate_latest(registry).decode().splitlines() if not line.startswith("#")]


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def test_a_drift_report_is_exported(tmp_path: Path) -> None:
    write(tmp_path / DRIFT_FILE, REPORT)
    assert set(scrape(tmp_path)) >= {
        'rakuten_drift_score{column="language",kind="text"} 0.2',
        'rakuten_drift_threshold{column="language"} 0.1',
        "rakuten_drift_alarms 1.0",
        "rakuten_drift_window_predictions 700.0",
        'rakuten_review_share{which="live"} 0.4',
        'rakuten_review_share{which="promised"} 0.3',
        'rakuten_novel_share{which="live"} 0.02',
        'rakuten_novel_share{which="live_low"} 0.015',
        'rakuten_novel_share{which="live_high"} 0.04',
        'rakuten_novel_share{which="promised"} 0.01',
        'rakuten_novel_share{which="limit"} 0.016',
        'rakuten_live_weighted_f1{products="decided",which="live"} 0.7',
        'rakuten_live_weighted_f1{products="decided",which="live_high"} 0.74',
        'rakuten_live_weighted_f1{products="decided",which="promised"} 0.75',
    }


def test_a_report_without_labels_has_no_live_score(tmp_path: Path) -> None:
    write(tmp_path / DRIFT_FILE, REPORT | {"live": []})
    samples = scrape(tmp_path)
    assert "rakuten_drift_alarms 1.0" in samples
    assert not [sample for sample in samples if sample.startswith("rakuten_live")]


@pytest.mark.parametrize(
    "report", [REPORT | {"novelty": None}, {key: REPORT[key] for key in REPORT if key != "novelty"}]
)
def test_a_report_that_does_not_tell_novel_products_has_no_share_of_them(tmp_path: Path, report: Any) -> None:
    write(tmp_path / DRIFT_FILE, report)
    samples = scrape(tmp_path)
    assert "rakuten_drift_alarms 1.0" in samples
    assert not [sample for sample in samples if "novel" in sample]


def test_a_report_about_another_model_is_not_exported(tmp_path: Path) -> None:
    write(tmp_path / DRIFT_FILE, REPORT)
    samples = scrape(tmp_path, "two")
    assert not [
        sample
        for sample in samples
        if sample.startswith(("rakuten_drift", "rakuten_review", "rakuten_live", "rakuten_novel"))
    ]


def test_the_live_precision_is_exported(tmp_path: Path) -> None:
    write(tmp_path / PRECISION_FILE, {"model_version": "one", "live_precision": PRECISION})
    assert set(scrape(tmp_path)) >= {
        'rakuten_live_precision{which="live"} 0.9',
        'rakuten_live_precision{which="live_low"} 0.85',
        'rakuten_live_precision{which="live_high"} 0.94',
        'rakuten_live_precision{which="promised"} 0.95',
        "rakuten_live_precision_products 150.0",
    }
    assert read_live_precision(tmp_path, "one") == PRECISION


@pytest.mark.parametrize(
    "written",
    [
        {"model_version": "one", "live_precision": None},  # too few were audited
        {"model_version": "two", "live_precision": PRECISION},
        {"model_version": "one", "live_precision": PRECISION | {"low": None}},
        {"model_version": "one", "live_precision": {"precision": 0.9}},
        {"model_version": "one", "live_precision": 0.9},
        {"model_version": "one"},
        [],
        "{",
    ],
)
def test_without_a_live_precision_of_this_model_there_is_no_series(tmp_path: Path, written: Any) -> None:
    write(tmp_path / PRECISION_FILE, written)
    assert all(sample.startswith("rakuten_model") for sample in scrape(tmp_path))
    assert read_live_precision(tmp_path, "one") is None


def test_the_last_check_and_the_last_pipeline_run_are_exported(tmp_path: Path) -> None:
    write(tmp_path / LAST_CHECK_FILE, LAST_CHECK)
    write(tmp_path / PIPELINE_FILE, PIPELINE)
    assert set(scrape(tmp_path)) >= {
        "rakuten_drift_checked_timestamp_seconds 1.767312e+09",
        "rakuten_pipeline_succeeded 0.0",
        "rakuten_pipeline_duration_seconds 3.5",
        "rakuten_pipeline_ended_timestamp_seconds 1.767312e+09",
    }


def test_the_model_s_scores_are_exported(tmp_path: Path) -> None:
    score = 'rakuten_model_score{score="weighted_f1"} 0.75'
    assert scrape(tmp_path) == [score, "rakuten_model_trained_timestamp_seconds 1.7672256e+09"]
    assert scrape(tmp_path, metadata=METADATA | {"trained_at": None}) == [score]


@pytest.mark.parametrize(
    "broken",
    [
        "",
        "[]",
        "{",
        "{}",
        {"model_version": "one"},
        {**REPORT, "live": None},
        {**REPORT, "live": {"weighted_f1": 0.7}},
        {**REPORT, "novelty": {"share": 0.02}},
    ],
)
def test_nothing_of_a_broken_file_is_exported_and_the_scrape_succeeds(tmp_path: Path, broken: Any) -> None:
    for path in (DRIFT_FILE, LAST_CHECK_FILE, PIPELINE_FILE):
        write(tmp_path / path, broken)
    assert all(sample.startswith("rakuten_model") for sample in scrape(tmp_path))
