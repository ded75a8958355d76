"""What the last `dvc repro` gave, as a short table on the terminal: `rakuten summary`."""

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rakuten.cli import run_command
from rakuten.config import MODELS, PROCESSED, REPORTS, ROOT
from rakuten.errors import UserError
from rakuten.tracking import dvc_lock, lineage, server, training_run

log = logging.getLogger(__name__)

UI_COMMAND = ".venv/bin/mlflow ui --backend-store-uri sqlite:///mlflow.db    (or: make ui)"


def summary_table(
    quality: dict[str, Any], metrics: dict[str, Any], decisions: dict[str, Any], model: str, predictions: Path, ui: str
) -> str:
    """The closing table from data_quality.json, metrics.json and decisions.json."""
    train, test = quality["train"], quality["test"]
    scores = {
        name: f"{metrics[key]:.4f}  [{metrics['interval'][key][0]:.4f}, {metrics['interval'][key][1]:.4f}]"
        for name, key in (("Weighted F1", "weighted_f1"), ("Macro F1", "macro_f1"))
    }
    rows = {
        "Train rows": f"{train['rows_in']:,} read, {train['rows_rejected']:,} rejected",
        "Test rows": f"{test['rows_in']:,} read, all predicted",
        **scores,
        "": "out of fold, 95 % interval" + (", on SYNTHETIC data" if metrics["synthetic"] else ""),
        "Decided": f"{decisions['decided']:,} of {decisions['rows']:,} test products without review, "
        f"for a precision of {decisions['target_precision']:.0%}",
        "Model": f"version {model}    (rakuten trace {model})",
        "Predictions": str(predictions),
        "Runs": ui,
    }
    width = max(map(len, rows))
    return "\n".join(f"  {name:<{width}}  {value}".rstrip() for name, value in rows.items())


def summarise(_: argparse.Namespace) -> str:
    files = (REPORTS / "data_quality.json", MODELS / "metrics.json", REPORTS / "decisions.json")
    quality, metrics, decisions = (_read_json(path) for path in files)
    # A training that DVC was forced to repeat gives the same model, so no later stage ran after it.
    dvc_lock.attach_dvc_lock(MODELS)
    waiting = len(training_run.pending_runs(MODELS))
    if waiting:
        log.warning("%d run(s) still to be sent to %s: `rakuten sync`", waiting, server.redacted_uri())
    ui = UI_COMMAND if server.uri() == server.EMBEDDED else server.redacted_uri()
    model = lineage.model_version(MODELS)
    predictions = (PROCESSED / "predictions.csv").relative_to(ROOT)
    sys.stdout.write(f"\n{summary_table(quality, metrics, decisions, model, predictions, ui)}\n\n")
    sys.stdout.flush()
    return ""


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read; run `dvc repro` first") from error


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="rakuten summary", description=__doc__)
    return run_command("summary", summarise, parser, argv)
