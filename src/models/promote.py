"""Promotion: the challenger becomes the champion if the rules of params.yaml allow it."""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the library of this tree, whichever is installed

import rakuten.interrupts  # noqa: F401 - for its effect, before the others
from rakuten.cli import run_command
from rakuten.config import MODELS, PARAMS, load_params
from rakuten.promotion.gate import promote_challenger, roll_back_champion
from rakuten.tracking import dvc_lock, lineage, server, training_run

log = logging.getLogger(__name__)


def promote(arguments: argparse.Namespace) -> str:
    """Promote the challenger, or roll the champion back; returns the decision in one line."""
    params = load_params(arguments.params)
    server.check_server()
    with server.mlflow_errors():
        if arguments.rollback:
            return roll_back_champion(params, arguments.dry_run)
        number = training_run.register_local(MODELS)
        if number is not None:
            log.info("the model in %s is now version %s, the challenger", MODELS.name, number)
        if lineage.is_in_dvc_lock(MODELS):  # `dvc repro` does not, where another training gave this very model
            dvc_lock.attach_dvc_lock(MODELS)
        return promote_challenger(params, arguments.dry_run, not arguments.without_comparison)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dry-run", action="store_true", help="show the decision, change nothing")
    parser.add_argument("--rollback", action="store_true", help="make the previous champion the champion again")
    parser.add_argument(
        "--without-comparison", action="store_true", help="do not compare the challenger with the champion"
    )
    parser.add_argument("--params", type=Path, default=PARAMS, help="default: params.yaml")
    return run_command("promote", promote, parser, argv)


if __name__ == "__main__":
    sys.exit(main())
