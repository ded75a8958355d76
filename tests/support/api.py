"""The API in a process of its own, and HTTP requests to it."""

import base64
import io
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import requests
from PIL import Image

from tests.support.project import environment
from tests.support.servers import free_port, wait_for

POOL = {"designation": "Piscine gonflable ronde", "description": "<p>Avec pompe</p>"}


class Api:
    """`rakuten serve` in a project, on a free port."""

    def __init__(self, project: Path, log: Path, **settings: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log, self.project = log, project
        env = environment(project, API_PORT=str(self.port), **settings)
        del env["LOKY_MAX_CPU_COUNT"]  # the API's limits depend on the number of cores
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
        """Wait until it is ready; returns itself."""

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


def post(url: str, **kwargs: Any) -> requests.Response:
    return requests.post(url, timeout=60, **kwargs)


def get(url: str, **kwargs: Any) -> requests.Response:
    return requests.get(url, timeout=10, **kwargs)


def unnamed(response: requests.Response) -> dict[str, Any]:
    """An answer without its prediction_id, which differs each time."""
    body: dict[str, Any] = response.json()
    assert body.pop("prediction_id")
    return body


def jpeg(size: tuple[int, int] = (64, 64), kind: str = "JPEG") -> bytes:
    """An image of noise, encoded."""
    data = io.BytesIO()
    Image.effect_noise(size, 80).convert("RGB").save(data, kind)
    return data.getvalue()


def base64_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


def check_problem(answer: requests.Response, status: int, code: str) -> str:
    """Assert that a response is a problem with this status and code; returns its detail."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert (body["status"], body["code"]) == (status, code)
    assert body["request_id"] == answer.headers["x-request-id"]
    assert "Traceback" not in answer.text
    return str(body["detail"])
