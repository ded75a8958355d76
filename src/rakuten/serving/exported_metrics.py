"""What the monitoring and the pipeline last found, and the model's own scores, for Prometheus to scrape.

Both leave files in the folder of the live log (`drift/drift.json`, `drift/looked.json`, `pipeline.json`), which
are read at each scrape. A report on another model than the one that answers says nothing of it and is not shown.
"""

import json
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from rakuten.monitoring.status_files import DRIFT_FILE, LAST_CHECK_FILE, PIPELINE_FILE
from rakuten.serving.model_holder import LoadedModel

Families = Iterator[GaugeMetricFamily]


class MonitoringCollector(Collector):
    """Reads the files at each scrape; one that is missing, or not what this code writes, shows nothing."""

    def __init__(self, folder: Path, current: Callable[[], LoadedModel]) -> None:
        self._folder, self._current = folder, current

    def collect(self) -> Families:
        held = self._current()
        yield from _model(held.about)
        drift = _read_json(self._folder / DRIFT_FILE)
        if drift.get("model_version") == held.model_version:
            yield from _all_or_nothing(_drift, drift)
        yield from _all_or_nothing(_last_check, _read_json(self._folder / LAST_CHECK_FILE))
        yield from _all_or_nothing(_pipeline, _read_json(self._folder / PIPELINE_FILE))


def _all_or_nothing(families: Callable[[dict[str, Any]], Families], found: dict[str, Any]) -> list[GaugeMetricFamily]:
    """All that a file tells, or nothing: a scrape must not fail by it."""
    try:
        return list(families(found)) if found else []
    except (KeyError, TypeError, ValueError):
        return []


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _model(about: dict[str, Any]) -> Families:
    scores = GaugeMetricFamily("rakuten_model_score", "Out-of-fold scores of the model", labels=["score"])
    for name, value in about["scores"].items():
        scores.add_metric([name], value)
    yield scores
    if about["trained_at"]:
        yield _timestamp("rakuten_model_trained_timestamp_seconds", "When the model was trained", about["trained_at"])


def _drift(found: dict[str, Any]) -> Families:
    score = GaugeMetricFamily("rakuten_drift_score", "Drift of a column in the last report", labels=["column", "kind"])
    threshold = GaugeMetricFamily("rakuten_drift_threshold", "From which a column has drifted", labels=["column"])
    for each in found["drift"]:
        score.add_metric([each["column"], each["kind"]], each["score"])
        threshold.add_metric([each["column"]], each["threshold"])
    yield score
    yield threshold
    yield GaugeMetricFamily("rakuten_drift_alarms", "Alarms of the last drift report", value=len(found["alarms"]))
    yield GaugeMetricFamily("rakuten_drift_window_predictions", "Predictions it judged", value=found["rows"])
    review = GaugeMetricFamily("rakuten_review_share", "Share to review, of the window and promised", labels=["which"])
    review.add_metric(["live"], found["review"])
    review.add_metric(["promised"], found["promised_review"])
    yield review
    if found["live"]:
        live = GaugeMetricFamily(
            "rakuten_live_weighted_f1",
            "By later labels, its upper end, and the promise",
            labels=["which"],
        )
        live.add_metric(["live"], found["live"]["weighted_f1"])
        live.add_metric(["live_high"], found["live"]["interval"][1])
        live.add_metric(["promised"], found["live"]["promised"])
        yield live


def _last_check(found: dict[str, Any]) -> Families:
    yield _timestamp(
        "rakuten_drift_checked_timestamp_seconds", "When live traffic was last looked at", found["checked"]
    )


def _pipeline(found: dict[str, Any]) -> Families:
    yield GaugeMetricFamily("rakuten_pipeline_succeeded", "Whether the last run did", value=float(found["succeeded"]))
    yield GaugeMetricFamily("rakuten_pipeline_duration_seconds", "Of the last run", value=found["seconds"])
    yield _timestamp("rakuten_pipeline_ended_timestamp_seconds", "When the last run ended", found["ended"])


def _timestamp(name: str, text: str, moment: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=datetime.fromisoformat(moment).timestamp())
