"""Print the code and data behind a prediction, a run or a version of the model, or the decisions behind a train row."""

import argparse
import sys
from collections.abc import Sequence

from rakuten.cli import run_command
from rakuten.config import INTERIM, load_params
from rakuten.data.corrections import CORRECTIONS_FILE
from rakuten.data.tables import read_table
from rakuten.errors import UserError
from rakuten.tracking import registry, server, trace


def command(arguments: argparse.Namespace) -> str:
    """Print the run and the commands that restore its state; or, with --restore-lock, write its dvc.lock."""
    if arguments.product:
        return _print("\n".join(product_lines(arguments.product)))
    server.check_server()
    with server.mlflow_errors():
        client = server.get_client()
        training = trace.find_training(client, arguments.run)
        if arguments.restore_lock:
            return trace.restore_dvc_lock(training)
        return _print(trace.format_training(client, training))


def product_lines(productid: str) -> list[str]:
    """The corrections of a product and the decisions behind them.

    Raises:
        UserError: no correction names the product.
    """
    # Whoever traces a run has no need of SQLAlchemy.
    from rakuten.review.provenance import corrections_of
    from rakuten.review.reviewed import existing_desk

    path = INTERIM / CORRECTIONS_FILE
    outcomes = read_table(path)
    desk = existing_desk(load_params().review.agreement)
    lines = list(corrections_of(productid, outcomes, desk.decided() if desk is not None else ()))
    if not lines:
        raise UserError(f"{path}: no correction of product {productid}; its label is that of the raw files")
    return lines


def _print(text: str) -> str:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
    return ""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="rakuten trace", description=__doc__)
    traced = parser.add_mutually_exclusive_group(required=True)
    traced.add_argument(
        "run",
        nargs="?",
        help=f"a run's id, the model_version of a prediction, or a number or an alias of {registry.MODEL_NAME}",
    )
    traced.add_argument(
        "--product", metavar="PRODUCTID", help="print the decisions that changed the train row of this product"
    )
    parser.add_argument(
        "--restore-lock",
        action="store_true",
        help="write the run's dvc.lock here, for `dvc checkout`, and print nothing",
    )
    return run_command("trace", command, parser, argv)
