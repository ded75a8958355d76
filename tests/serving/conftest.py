"""A real API on a model of the sample catalogue with the default encoders, and ways to start others."""

import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.project import environment
from tests.support.servers import free_port, wait_for


class Api:
    """A server in a process of its own."""

    def __init__(self, project: Path, log: Path, **settings: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log, self.project = log, project
        env = environment(project, API_PORT=str(self.port), **settings)
        with log.open("w") as stream:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "rakuten", "serve"],
                cwd=project,
                env=env,
                stdout=stream,
                stderr=stream,
                start_new_session=True,
            )

    def wait(self) -> "Api":
        def up() -> bool:
            assert self.process.poll() is None, self.log.read_text()[-2000:]
            try:
                with urllib.request.urlopen(f"{self.url}/ready", timeout=5):
                    return True
            except OSError:
                return False

        wait_for(up, "the API", 120)
        return self

    def stop(self, how: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            os.killpg(self.process.pid, how)
        return self.process.wait(60)


@pytest.fixture(scope="session")
def api(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    server = Api(trained, tmp_path_factory.mktemp("api") / "log").wait()
    yield server
    server.stop()


@pytest.fixture
def start(trained: Path, tmp_path: Path) -> Iterator[Callable[..., Api]]:
    """Start an API with settings of its own: `start(API_QUEUE="1")`; all are stopped at the end."""
    started: list[Api] = []

    def make(project: Path = trained, **settings: str) -> Api:
        started.append(Api(project, tmp_path / f"api{len(started)}.log", **settings))
        return started[-1].wait()

    yield make
    for server in started:
        server.stop(signal.SIGKILL)
