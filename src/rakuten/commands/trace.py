"""Print the code and data behind a prediction, a run or a version of the model."""

import argparse
import sys
from collections.abc import Sequence

from rakuten.cli import run_command
from rakuten.tracking import registry, server, trace


def command(arguments: argparse.Namespace) -> str:
    """Print the run and the commands that restore its state; or, with --restore-lock, write its dvc.lock."""
    server.check_server()
    with server.mlflow_errors():
        client = server.get_client()
        training = trace.find_training(client, arguments.run)
        if arguments.restore_lock:
            return trace.restore_dvc_lock(training)
        sys.stdout.write(trace.format_training(client, training) + "\n")
        sys.stdout.flush()
    return ""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="rakuten trace", description=__doc__)
    parser.add_argument(
        "run", help=f"a run's id, the model_version of a prediction, or a number or an alias of {registry.MODEL_NAME}"
    )
    parser.add_argument(
        "--restore-lock",
        action="store_true",
        help="write the run's dvc.lock here, for `dvc checkout`, and print nothing",
    )
    return run_command("trace", command, parser, argv)
