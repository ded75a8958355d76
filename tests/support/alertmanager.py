"""A real Alertmanager, and receivers of its alerts on loopback, which keep what they get."""

import json
import os
import shutil
import socketserver
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

from tests.support.project import ROOT
from tests.support.servers import free_port, wait_for

PROGRAM = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")
START = ROOT / "deploy" / "alertmanager" / "start.sh"


def settings_of(folder: Path, **settings: str) -> dict[str, str]:
    """The environment of START: its configuration goes into the folder."""
    own = {"ALERTMANAGER": str(PROGRAM), "ALERTMANAGER_CONFIG": str(folder / "alertmanager.yml")}
    return {"PATH": os.environ["PATH"], "ALERT_GROUP_WAIT": "0s", **own, **settings}


@contextmanager
def alertmanager(folder: Path, **settings: str) -> Iterator[str]:
    """Its address, while it runs with these settings; its log and data are in the folder."""
    port, log = free_port(), folder / "alertmanager.log"
    command = ["sh", str(START), f"--storage.path={folder / 'alerts'}", f"--web.listen-address=127.0.0.1:{port}"]
    with log.open("w") as stream:
        process = subprocess.Popen(command, env=settings_of(folder, **settings), stdout=stream, stderr=stream)
    address = f"http://127.0.0.1:{port}"

    def is_ready() -> bool:
        assert process.poll() is None, log.read_text()
        with suppress(OSError):
            return bool(urllib.request.urlopen(f"{address}/-/ready", timeout=5).status == 200)
        return False

    try:
        wait_for(is_ready, "Alertmanager", 30)
        yield address
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def webhook() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Its URL, and the JSON bodies that it gets."""
    bodies: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with _running(HTTPServer(("127.0.0.1", 0), Handler)) as port:
        yield f"http://127.0.0.1:{port}/hook?a=1&b='2'", bodies


@contextmanager
def mail_server() -> Iterator[tuple[str, list[str]]]:
    """Its host and port, and the mails that it gets: the recipients' line, then the text."""
    mails: list[str] = []

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self._answer("220 mail")
            recipients = ""
            while line := self.rfile.readline().decode():
                command = line[:4].upper()
                if command == "RCPT":
                    recipients += line
                if command == "DATA":
                    self._answer("354 go on")
                    mails.append(recipients + "".join(iter(lambda: self.rfile.readline().decode(), ".\r\n")))
                self._answer("250 mail" if command != "QUIT" else "221 bye")

        def _answer(self, line: str) -> None:
            self.wfile.write(f"{line}\r\n".encode())

    with _running(socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)) as port:
        yield f"127.0.0.1:{port}", mails


@contextmanager
def _running(server: socketserver.TCPServer) -> Iterator[int]:
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
