"""From a prediction back to code and data, and runs that are still to be sent."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rakuten.cli import run
from rakuten.config import MODELS
from rakuten.tracking import registry, server, trace, training_run


def command(arguments: argparse.Namespace) -> str:
    server.check_server()
    if arguments.do == "sync":
        sent = training_run.sync(arguments.models)
        return f"{len(sent)} kept run(s) sent to {server.shown_uri()}"
    with server.answering():
        asked = server.client()
        found = trace.find(asked, arguments.run)
        if arguments.do == "lock":
            return trace.restore_lock(found)
        sys.stdout.write(trace.describe(asked, found) + "\n")
        sys.stdout.flush()
    return ""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m rakuten.tracking", description=__doc__)
    commands = parser.add_subparsers(dest="do", required=True, metavar="{trace,lock,sync}")
    what = f"a run's id, model_version of a prediction, or a number or alias of {registry.NAME}"
    for name, does in (
        ("trace", "print commit, parameters, data digests, and how to get back there"),
        ("lock", "write the run's dvc.lock here, for `dvc checkout`"),
    ):
        one = commands.add_parser(name, help=does, description=does)
        one.add_argument("run", help=what)
    late = commands.add_parser("sync", help="send the runs that a tracking server was away for")
    late.add_argument("--models", type=Path, default=MODELS, help="default: models")
    return run("tracking", command, parser, argv)


if __name__ == "__main__":
    sys.exit(main())
