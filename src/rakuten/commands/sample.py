"""Write the synthetic sample catalogue, for those who do not have the challenge's data."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from rakuten.cli import run_command
from rakuten.config import RAW
from rakuten.data.synthetic import check_complete, write_catalogue
from rakuten.errors import UserError


def command(arguments: argparse.Namespace) -> str:
    rows, test_rows, out = arguments.rows, arguments.test_rows, arguments.out
    if min(rows, test_rows) < 1:
        raise UserError("--rows and --test-rows must be at least 1")
    if arguments.if_absent and (out / "X_train.csv").is_file():
        check_complete(out)
        return f"{out / 'X_train.csv'} is there, nothing written"
    write_catalogue(rows, test_rows, arguments.seed, out, images=not arguments.no_images)
    return f"no X_train.csv in {out}: wrote the synthetic sample there ({rows:,} + {test_rows:,} products)"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="rakuten sample", description=__doc__)
    parser.add_argument("--rows", type=int, default=2000, help="train products (default: 2000)")
    parser.add_argument("--test-rows", type=int, default=400, help="test products (default: 400)")
    parser.add_argument("--seed", type=int, default=1, help="same seed, same bytes (default: 1)")
    parser.add_argument("--out", type=Path, default=RAW, help="folder to write to (default: data/raw)")
    parser.add_argument("--no-images", action="store_true", help="texts and labels only")
    parser.add_argument("--if-absent", action="store_true", help="do nothing if X_train.csv is there")
    return run_command("sample", command, parser, argv)
