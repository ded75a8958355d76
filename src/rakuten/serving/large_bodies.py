"""Large request bodies: how much memory they take together, and how many are worked on at once.

A small body costs little more than its connection. Large ones wait for each other: unread until there is room for them,
then whole until it is their turn to be parsed, decoded and scored. A client that waits costs nothing, whereas one that
is refused sends the same again at once.
"""

import asyncio
from collections import deque
from typing import NamedTuple

from rakuten.serving.problems import Problem

LARGE_BODY_BYTES = 200_000  # from which a body is large: above a product with a picture of 500 x 500 pixels
# A body that was announced keeps its reservation as long as so many bytes of it come in so many seconds; a slower one
# holds what has come.
RESERVED_SECONDS, MIN_RESERVED_BYTES = 0.5, 100_000


class _Waiting(NamedTuple):
    n_bytes: int
    room: "asyncio.Future[None]"


class LargeBodies:
    """The large bodies of all requests.

    Args:
        max_bytes: of all large bodies whose requests are not answered yet.
        n_at_once: requests with a large body that are parsed, decoded or scored: so many batches, and so many others.
        wait_seconds: a request that has waited longer for room, or for its turn, is refused.
    """

    def __init__(self, max_bytes: int, n_at_once: int, wait_seconds: float) -> None:
        self._max_bytes, self._wait_seconds = max_bytes, wait_seconds
        self._n_bytes = 0  # received or reserved
        self._waiting: deque[_Waiting] = deque()
        self._turns = {is_batch: asyncio.Semaphore(n_at_once) for is_batch in (False, True)}

    async def wait_for_room(self, n_bytes: int) -> None:
        """Reserve memory, when those that came before have theirs.

        Raises:
            Problem: there was none in time.
        """
        if not self._waiting and self._has_room(n_bytes):
            self._n_bytes += n_bytes
            return
        waiting = _Waiting(n_bytes, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        try:
            async with asyncio.timeout(self._wait_seconds):
                await waiting.room
        except BaseException as error:
            if not waiting.room.cancelled():  # there was room at this very moment
                self.remove(n_bytes)
            elif waiting in self._waiting:
                self._waiting.remove(waiting)
                self._let_in()
            if isinstance(error, TimeoutError):
                raise _overloaded("too many large bodies at once") from None
            raise

    async def wait_for_turn(self, is_batch: bool) -> None:
        """Wait until few enough requests with a large body are worked on.

        Raises:
            Problem: that took too long.
        """
        try:
            async with asyncio.timeout(self._wait_seconds):
                await self._turns[is_batch].acquire()
        except TimeoutError:
            raise _overloaded("too many large requests at once") from None

    def end_turn(self, is_batch: bool) -> None:
        """Let the next request be worked on."""
        self._turns[is_batch].release()

    def add(self, n_bytes: int) -> None:
        """Count bytes of large bodies that have come without a reservation.

        Raises:
            Problem: they are too many.
        """
        self._n_bytes += n_bytes
        if self._n_bytes > self._max_bytes:
            raise _overloaded("too many large bodies at once")

    def remove(self, n_bytes: int) -> None:
        """Count bytes as no longer in memory, or no longer reserved."""
        self._n_bytes -= n_bytes
        self._let_in()

    def _has_room(self, n_bytes: int) -> bool:
        return self._n_bytes == 0 or self._n_bytes + n_bytes <= self._max_bytes

    def _let_in(self) -> None:
        while self._waiting and self._has_room(self._waiting[0].n_bytes):
            n_bytes, room = self._waiting.popleft()
            if not room.done():  # given up
                self._n_bytes += n_bytes
                room.set_result(None)


class Body:
    """The body of one request. What it takes of `LargeBodies` is given back by `release`.

    Args:
        announced_bytes: its length as the header has it; 0 if that says nothing. Then it waits for no room.
        is_batch: whether it is of a batch of products, which may take seconds.
    """

    def __init__(self, bodies: LargeBodies, announced_bytes: int, is_batch: bool = False) -> None:
        self._bodies, self._announced_bytes, self._is_batch = bodies, announced_bytes, is_batch
        self.n_bytes = 0  # received
        self._held_bytes = 0  # received or reserved, as far as they count
        self._has_turn = False
        self._reservation: asyncio.TimerHandle | None = None
        self._n_bytes_before = 0  # when the reservation was looked at last

    async def wait_for_room(self) -> None:
        """Wait, before it is read, until there is memory for it."""
        if self._announced_bytes <= LARGE_BODY_BYTES or self._held_bytes:
            return
        await self._bodies.wait_for_room(self._announced_bytes)
        self._held_bytes = self._announced_bytes
        self._reservation = asyncio.get_running_loop().call_later(RESERVED_SECONDS, self._check_reservation)

    def add(self, n_bytes: int) -> None:
        """Count a part that has come."""
        self.n_bytes += n_bytes
        if self.n_bytes > max(LARGE_BODY_BYTES, self._held_bytes):
            more = self.n_bytes - self._held_bytes
            self._held_bytes += more
            self._bodies.add(more)

    async def wait_for_turn(self) -> None:
        """Wait, now that it is whole, until it can be worked on."""
        if self.n_bytes > LARGE_BODY_BYTES and not self._has_turn:
            await self._bodies.wait_for_turn(self._is_batch)
            self._has_turn = True

    def release(self) -> None:
        """Its request is answered."""
        if self._reservation is not None:
            self._reservation.cancel()
        if self._has_turn:
            self._bodies.end_turn(self._is_batch)
        self._bodies.remove(self._held_bytes)
        self._has_turn, self._held_bytes = False, 0

    def _check_reservation(self) -> None:
        if self.n_bytes - self._n_bytes_before >= MIN_RESERVED_BYTES:
            self._n_bytes_before = self.n_bytes
            self._reservation = asyncio.get_running_loop().call_later(RESERVED_SECONDS, self._check_reservation)
            return
        too_many = self._held_bytes - self.n_bytes
        self._held_bytes -= too_many
        self._bodies.remove(too_many)


def _overloaded(reason: str) -> Problem:
    return Problem("overloaded", f"{reason}; try again later", 1)
