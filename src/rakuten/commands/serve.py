"""`rakuten serve`: the API and its page, on 127.0.0.1:8000 unless API_HOST and API_PORT say otherwise."""

import argparse
import logging
import signal
import socket
import sys
from collections.abc import Sequence

import uvicorn

from rakuten.cli import run_command
from rakuten.errors import UserError
from rakuten.serving.app import create_app
from rakuten.serving.keys import ApiKeys
from rakuten.serving.model_holder import ModelHolder
from rakuten.serving.settings import ApiSettings, load_settings

log = logging.getLogger(__name__)

STOP_WITHIN = 30  # seconds for what is in flight


def serve(_: argparse.Namespace) -> str:
    settings = load_settings()
    _check_free(settings)
    holder = ModelHolder(settings)
    holder.refresh()
    held = holder.current()
    keys = f"keys of {settings.keys_file}" if settings.asks_for_keys else "no keys asked for"
    log.info("model %s (%s), http://%s:%d, %s", held.model_version, held.source, settings.host, settings.port, keys)
    if settings.asks_for_keys and not ApiKeys(settings.keys_file).there():
        log.warning("%s has no key, so nobody is let in: `rakuten keys NAME`", settings.keys_file)
    logging.getLogger("rakuten.serving.access").propagate = False
    logging.getLogger("rakuten.serving.access").addHandler(_plain())
    # uvicorn raises the signal again once it has stopped: a stop that was asked for is no failure.
    signal.signal(signal.SIGTERM, lambda *_: None)
    uvicorn.run(
        create_app(settings, holder),
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=STOP_WITHIN,
        timeout_keep_alive=30,
        h11_max_incomplete_event_size=64 * 1024,
    )
    return "stopped"


def _check_free(settings: ApiSettings) -> None:
    """Before the model is loaded: uvicorn itself would say so in a traceback, and later."""
    with socket.socket(socket.AF_INET6 if ":" in settings.host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            raise UserError(f"{settings.host}:{settings.port}: {error.strerror}; set API_PORT to another") from error


def _plain() -> logging.Handler:
    """Each request as one line of JSON, nothing before it."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    return handler


def main(argv: Sequence[str] | None = None) -> int:
    return run_command("serving", serve, argparse.ArgumentParser(prog="rakuten serve", description=__doc__), argv)
