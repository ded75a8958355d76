"""`rakuten keys NAME`: make an API key. It is shown once; its hash goes into the keys' file (API_KEYS_FILE)."""

import argparse
import sys
from collections.abc import Sequence

from rakuten.cli import run_command
from rakuten.serving.keys import add_key
from rakuten.serving.settings import load_settings


def command(arguments: argparse.Namespace) -> str:
    """Write the new key to standard output."""
    path = load_settings().keys_file
    sys.stdout.write(add_key(path, arguments.name) + "\n")
    return f"the key of {arguments.name} is shown once; its hash is in {path}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="rakuten keys", description=__doc__)
    parser.add_argument("name", help="whose key it is; shown in the access log")
    return run_command("keys", command, parser, argv)
