"""What Prometheus scrapes: names by its conventions, base units, no label of unbounded values."""

from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info

LATENCY_BUCKETS = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
CONFIDENCE_BUCKETS = tuple(step / 10 for step in range(1, 11))


class ApiMetrics(NamedTuple):
    registry: CollectorRegistry
    requests: Counter
    latency: Histogram
    problems: Counter
    predictions: Counter
    confidence: Histogram
    to_review: Counter
    pictures: Counter
    waiting: Gauge
    batch: Histogram
    model: Info
    loaded: Gauge
    refused: Gauge
    looks_failed: Counter
    log_dropped: Counter
    log_lag: Gauge


def make_metrics() -> ApiMetrics:
    registry = CollectorRegistry()

    def counter(name: str, text: str, *labels: str) -> Counter:
        return Counter(f"rakuten_api_{name}", text, labels, registry=registry)

    return ApiMetrics(
        registry,
        counter("requests", "Requests answered", "route", "status"),
        Histogram(
            "rakuten_api_request_duration_seconds",
            "From the first byte in to the last byte out",
            ("route", "modality"),
            buckets=LATENCY_BUCKETS,
            registry=registry,
        ),
        counter("problems", "Problems answered, by their code", "code"),
        counter("predictions", "Products predicted, by code", "prdtypecode"),
        Histogram("rakuten_api_confidence", "Confidence of predictions", buckets=CONFIDENCE_BUCKETS, registry=registry),
        counter("to_review", "Products marked for review"),
        counter("pictures", "Pictures, by whether they could be used", "outcome"),
        Gauge("rakuten_api_waiting_products", "Products waiting or being scored", registry=registry),
        Histogram(
            "rakuten_api_batch_products", "Products scored at once", buckets=(1, 2, 4, 8, 16, 32), registry=registry
        ),
        Info("rakuten_api_model", "The model that answers", registry=registry),
        Gauge("rakuten_api_model_loaded_timestamp_seconds", "When it was loaded", registry=registry),
        Gauge(
            "rakuten_api_champion_refused",
            "1 while a new champion fails its check",
            registry=registry,
        ),
        counter("champion_looks_failed", "Looks for a champion that failed, as when the server is away"),
        counter("live_log_dropped_rows", "Predictions that the live log lost"),
        Gauge("rakuten_api_live_log_lag_seconds", "Age of the oldest prediction not yet written", registry=registry),
    )
