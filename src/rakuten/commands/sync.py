"""Send the runs that could not be sent to the tracking server."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from rakuten.cli import run_command
from rakuten.config import MODELS
from rakuten.tracking import server, training_run


def command(arguments: argparse.Namespace) -> str:
    """Send them; returns how many were sent."""
    server.check_server()
    sent = training_run.send_pending(arguments.models)
    return f"{len(sent)} kept run(s) sent to {server.redacted_uri()}"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="rakuten sync", description=__doc__)
    parser.add_argument("--models", type=Path, default=MODELS, help="default: models")
    return run_command("sync", command, parser, argv)
