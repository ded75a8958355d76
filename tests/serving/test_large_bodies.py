"""Large bodies: room for them, and whose turn it is."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from rakuten.serving import large_bodies as module
from rakuten.serving.large_bodies import LARGE_BODY_BYTES, Body, LargeBodies
from rakuten.serving.problems import Problem

LARGE = 300_000  # bytes; there is room for three


def with_bodies(use: Callable[[LargeBodies], Awaitable[None]], n_at_once: int = 2, wait_seconds: float = 0.05) -> None:
    async def run() -> None:
        await use(LargeBodies(1_000_000, n_at_once, wait_seconds))

    asyncio.run(run())


async def admitted(bodies: LargeBodies, n_bytes: int = LARGE) -> Body:
    body = Body(bodies, n_bytes)
    await body.wait_for_room()
    body.add(n_bytes)
    return body


def test_a_body_waits_for_room_and_those_that_came_before_it() -> None:
    async def use(bodies: LargeBodies) -> None:
        held = [await admitted(bodies) for _ in range(3)]
        order: list[str] = []

        async def wait(name: str, n_bytes: int) -> None:
            await admitted(bodies, n_bytes)
            order.append(name)

        waiting = [asyncio.create_task(wait("first", 600_000))]
        await asyncio.sleep(0)
        held[0].release()  # room for the second, which comes now, not for the first
        waiting.append(asyncio.create_task(wait("second", 250_000)))
        await asyncio.sleep(0)
        assert not order
        held[1].release()
        held[2].release()
        await asyncio.gather(*waiting)
        assert order == ["first", "second"]

    with_bodies(use)


def test_a_body_that_waited_too_long_is_refused_and_lets_the_next_in() -> None:
    async def use(bodies: LargeBodies) -> None:
        held = await admitted(bodies, 700_000)
        given_up = asyncio.create_task(admitted(bodies, 800_000))
        await asyncio.sleep(0.5)
        next_one = asyncio.create_task(admitted(bodies))
        with pytest.raises(Problem, match="too many large bodies at once"):
            await given_up
        await next_one  # there was room for it, but not for the one before it
        held.release()

    with_bodies(use, wait_seconds=1.0)


def test_a_client_that_leaves_while_it_waits_takes_no_room() -> None:
    async def use(bodies: LargeBodies) -> None:
        held = await admitted(bodies, 900_000)
        left = asyncio.create_task(admitted(bodies, 900_000))
        await asyncio.sleep(0)
        left.cancel()
        held.release()
        await asyncio.sleep(0)
        await admitted(bodies, 900_000)
        assert left.cancelled()

    with_bodies(use)


def test_a_body_larger_than_all_room_is_admitted_alone() -> None:
    async def use(bodies: LargeBodies) -> None:
        body = Body(bodies, 2_000_000)
        await body.wait_for_room()
        with pytest.raises(Problem):
            await Body(bodies, LARGE).wait_for_room()

    with_bodies(use)


def test_a_body_that_dribbles_soon_holds_only_what_has_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RESERVED_SECONDS", 0.01)

    async def use(bodies: LargeBodies) -> None:
        slow = Body(bodies, 900_000)
        await slow.wait_for_room()
        slow.add(10)
        others = [await admitted(bodies) for _ in range(3)]
        with pytest.raises(Problem, match="too many large bodies"):
            slow.add(800_000)
        for body in (slow, *others):
            body.release()
        await admitted(bodies, 1_000_000)

    with_bodies(use)


def test_a_body_that_comes_steadily_keeps_its_reservation() -> None:
    async def use(bodies: LargeBodies) -> None:
        body = Body(bodies, 900_000)
        await body.wait_for_room()
        for _ in range(3):
            body.add(100_000)
            body._check_reservation()  # as a timer does
            with pytest.raises(Problem):
                await Body(bodies, LARGE).wait_for_room()
        body.add(1000)
        body._check_reservation()
        await Body(bodies, LARGE).wait_for_room()
        body.release()

    with_bodies(use)


def test_a_body_without_a_length_counts_once_it_is_large() -> None:
    async def use(bodies: LargeBodies) -> None:
        held = [await admitted(bodies) for _ in range(3)]
        unknown = Body(bodies, 0)
        await unknown.wait_for_room()
        unknown.add(LARGE_BODY_BYTES)  # not large yet
        with pytest.raises(Problem, match="too many large bodies"):
            unknown.add(1)
        unknown.release()
        held[0].release()
        await admitted(bodies)

    with_bodies(use)


def test_few_large_requests_are_worked_on_at_once() -> None:
    async def use(bodies: LargeBodies) -> None:
        first, second, third = [await admitted(bodies) for _ in range(3)]
        small = Body(bodies, 10)
        small.add(10)
        for body in (first, second, first, small):  # asked for twice, and small: nobody waits
            await body.wait_for_turn()
        with pytest.raises(Problem, match="too many large requests at once"):
            await third.wait_for_turn()
        batch = Body(bodies, 0, is_batch=True)
        batch.n_bytes = LARGE
        await batch.wait_for_turn()  # batches wait for each other
        first.release()
        first.release()
        await third.wait_for_turn()

    with_bodies(use)
