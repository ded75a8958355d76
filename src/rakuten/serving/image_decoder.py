"""Decodes pictures in processes that may use so much memory and time and no more.

Pillow's decoders can take seconds and hundreds of megabytes of a file of a few kilobytes. Here that costs the client
one answer, for which the picture is unusable, and nobody else anything: a process that takes too long is ended, and
pictures that look costly wait for each other, not the others for them.
"""

import io
import logging
import time
from collections.abc import Callable, Sequence
from functools import partial

import anyio
from anyio import BrokenWorkerProcess, CapacityLimiter, to_process
from joblib import cpu_count
from PIL import Image

from rakuten.data.image_decoding import costs_little
from rakuten.features.encoders.preprocessing import DecodedImage
from rakuten.serving import decoding_worker
from rakuten.serving.problems import Problem
from rakuten.serving.scorer import RawProduct
from rakuten.serving.settings import ApiSettings

log = logging.getLogger(__name__)

MAX_PROCESSES = 4  # for pictures that cost little; one more is for the others
CHEAP_PICTURES = 8  # of more in one request, all are among the costly
TOO_SLOW, TOO_MUCH_MEMORY = "too slow to decode", "too large"


class ImageDecoder:
    """Decodes the pictures of requests.

    Args:
        image_sizes: returns the sizes that the current model's encoders take.
    """

    def __init__(self, image_sizes: Callable[[], Sequence[int]], settings: ApiSettings) -> None:
        self._image_sizes, self._settings = image_sizes, settings
        self._cheap, self._costly = _Lane(min(MAX_PROCESSES, cpu_count())), _Lane(1)
        self._processes = CapacityLimiter(MAX_PROCESSES + 1)  # never reached: anyio's own would let the lanes share

    async def start(self) -> None:
        """Start the first process, which takes a moment, before the first request."""
        stream = io.BytesIO()
        Image.new("RGB", (1, 1)).save(stream, "JPEG")
        await self._decode(stream.getvalue(), seconds=60)

    async def decode_all(self, products: Sequence[RawProduct]) -> list[RawProduct]:
        """The products with their pictures decoded; those for which the time of a batch is over are unusable.

        Raises:
            Problem: too many pictures wait already, or one has waited too long.
        """
        images = [product.image for product in products if isinstance(product.image, bytes)]
        if not images:
            return list(products)
        is_costly = len(images) > CHEAP_PICTURES or not all(map(costs_little, images))
        lane = self._costly if is_costly else self._cheap
        if lane.n_pending and lane.n_pending + len(images) > self._settings.queue:
            raise _overloaded("too many pictures wait")
        deadline = time.monotonic() + self._settings.wait_seconds + self._settings.batch_picture_seconds
        lane.n_pending += len(images)
        try:
            return [
                product._replace(image=await self._wait_and_decode(product.image, lane, deadline))
                if isinstance(product.image, bytes)
                else product
                for product in products
            ]
        finally:
            lane.n_pending -= len(images)

    async def _wait_and_decode(self, data: bytes, lane: "_Lane", deadline: float) -> DecodedImage:
        try:
            with anyio.fail_after(self._settings.wait_seconds):
                await lane.limiter.acquire()
        except TimeoutError:
            raise _overloaded("a picture has waited too long") from None
        try:
            return await self._decode(data, min(self._settings.picture_seconds, deadline - time.monotonic()))
        finally:
            lane.limiter.release()

    async def _decode(self, data: bytes, seconds: float) -> DecodedImage:
        run = partial(to_process.run_sync, cancellable=True, limiter=self._processes)
        try:
            with anyio.fail_after(seconds):
                decoded: DecodedImage = await run(decoding_worker.decode, data, self._image_sizes())
                return decoded
        except TimeoutError:
            return DecodedImage(TOO_SLOW, {})
        except MemoryError:
            return DecodedImage(TOO_MUCH_MEMORY, {})
        except BrokenWorkerProcess:  # the system may have ended it for its memory
            log.warning("a process that decoded a picture has ended; the picture counts as unusable")
            return DecodedImage(TOO_MUCH_MEMORY, {})


class _Lane:
    """Pictures that wait for each other.

    Attributes:
        n_pending: pictures that wait or are decoded.
    """

    def __init__(self, n_processes: int) -> None:
        self.limiter, self.n_pending = CapacityLimiter(n_processes), 0


def _overloaded(reason: str) -> Problem:
    return Problem("overloaded", f"{reason}; ask again later", 1)
