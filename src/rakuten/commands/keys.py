"""Make a key to the API. It is shown once; its hash goes into the file of keys (API_KEYS_FILE)."""

import argparse
import sys
from collections.abc import Sequence

from rakuten.cli import run_command
from rakuten.serving.keys import add_key
from rakuten.serving.settings import load_settings


def command(arguments: argparse.Namespace) -> str:
    path = load_settings().keys_file
    sys.stdout.write(add_key(path, arguments.name) + "\n")
    return f"this key of {arguments.name} is shown once; its hash is in {path}"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="rakuten keys", description=__doc__)
    parser.add_argument("name", help="whose key it is: shown in the log")
    return run_command("keys", command, parser, argv)
