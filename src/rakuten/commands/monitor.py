"""`rakuten monitor`: check live traffic for drift and write the report. Exit code 0, with or without drift."""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from rakuten.cli import run_command
from rakuten.config import PARAMS, load_params
from rakuten.monitoring.monitor import check_drift
from rakuten.monitoring.status_files import AUDIT_FILE
from rakuten.serving.settings import load_settings

log = logging.getLogger(__name__)


def command(arguments: argparse.Namespace) -> str:
    settings = load_settings()
    check = check_drift(load_params(arguments.params), settings.live, settings.from_registry)
    for alarm in check.alarms:
        log.warning("%s", alarm)
    if check.n_to_audit:
        log.info(
            "%s decided predictions need a label to be judged: fill in prdtypecode in %s",
            f"{check.n_to_audit:,}",
            settings.live / AUDIT_FILE,
        )
    return f"{check.summary}; {check.html}" if check.html else check.summary


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="rakuten monitor", description=__doc__)
    parser.add_argument("--params", type=Path, default=PARAMS, help="default: params.yaml")
    return run_command("monitoring", command, parser, argv)
