"""What the routes share: the model, the scorer, the prediction log, the review desk, the metrics."""

import asyncio
import logging
import time
import uuid
from collections.abc import Sequence

from fastapi import Request
from joblib import cpu_count

from rakuten.config import load_params
from rakuten.features.encoders.preprocessing import IMAGE_USED
from rakuten.monitoring.prediction_log import PredictionLog
from rakuten.serving.exported_metrics import MonitoringCollector
from rakuten.serving.image_decoder import ImageDecoder
from rakuten.serving.metrics import ApiMetrics
from rakuten.serving.model_holder import ModelHolder
from rakuten.serving.parsing import ParsedProduct
from rakuten.serving.review import SHOWN_CODES, ReviewService
from rakuten.serving.review_intake import Answered, ReviewIntake
from rakuten.serving.scorer import BatchingScorer, ScoredProducts
from rakuten.serving.settings import MB, ApiSettings
from rakuten.serving.training_pictures import TrainingPictures

log = logging.getLogger(__name__)

MAX_DEFAULT_THREADS = 4  # scoring threads, where the settings leave the number open


class Service:
    """What the routes share: the model, the scorer, the prediction log and the metrics."""

    def __init__(self, settings: ApiSettings, holder: ModelHolder) -> None:
        self.settings, self.holder, self.metrics = settings, holder, ApiMetrics()
        self.prediction_log: PredictionLog | None = None
        if settings.live_log:
            self.prediction_log = PredictionLog(
                settings.live, settings.keep_days, settings.log_text, self.metrics.log_dropped.inc
            )
            self.metrics.log_lag.set_function(self.prediction_log.lag)
        self.scorer = BatchingScorer(
            holder.current,
            self.metrics,
            queue_size=settings.queue,
            queue_timeout_seconds=settings.wait_seconds,
            n_threads=settings.threads or min(MAX_DEFAULT_THREADS, cpu_count()),
            prediction_log=self.prediction_log,
        )
        self.training_pictures = TrainingPictures(settings.images)
        self.decoder = ImageDecoder(lambda: holder.current().model.image_sizes(), settings)
        self.metrics.registry.register(MonitoringCollector(settings.live, holder.current))
        self.review = ReviewService(settings)
        self.review_intake: ReviewIntake | None = None
        if settings.review:
            self.review_intake = ReviewIntake(
                self.review.desk,
                settings.review_pictures,
                int(settings.review_pictures_mb * MB),
                load_params().review.audit_share,
                self.metrics.review_dropped.inc,
            )
        self.stopping = False
        self.publish_model_info()

    def publish_model_info(self) -> None:
        """Set the metrics that name the current model."""
        model = self.holder.current()
        self.metrics.model.info(
            {
                "version": model.model_version,
                "source": model.source,
                "registry_version": model.registry_version or "",
            }
        )
        self.metrics.model_loaded.set(time.time())

    async def poll_champion(self) -> None:
        """Load each new champion, for as long as the server runs; batches being scored keep their model."""
        last_error = ""
        while True:
            await asyncio.sleep(self.settings.refresh_seconds)
            try:
                if await asyncio.to_thread(self.holder.refresh):
                    self.publish_model_info()
                last_error = ""
            except Exception as error:
                self.metrics.refresh_failures.inc()
                if str(error) != last_error:  # logged once, not at each refresh
                    log.warning("keeping the current model: %s", error)
                last_error = str(error)
            self.metrics.champion_refused.set(self.holder.has_refused())

    async def score(
        self, request: Request, products: Sequence[ParsedProduct], with_explanation: bool = False
    ) -> ScoredProducts:
        """Score the products of a request and count them in the metrics.

        Raises:
            Problem: see `BatchingScorer.score`.
        """
        state = request.scope["state"]
        state["modality"] = "batch" if len(products) > 1 else "picture" if products[0].raw.image else "text"
        if self.settings.log_text:
            texts = [product.fields.model_dump(include={"designation", "description"}) for product in products]
            state["logged"] = {"products": texts}
        raw = await self.decoder.decode_all([product.raw for product in products])
        # Not the request's id, which a client may use twice.
        scored = await self.scorer.score(raw, uuid.uuid4().hex, with_explanation)
        self._count_predictions(scored)
        if self.review_intake is not None:
            self.review_intake.offer(_answered(products, scored))
        return scored

    def _count_predictions(self, scored: ScoredProducts) -> None:
        self.metrics.novel.inc(sum(scored.is_novel))
        for codes, confidence, needs_review, image_state in zip(
            scored.codes, scored.confidence, scored.needs_review, scored.image_states, strict=True
        ):
            self.metrics.predictions.labels(str(codes[0])).inc()
            self.metrics.confidence.observe(confidence[0])
            self.metrics.needs_review.inc(needs_review)
            self.metrics.images.labels(image_state).inc()


def _answered(products: Sequence[ParsedProduct], scored: ScoredProducts) -> list[Answered]:
    """The products of a request as the review desk takes them."""
    codes, confidence = scored.codes, scored.confidence
    is_used = [state == IMAGE_USED for state in scored.image_states]
    return [
        Answered(
            designation=product.raw.designation,
            description=product.raw.description,
            picture=product.raw.image if isinstance(product.raw.image, bytes) and is_used[row] else None,
            top=[list(choice) for choice in zip(codes[row][:SHOWN_CODES], confidence[row][:SHOWN_CODES], strict=True)],
            needs_review=scored.needs_review[row],
            is_novel=scored.is_novel[row],
            model_version=scored.model.model_version,
            prediction_id=scored.prediction_ids[row],
        )
        for row, product in enumerate(products)
    ]
