"""Products that wait for a person: put them into the queue, exchange them with Label Studio, export the decisions."""

import argparse
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rakuten.cli import run_command
from rakuten.config import RAW
from rakuten.data.taxonomy import DEFAULT_LANGUAGE, LANGUAGES, current_taxonomy
from rakuten.errors import UserError
from rakuten.files import atomic_write
from rakuten.review import exchange, files, label_studio
from rakuten.review.desk import open_desk

log = logging.getLogger(__name__)


def add(arguments: argparse.Namespace) -> str:
    """Put the products of predictions.csv, of any scored file or of label_issues.csv into the queue."""
    added = open_desk().add(files.products_of(arguments.file, str(arguments.file), arguments.images))
    return f"{added.new:,} products added, {added.updated:,} updated, {added.decided:,} already decided"


def status(_: argparse.Namespace) -> str:
    """Log how many products wait, by source, and how many decisions there are, by person."""
    desk = open_desk()
    counts, kappa = desk.counts(), desk.agreement()
    for name, title in (("source", "open"), ("person", "decisions")):
        for key, number in counts[name].items():
            log.info("%s, %s: %s", title, key, f"{number:,}")
    if kappa is not None:
        log.info("agreement between people (Cohen's kappa, %s pairs of answers): %.2f", f"{kappa[1]:,}", kappa[0])
    return (
        ", ".join(f"{number:,} products {state}" for state, number in counts["state"].items()) or "the queue is empty"
    )


def tasks(arguments: argparse.Namespace) -> str:
    """Write the open products as tasks for Label Studio, and the labelling configuration of their project."""
    products, taxonomy = open_desk().open_products(), current_taxonomy()
    config = arguments.output.with_suffix(".xml")
    with atomic_write(arguments.output, config) as (json_file, xml_file):
        made = label_studio.tasks(products, taxonomy)
        json_file.write_text(json.dumps(made, ensure_ascii=False, indent=1), encoding="utf-8")
        xml_file.write_text(label_studio.label_config(taxonomy, arguments.language), encoding="utf-8")
    return f"{len(products):,} tasks in {arguments.output}; the labelling configuration is in {config}"


def annotations(arguments: argparse.Namespace) -> str:
    """Take over the decisions of a Label Studio project, from its export as JSON or JSON-MIN."""
    try:
        exported = json.loads(arguments.file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{arguments.file}: cannot be read as JSON ({error})") from error
    made = label_studio.decisions(exported)
    return f"{open_desk().import_decisions(made):,} of {len(made):,} decisions were new"


def export(arguments: argparse.Namespace) -> str:
    """Write corrections.csv: the products whose label people changed, or that got their first."""
    return f"{files.export_corrections(open_desk(), arguments.output):,} corrections in {arguments.output}"


def decisions(arguments: argparse.Namespace) -> str:
    """Write every decision as CSV, or take over those of such a file; ones that are there already change nothing."""
    desk = open_desk()
    if arguments.input is not None:
        table = files.read_table(arguments.input, str(arguments.input))
        new = desk.import_decisions(exchange.decisions_of(table))
        return f"{new:,} of {len(table):,} decisions were new"
    made = desk.all_decisions()
    with atomic_write(arguments.output) as (partial,):
        partial.write_text(exchange.decisions_csv(made), encoding="utf-8", newline="")
    return f"{len(made):,} decisions in {arguments.output}"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="rakuten review", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, function: Any) -> argparse.ArgumentParser:
        description = (function.__doc__ or "").strip().splitlines()[0]
        sub = commands.add_parser(name, help=description, description=description)
        sub.set_defaults(function=function)
        return sub

    adding = command("add", add)
    adding.add_argument(
        "file", type=Path, help="data/processed/predictions.csv, reports/label_issues.csv, a scored file"
    )
    adding.add_argument(
        "--images", type=Path, default=RAW / "images", help="folder of the pictures; default: data/raw/images"
    )
    command("status", status)
    writing = command("tasks", tasks)
    writing.add_argument("--output", type=Path, default=Path("tasks.json"), help="default: tasks.json")
    writing.add_argument("--language", choices=LANGUAGES, default=DEFAULT_LANGUAGE, help="of the codes' names")
    command("annotations", annotations).add_argument("file", type=Path, help="export of a Label Studio project")
    exchanging = command("decisions", decisions).add_mutually_exclusive_group(required=True)
    exchanging.add_argument("--output", type=Path, metavar="FILE", help="write every decision to this file")
    exchanging.add_argument("--input", type=Path, metavar="FILE", help="take over the decisions of such a file")
    exporting = command("export", export)
    exporting.add_argument(
        "--output", type=Path, default=files.EXPORTED, help="default: data/corrections/corrections.csv"
    )
    return run_command("review", lambda arguments: str(arguments.function(arguments)), parser, argv)
