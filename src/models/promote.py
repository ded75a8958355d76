"""Promotion: the challenger becomes champion if the rules of params.yaml allow it."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the library of this tree, whichever is installed

from rakuten.cli import run_command
from rakuten.config import PARAMS, load_params
from rakuten.promotion.gate import promote_challenger, roll_back_champion
from rakuten.tracking import server


def promote(arguments: argparse.Namespace) -> str:
    params = load_params(arguments.params)
    server.check_server()
    with server.mlflow_errors():
        if arguments.rollback:
            return roll_back_champion(arguments.dry_run)
        return promote_challenger(params, arguments.dry_run, not arguments.without_comparison)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dry-run", action="store_true", help="say what would be decided, change nothing")
    parser.add_argument("--rollback", action="store_true", help="go back to the champion before this one")
    parser.add_argument(
        "--without-comparison", action="store_true", help="promote even if champion and challenger share no products"
    )
    parser.add_argument("--params", type=Path, default=PARAMS, help="default: params.yaml")
    return run_command("promote", promote, parser, argv)


if __name__ == "__main__":
    sys.exit(main())
