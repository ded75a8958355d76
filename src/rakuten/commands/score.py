"""Classify the products of a CSV or Parquet file (columns designation, description, productid, imageid).

Its size is not limited by memory. Other columns are kept. A job that was stopped resumes at the chunk it had reached.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from rakuten.cli import run_command
from rakuten.compute import executor_from
from rakuten.config import CACHE, MODELS, PARAMS, load_params
from rakuten.data.product_files import CSV, PARQUET, TEXT_ENDINGS
from rakuten.data.text_files import other_kind
from rakuten.errors import UserError
from rakuten.files import is_local, parse_path
from rakuten.models.score_file import score_file


def command(arguments: argparse.Namespace) -> str:
    """Score the file; returns what was written."""
    check_paths(arguments.input, arguments.output, arguments.images)
    with executor_from(load_params(arguments.params).compute):
        return score_file(arguments.input, arguments.output, arguments.images, arguments.models, arguments.cache)


def check_paths(source: Path, output: Path, images: Path | None) -> None:
    """Check that these paths can be an input, an output and a folder of images. Other kinds of input are named.

    Raises:
        UserError: a path is missing, of the wrong kind, or the output is the input.
    """
    if not source.exists():
        raise UserError(f"{source}: no such file; check --input")
    if source.is_dir() or source.suffix.lower() not in (*TEXT_ENDINGS, PARQUET):
        raise UserError(
            f"{source}: {other_kind(source) or f'must be a {CSV} or {PARQUET} file; rename it if it is one'}"
        )
    if output.suffix.lower() not in (CSV, PARQUET):
        raise UserError(f"{output}: must be a {CSV} or {PARQUET} file")
    if is_local(output) and not output.parent.is_dir():
        raise UserError(f"{output.parent}: no such folder for {output.name}; create it, or choose another --output")
    if output.is_dir():
        raise UserError(f"{output}: is a folder; --output must be a file")
    both_exist = is_local(source) and is_local(output) and output.exists()
    if source.resolve() == output.resolve() or (both_exist and source.samefile(output)):
        raise UserError(f"{output}: is the input file, which is never overwritten; choose another --output")
    if images is not None and not images.is_dir():
        raise UserError(f"{images}: no such folder of images; correct --images, or omit it to use only the texts")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="rakuten score", description=__doc__)
    parser.add_argument("--input", type=parse_path, required=True, help="CSV or Parquet file, or its URL (s3://...)")
    parser.add_argument("--output", type=parse_path, required=True, help="CSV or Parquet file, or its URL (s3://...)")
    parser.add_argument("--images", type=parse_path, help="folder of the images; if omitted, only the texts are used")
    parser.add_argument("--models", type=Path, default=MODELS, help="default: models")
    parser.add_argument("--cache", type=Path, default=CACHE, help="embedding cache; default: data/cache")
    parser.add_argument("--params", type=Path, default=PARAMS, help="default: params.yaml")
    return run_command("score", command, parser, argv)
