"""Pictures decoded in processes of their own: as in this process, within limits, one client's cost not the others'."""

import asyncio
import io
import time
from collections.abc import Awaitable, Callable
from typing import Any

import psutil
import pytest
from PIL import Image

from rakuten.data.image_decoding import CHEAP_PIXELS, costs_little
from rakuten.features.encoders.preprocessing import IMAGE_USED, DecodedImage, decode_image
from rakuten.serving import decoding_worker, image_decoder
from rakuten.serving.image_decoder import TOO_MUCH_MEMORY, TOO_SLOW, ImageDecoder
from rakuten.serving.problems import Problem
from rakuten.serving.scorer import RawProduct
from rakuten.serving.settings import ApiSettings
from tests.support.api import jpeg
from tests.support.decoding import KILLED, LONG, MUCH, misbehave

SIZES = (32, 48)


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def with_decoder(use: Callable[[ImageDecoder], Awaitable[None]], **settings: Any) -> None:
    """Run something with a decoder that has started."""

    async def run() -> None:
        decoder = ImageDecoder(lambda: SIZES, ApiSettings(**settings))
        await decoder.start()
        await use(decoder)

    asyncio.run(run())


async def decoded(decoder: ImageDecoder, *images: bytes) -> list[DecodedImage]:
    products = await decoder.decode_all([RawProduct("", "", image) for image in images])
    assert all(isinstance(product.image, DecodedImage) for product in products)
    return [product.image for product in products]  # type: ignore[misc]


def test_a_picture_is_decoded_as_in_this_process() -> None:
    images = [jpeg((300, 200)), saved(Image.effect_noise((70, 90), 50), "PNG"), b"no picture", b""]

    async def use(decoder: ImageDecoder) -> None:
        for image, found in zip(images, await decoded(decoder, *images), strict=True):
            expected = decode_image(image, SIZES)
            assert found.state == expected.state
            assert list(found.pixels) == list(expected.pixels)
            assert all((found.pixels[size] == pixels).all() for size, pixels in expected.pixels.items())

    with_decoder(use)


def test_products_without_pictures_start_no_process() -> None:
    async def run() -> None:
        products, before = [RawProduct("a", "", None)] * 3, psutil.Process().children()
        assert await ImageDecoder(lambda: SIZES, ApiSettings()).decode_all(products) == products
        assert psutil.Process().children() == before

    asyncio.run(run())


@pytest.mark.parametrize(("data", "state"), [(LONG, TOO_SLOW), (KILLED, TOO_MUCH_MEMORY)])
def test_a_process_that_takes_too_long_or_dies_costs_one_picture(
    monkeypatch: pytest.MonkeyPatch, data: bytes, state: str
) -> None:
    async def use(decoder: ImageDecoder) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(decoding_worker, "decode", misbehave)
            started = time.monotonic()
            assert await decoded(decoder, data) == [DecodedImage(state, {})]
            assert time.monotonic() - started < 20
            workers = [
                child for child in psutil.Process().children() if "anyio.to_process" in " ".join(child.cmdline())
            ]
            assert len(workers) == decoder._n_processes  # it was replaced
        assert [image.state for image in await decoded(decoder, jpeg())] == [IMAGE_USED]

    with_decoder(use, picture_seconds=3)


def test_memory_over_the_limit_is_refused_by_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding_worker, "decode", misbehave)

    async def run() -> None:
        decoder = ImageDecoder(lambda: SIZES, ApiSettings())
        assert await decoder._decode(MUCH, 30) == DecodedImage(TOO_MUCH_MEMORY, {})

    asyncio.run(run())


def test_the_time_of_a_batch_is_shared_by_its_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    async def use(decoder: ImageDecoder) -> None:
        monkeypatch.setattr(decoding_worker, "decode", misbehave)
        started = time.monotonic()
        assert {image.state for image in await decoded(decoder, *[LONG] * 20)} == {TOO_SLOW}
        assert time.monotonic() - started < 20

    with_decoder(use, picture_seconds=1, batch_picture_seconds=1, wait_seconds=1)


def test_pictures_that_look_costly_do_not_hold_the_others_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_decoder, "costs_little", lambda data: data != LONG)
    monkeypatch.setattr(image_decoder, "cpu_count", lambda: 1)

    async def use(decoder: ImageDecoder) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(decoding_worker, "decode", misbehave)
            costly = [asyncio.create_task(decoded(decoder, LONG)) for _ in range(8)]
            await asyncio.sleep(0.1)
        started = time.monotonic()
        assert [image.state for image in await decoded(decoder, jpeg())] == [IMAGE_USED]
        assert time.monotonic() - started < 5
        for task in costly:
            task.cancel()
        await asyncio.gather(*costly, return_exceptions=True)

    with_decoder(use, picture_seconds=20)


def test_too_many_pictures_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    async def use(decoder: ImageDecoder) -> None:
        monkeypatch.setattr(decoding_worker, "decode", misbehave)
        waiting = asyncio.create_task(decoded(decoder, LONG, LONG))
        await asyncio.sleep(0.1)
        with pytest.raises(Problem, match="too many pictures wait"):
            await decoded(decoder, LONG)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert decoder._costly.n_pending == 0

    with_decoder(use, queue=2)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (jpeg((1000, 1000)), True),
        (saved(Image.new("L", (900, 600)), "JPEG", progressive=True), True),
        (saved(Image.new("L", (2500, 2500)), "JPEG"), False),
        (saved(Image.new("RGB", (1500, 1500)), "JPEG", progressive=True), False),  # ten scans
        (saved(Image.new("1", (2000, 2000)), "PNG"), True),
        (saved(Image.new("1", (4000, 4000)), "PNG"), False),
        (saved(Image.new("L", (9, 9)), "GIF"), False),
        (b"\xff\xd8" + b"\xff\xfe\x00\x02" * 100_000, False),  # its size does not come
        (b"\x89PNG\r\n\x1a\n", False),
        (b"\xff\xd8", False),
        (b"", False),
    ],
)
def test_what_costs_little_is_told_by_the_header(data: bytes, expected: bool) -> None:
    assert costs_little(data) is expected
    if expected:
        with Image.open(io.BytesIO(data)) as image:
            assert image.width * image.height <= CHEAP_PIXELS
