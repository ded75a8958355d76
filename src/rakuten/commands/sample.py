"""Write the synthetic sample catalogue, for users without the challenge's data."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from rakuten.cli import run_command
from rakuten.config import RAW
from rakuten.data.schema import X_TRAIN
from rakuten.data.synthetic import check_complete, write_catalogue
from rakuten.errors import UserError


def command(arguments: argparse.Namespace) -> str:
    """Write the catalogue, unless it exists and --if-absent is given. Returns the closing line."""
    n_train, n_test, out = arguments.rows, arguments.test_rows, arguments.out
    if min(n_train, n_test) < 1:
        raise UserError("--rows and --test-rows must be at least 1")
    if arguments.if_absent and (out / X_TRAIN).is_file():
        check_complete(out)
        return f"{out / X_TRAIN} exists, nothing written"
    write_catalogue(n_train, n_test, arguments.seed, out, images=not arguments.no_images)
    return f"no {X_TRAIN} in {out}: wrote the synthetic sample there ({n_train:,} + {n_test:,} products)"


def main(argv: Sequence[str] | None = None) -> int:
    """Run `rakuten sample` with the given command line."""
    parser = argparse.ArgumentParser(prog="rakuten sample", description=__doc__)
    parser.add_argument("--rows", type=int, default=2000, help="train products (default: 2000)")
    parser.add_argument("--test-rows", type=int, default=400, help="test products (default: 400)")
    parser.add_argument("--seed", type=int, default=1, help="the same seed gives identical files (default: 1)")
    parser.add_argument("--out", type=Path, default=RAW, help="folder to write to (default: data/raw)")
    parser.add_argument("--no-images", action="store_true", help="write texts and labels only")
    parser.add_argument("--if-absent", action="store_true", help="do nothing if X_train.csv exists")
    return run_command("sample", command, parser, argv)
