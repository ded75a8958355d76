"""The short form of `make attack`: one client makes each attack, and an innocent client goes on beside it.

Nothing is judged in seconds: machines that test are slow and busy. docs/security.md has what `make attack` measured.
"""

import socket
import threading
from collections.abc import Iterator
from contextlib import closing, suppress

import numpy as np
import psutil
import pytest

from tests.support.api import Api
from tests.support.attacks import CORPUS, Attack, Measured, connect, measure

pytestmark = pytest.mark.heavy

SECONDS = 0.7  # of each attack
WAIT_SECONDS = 3.0  # for the answer to the first; what dribbles gets none so soon
MAX_RATIO = 25.0  # of the median times; a title that held the interpreter for 21 seconds made it several hundred
MAX_MEMORY_MB = 1000.0


@pytest.fixture(scope="module")
def server(api: Api) -> psutil.Process:
    return psutil.Process(api.process.pid)


@pytest.fixture(scope="module")
def usual(api: Api, server: psutil.Process) -> Iterator[Measured]:
    """The innocent client alone, once the server is warm."""
    measure(api.url, server, SECONDS)
    yield measure(api.url, server, SECONDS)


class Attacker:
    """One client that repeats an attack, in a thread; use as a context manager."""

    def __init__(self, port: int, attack: Attack) -> None:
        self._port, self._attack = port, attack
        self.statuses: list[int] = []
        self._stopping = threading.Event()
        self._connection: socket.socket | None = None
        self.has_attacked = threading.Event()
        self._thread = threading.Thread(target=self._repeat, daemon=True)

    def _repeat(self) -> None:
        while not self._stopping.is_set():
            with suppress(OSError), closing(connect(self._port, "127.0.0.2")) as self._connection:
                with suppress(OSError):
                    self._attack(self._connection)
                answer = self._connection.recv(65_536).split()
                self.statuses.append(int(answer[1]) if len(answer) > 1 else 0)
            self.has_attacked.set()

    def __enter__(self) -> "Attacker":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        if self._connection is not None:
            with suppress(OSError):
                self._connection.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)


@pytest.mark.parametrize("name", CORPUS)
def test_an_attack_costs_nobody_else_an_answer(name: str, api: Api, server: psutil.Process, usual: Measured) -> None:
    attack = CORPUS[name]()
    with Attacker(api.port, attack) as attacker:
        measured = measure(api.url, server, SECONDS)
        attacker.has_attacked.wait(WAIT_SECONDS)
    assert set(measured.statuses) == {200}
    assert np.median(measured.predict_seconds) < MAX_RATIO * np.median(usual.predict_seconds)
    assert measured.memory_mb < MAX_MEMORY_MB
    assert not [status for status in attacker.statuses if status >= 500 and status != 503]
    assert "Traceback" not in api.log.read_text()
