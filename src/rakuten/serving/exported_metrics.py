"""Prometheus metrics of the model's scores, the last drift report, the last drift check and the last pipeline run.

The monitoring and the pipeline leave their results as files in the folder of the prediction log
(`drift/drift.json`, `drift/live_precision.json`, `drift/looked.json`, `pipeline.json`), which are read at each scrape.
What is said about another model than the one that answers is not exported.
"""

import json
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from rakuten.monitoring.status_files import DRIFT_FILE, LAST_CHECK_FILE, PIPELINE_FILE, PRECISION_FILE
from rakuten.serving.model_holder import LoadedModel

PRECISION_FIELDS = ("precision", "low", "high", "labels", "promised")

Families = Iterator[GaugeMetricFamily]
Status = dict[str, Any]  # the content of a status file


class MonitoringCollector(Collector):
    """Reads the files at each scrape; nothing is exported from one that is missing or not as this code writes it.

    Args:
        folder: the folder of the prediction log.
        current_model: returns the model that answers.
    """

    def __init__(self, folder: Path, current_model: Callable[[], LoadedModel]) -> None:
        self._folder, self._current_model = folder, current_model

    def collect(self) -> Families:
        """The metric families of this scrape."""
        model = self._current_model()
        yield from _model_families(model.metadata)
        drift_report = _read_json(self._folder / DRIFT_FILE)
        if drift_report.get("model_version") == model.model_version:
            yield from _complete_or_empty(_drift_families, drift_report)
        if precision := read_live_precision(self._folder, model.model_version):
            yield from _precision_families(precision)
        yield from _complete_or_empty(_last_check_families, _read_json(self._folder / LAST_CHECK_FILE))
        yield from _complete_or_empty(_pipeline_families, _read_json(self._folder / PIPELINE_FILE))


def read_live_precision(folder: Path, model_version: str) -> Status | None:
    """The precision of a model's automatic decisions as the last check wrote it: see `LivePrecision.as_json`.

    Args:
        folder: the folder of the prediction log.

    Returns:
        None if too few decisions were audited, or there was no check of this model.
    """
    written = _read_json(folder / PRECISION_FILE)
    precision = written.get("live_precision")
    if not isinstance(precision, dict) or written.get("model_version") != model_version:
        return None
    is_whole = all(isinstance(precision.get(name), int | float) for name in PRECISION_FIELDS)
    return precision if is_whole else None


def _complete_or_empty(families: Callable[[Status], Families], status: Status) -> list[GaugeMetricFamily]:
    """All metric families of a file, or none where a value is missing or invalid: a scrape must not fail."""
    try:
        return list(families(status)) if status else []
    except (KeyError, TypeError, ValueError):
        return []


def _read_json(path: Path) -> Status:
    """The JSON object in a file; empty where there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _model_families(metadata: dict[str, Any]) -> Families:
    scores = GaugeMetricFamily("rakuten_model_score", "Out-of-fold scores of the model", labels=["score"])
    for name, value in metadata["scores"].items():
        scores.add_metric([name], value)
    yield scores
    if trained_at := metadata["trained_at"]:
        yield _timestamp("rakuten_model_trained_timestamp_seconds", "When the model was trained", trained_at)


def _drift_families(report: Status) -> Families:
    score = GaugeMetricFamily("rakuten_drift_score", "Drift of a column in the last report", labels=["column", "kind"])
    threshold = GaugeMetricFamily("rakuten_drift_threshold", "Threshold for drift of a column", labels=["column"])
    for column in report["drift"]:
        score.add_metric([column["column"], column["kind"]], column["score"])
        threshold.add_metric([column["column"]], column["threshold"])
    yield score
    yield threshold
    yield GaugeMetricFamily("rakuten_drift_alarms", "Alarms of the last drift report", value=len(report["alarms"]))
    yield GaugeMetricFamily("rakuten_drift_window_predictions", "Predictions in the report", value=report["rows"])
    review = GaugeMetricFamily("rakuten_review_share", "Share to review, live and expected", labels=["which"])
    review.add_metric(["live"], report["review"])
    review.add_metric(["promised"], report["promised_review"])
    yield review
    if novelty := report.get("novelty"):  # None: too little was known; a report may be of before
        yield _novelty_family(novelty)
    live = GaugeMetricFamily(
        "rakuten_live_weighted_f1", "Live score, its upper end, expected score", labels=["which", "products"]
    )
    for score in report["live"]:
        live.add_metric(["live", score["products"]], score["weighted_f1"])
        live.add_metric(["live_high", score["products"]], score["interval"][1])
        live.add_metric(["promised", score["products"]], score["promised"])
    if report["live"]:
        yield live


def _novelty_family(novelty: Status) -> GaugeMetricFamily:
    family = GaugeMetricFamily(
        "rakuten_novel_share", "Share of novel products, its interval, promised, limit of live_low", labels=["which"]
    )
    low, high = novelty["interval"]
    values = {"live": novelty["share"], "live_low": low, "live_high": high}
    for which, value in (values | {"promised": novelty["promised"], "limit": novelty["limit"]}).items():
        family.add_metric([which], value)
    return family


def _precision_families(precision: Status) -> Families:
    values = GaugeMetricFamily(
        "rakuten_live_precision", "Precision of audited automatic decisions, its interval, promised", labels=["which"]
    )
    for which, name in {"live": "precision", "live_low": "low", "live_high": "high", "promised": "promised"}.items():
        values.add_metric([which], precision[name])
    yield values
    yield GaugeMetricFamily(
        "rakuten_live_precision_products", "Audited products behind the live precision", value=precision["labels"]
    )


def _last_check_families(last_check: Status) -> Families:
    yield _timestamp(
        "rakuten_drift_checked_timestamp_seconds", "When live traffic was last checked", last_check["checked"]
    )


def _pipeline_families(run: Status) -> Families:
    yield GaugeMetricFamily("rakuten_pipeline_succeeded", "1 if the last run succeeded", value=float(run["succeeded"]))
    yield GaugeMetricFamily("rakuten_pipeline_duration_seconds", "Seconds that the last run took", value=run["seconds"])
    yield _timestamp("rakuten_pipeline_ended_timestamp_seconds", "When the last run ended", run["ended"])


def _timestamp(name: str, documentation: str, iso_time: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, documentation, value=datetime.fromisoformat(iso_time).timestamp())
