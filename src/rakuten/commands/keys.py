"""`rakuten keys NAME`: make an API key. It is shown once; its hash goes into the keys' file (API_KEYS_FILE)."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rakuten.cli import run_command
from rakuten.serving.keys import add_key
from rakuten.serving.roles import Role
from rakuten.serving.settings import load_settings


def command(arguments: argparse.Namespace) -> str:
    """Write the new key to standard output, or to a file."""
    path = load_settings().keys_file
    key = add_key(path, arguments.name, arguments.output, Role[arguments.role.upper()])
    if arguments.output is not None:
        return f"the key of {arguments.name} is in {arguments.output}, readable only by you; its hash is in {path}"
    sys.stdout.write(f"{key}\n")
    return f"the key of {arguments.name} is shown only once; its hash is in {path}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="rakuten keys", description=__doc__)
    parser.add_argument("name", help="owner of the key; shown in the access log")
    parser.add_argument("--output", metavar="FILE", type=Path, help="write the key to this file instead of showing it")
    parser.add_argument(
        "--role", choices=[role.word for role in Role], default=Role.CLASSIFY.word,
        help="review: the review desk too; administer: also what goes into it and comes out of it; default: classify",
    )  # fmt: skip
    return run_command("keys", command, parser, argv)
