"""`rakuten serve`: the API and its page, on 127.0.0.1:8000 unless API_HOST and API_PORT say otherwise."""

import argparse
import ctypes
import logging
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress

import uvicorn

from rakuten.cli import run_command
from rakuten.data.taxonomy import current_taxonomy
from rakuten.errors import UserError
from rakuten.serving.app import create_app
from rakuten.serving.connections import http_protocol
from rakuten.serving.keys import ApiKeys
from rakuten.serving.middleware import access_log
from rakuten.serving.model_holder import LoadedModel, ModelHolder
from rakuten.serving.settings import ApiSettings, load_settings

log = logging.getLogger(__name__)

SHUTDOWN_SECONDS = 30  # for requests in flight
# A thread that scores a long text gives the interpreter up so often, by default every 5 ms; a request needs it several
# times. It costs no throughput.
SWITCH_SECONDS = 0.001
M_MMAP_THRESHOLD, LARGE_BLOCK_BYTES = -3, 262_144  # of glibc's mallopt


def command(_: argparse.Namespace) -> str:
    """Load the model and serve until the process is told to stop."""
    _return_freed_memory()
    sys.setswitchinterval(SWITCH_SECONDS)
    settings = load_settings()
    _check_port(settings)
    current_taxonomy()  # a wrong row ends the start, not the first request
    holder = ModelHolder(settings)
    holder.refresh()
    _log_start(settings, holder.current())
    _set_up_access_log()
    # uvicorn raises the signal again once it has stopped, which would end this process with an error.
    signal.signal(signal.SIGTERM, lambda *_: None)
    uvicorn.run(
        create_app(settings, holder),
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        timeout_keep_alive=30,
        workers=1,  # hosts set WEB_CONCURRENCY, by which uvicorn would start several; threads use the cores
        http=http_protocol(settings),
        ws="none",
        proxy_headers=bool(settings.trusted_proxies),  # by default uvicorn believes X-Forwarded-For from loopback
        forwarded_allow_ips=settings.trusted_proxies,
    )
    return "stopped"


def _return_freed_memory() -> None:
    """Let glibc give every large block back to the system when it is freed.

    By default the size from which it does rises with each block, here to that of the largest request body.
    """
    with suppress(AttributeError, OSError, TypeError):  # another C library
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, LARGE_BLOCK_BYTES)


def _check_port(settings: ApiSettings) -> None:
    """Raise UserError if the port is taken, before the model is loaded; uvicorn would end later, with a traceback."""
    with socket.socket(socket.AF_INET6 if ":" in settings.host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            raise UserError(f"{settings.host}:{settings.port}: {error.strerror}; choose another API_PORT") from error


def _log_start(settings: ApiSettings, model: LoadedModel) -> None:
    keys = f"keys of {settings.keys_file}" if settings.keys_required else "no keys required"
    log.info("model %s (%s), http://%s:%d, %s", model.model_version, model.source, settings.host, settings.port, keys)
    if settings.keys_required and not ApiKeys(settings.keys_file).has_keys():
        log.warning("%s has no key, so every request is refused: make one with `rakuten keys NAME`", settings.keys_file)


def _set_up_access_log() -> None:
    """Write each line of the access log as it is, without the level and name that other log lines have."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    access_log.propagate = False
    access_log.addHandler(handler)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    return run_command("serving", command, argparse.ArgumentParser(prog="rakuten serve", description=__doc__), argv)
