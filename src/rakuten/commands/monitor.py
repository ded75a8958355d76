"""`rakuten monitor`: one look at live traffic, its report in data/live/drift/. Exit code 0, drift or not."""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from rakuten.cli import run_command
from rakuten.config import PARAMS, load_params
from rakuten.monitoring.monitor import check_drift
from rakuten.serving.settings import load_settings

log = logging.getLogger(__name__)


def command(arguments: argparse.Namespace) -> str:
    settings = load_settings()
    found = check_drift(load_params(arguments.params), settings.live, settings.from_registry)
    for alarm in found.verdict.alarms if found.verdict else ():
        log.warning("%s", alarm)
    return f"{found.line}; {found.report}" if found.report else found.line


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="rakuten monitor", description=__doc__)
    parser.add_argument("--params", type=Path, default=PARAMS, help="default: params.yaml")
    return run_command("monitoring", command, parser, argv)
