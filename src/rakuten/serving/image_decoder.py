"""Decodes pictures in processes that may use so much memory and time and no more.

Pillow's decoders can take seconds and hundreds of megabytes of a file of a few kilobytes. Here that costs the client
one answer, for which the picture is unusable, and nobody else anything: a process that takes too long is ended, and
pictures that look costly wait for each other, not the others for them.
"""

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

import anyio
from anyio import BrokenWorkerProcess, CapacityLimiter, to_process
from joblib import cpu_count

from rakuten.data.image_decoding import costs_little
from rakuten.features.encoders.preprocessing import DecodedImage
from rakuten.serving import decoding_worker
from rakuten.serving.problems import Problem
from rakuten.serving.scorer import RawProduct
from rakuten.serving.settings import ApiSettings

log = logging.getLogger(__name__)

to_process.WORKER_MAX_IDLE_TIME = 10**9  # seconds: a process that was not needed for a while is still there when it is

MAX_PROCESSES = 4  # for pictures that cost little; one more is for the others
CHEAP_PICTURES = 8  # of more in one request, all are among the costly
TINY_IMAGE = b"GIF89a\x01\x00\x01\x00\x00\x00\x00;"  # has no frame, which is found out at once
TOO_SLOW, TOO_MUCH_MEMORY = "too slow to decode", "too large"


class ImageDecoder:
    """Decodes the pictures of requests.

    Args:
        image_sizes: returns the sizes that the current model's encoders take.
    """

    def __init__(self, image_sizes: Callable[[], Sequence[int]], settings: ApiSettings) -> None:
        self._image_sizes, self._settings = image_sizes, settings
        n_cheap = min(MAX_PROCESSES, cpu_count())
        self._cheap, self._costly = _Lane(n_cheap), _Lane(1)
        self._n_processes = n_cheap + 1
        self._processes = CapacityLimiter(self._n_processes)  # anyio's own would let the lanes share

    async def start(self) -> None:
        """Start the processes that are not running, so that no picture waits for one to start."""
        async with anyio.create_task_group() as tasks:
            for _ in range(self._n_processes):  # each takes one that is idle, or starts one
                tasks.start_soon(self._run, TINY_IMAGE)

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
        if seconds <= 0:
            return DecodedImage(TOO_SLOW, {})
        reason = TOO_MUCH_MEMORY
        try:
            with anyio.fail_after(seconds):
                return await self._run(data)
        except MemoryError:
            return DecodedImage(reason, {})
        except TimeoutError:
            reason = TOO_SLOW
        except BrokenWorkerProcess:  # the system may have ended it for its memory
            log.warning("a process died while decoding a picture; the picture counts as unusable")
        with suppress(BrokenWorkerProcess, MemoryError, ExceptionGroup):
            await self.start()  # another in the place of the one that has ended
        return DecodedImage(reason, {})

    async def _run(self, data: bytes) -> DecodedImage:
        decoded: DecodedImage = await to_process.run_sync(
            decoding_worker.decode, data, self._image_sizes(), cancellable=True, limiter=self._processes
        )
        return decoded


class _Lane:
    """Pictures that wait for each other.

    Attributes:
        n_pending: pictures that wait or are decoded.
    """

    def __init__(self, n_processes: int) -> None:
        self.limiter, self.n_pending = CapacityLimiter(n_processes), 0


def _overloaded(reason: str) -> Problem:
    return Problem("overloaded", f"{reason}; try again later", 1)
