"""The API's own Prometheus metrics: named by its conventions, in base units, no label with unbounded values."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info

LATENCY_BUCKETS = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # seconds
CONFIDENCE_BUCKETS = tuple(step / 10 for step in range(1, 11))
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32)  # products


class ApiMetrics:
    """All metrics of one application, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        # requests
        self.requests = self._counter("requests", "Requests answered", "route", "status")
        self.latency = Histogram(
            "rakuten_api_request_duration_seconds",
            "From the first byte received to the last byte sent",
            ("route", "modality"),
            buckets=LATENCY_BUCKETS,
            registry=self.registry,
        )
        self.problems = self._counter("problems", "Error responses, by problem code", "code")
        # predictions
        self.predictions = self._counter("predictions", "Products predicted, by code", "prdtypecode")
        self.confidence = Histogram(
            "rakuten_api_confidence", "Confidence of predictions", buckets=CONFIDENCE_BUCKETS, registry=self.registry
        )
        self.needs_review = self._counter("to_review", "Products marked for review")
        self.novel = self._counter("novel", "Products unlike all that the model was trained on")
        self.images = self._counter("pictures", "Pictures, by whether they could be used", "outcome")
        # the queue
        self.pending_products = self._gauge("waiting_products", "Products waiting or being scored")
        self.batch_size = Histogram(
            "rakuten_api_batch_products", "Products scored at once", buckets=BATCH_BUCKETS, registry=self.registry
        )
        # the model
        self.model = Info("rakuten_api_model", "The model that is served", registry=self.registry)
        self.model_loaded = self._gauge("model_loaded_timestamp_seconds", "When it was loaded")
        self.champion_refused = self._gauge("champion_refused", "1 if a new champion was refused")
        self.refresh_failures = self._counter(
            "champion_looks_failed", "Failed checks for a new champion, such as when the server is down"
        )
        # the prediction log
        self.log_dropped = self._counter("live_log_dropped_rows", "Predictions missing from the prediction log")
        self.log_lag = self._gauge("live_log_lag_seconds", "Age of the oldest prediction not yet written")

        # the review desk
        self.review_dropped = self._counter(
            "review_dropped_products", "Products that should be in the review desk and are not"
        )

    def _counter(self, name: str, documentation: str, *labels: str) -> Counter:
        return Counter(f"rakuten_api_{name}", documentation, labels, registry=self.registry)

    def _gauge(self, name: str, documentation: str) -> Gauge:
        return Gauge(f"rakuten_api_{name}", documentation, registry=self.registry)
