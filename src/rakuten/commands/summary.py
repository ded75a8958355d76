"""Print a short table of the results of the last `dvc repro`."""

import argparse
import json
import logging
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rakuten.cli import run_command
from rakuten.config import MODELS, PROCESSED, REPORTS, ROOT, SCORES_FILE
from rakuten.errors import UserError
from rakuten.tracking import dvc_lock, lineage, server, training_run

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Results:
    """The results of the last `dvc repro`, as its stages wrote them."""

    quality: dict[str, Any]  # data_quality.json
    scores: dict[str, Any]  # scores.json
    decisions: dict[str, Any]  # decisions.json
    model_version: str


def summary_table(results: Results, predictions: Path, ui: str, program: str) -> str:
    """The results as a table of names and values.

    Args:
        predictions: the path of predictions.csv.
        ui: how to see the runs.
        program: how a shell calls `rakuten`.
    """
    scores, decisions = results.scores, results.decisions
    train, test = results.quality["train"], results.quality["test"]
    rows = {
        "Train rows": f"{train['rows_in']:,} read, {train['rows_rejected']:,} rejected",
        "Test rows": f"{test['rows_in']:,} read, all predicted",
        "Weighted F1": _with_interval(scores, "weighted_f1"),
        "Macro F1": _with_interval(scores, "macro_f1"),
        "": "out of fold, 95 % interval" + (", on SYNTHETIC data" if scores["synthetic"] else ""),
        "Decided": f"{decisions['decided']:,} of {decisions['rows']:,} test products without review, "
        f"for a precision of {decisions['target_precision']:.0%}",
        "Model": f"version {results.model_version}    ({program} trace {results.model_version})",
        "Predictions": str(predictions),
        "Runs": ui,
    }
    width = max(map(len, rows))
    return "\n".join(f"  {name:<{width}}  {value}".rstrip() for name, value in rows.items())


def _with_interval(scores: dict[str, Any], name: str) -> str:
    low, high = scores["interval"][name]
    return f"{scores[name]:.4f}  [{low:.4f}, {high:.4f}]"


def summarise(_: argparse.Namespace) -> str:
    """Attach dvc.lock to the run of the training, and print the table."""
    files = (REPORTS / "data_quality.json", MODELS / SCORES_FILE, REPORTS / "decisions.json")
    quality, scores, decisions = map(_read_json, files)
    results = Results(quality, scores, decisions, lineage.model_version(MODELS))
    # predict attaches dvc.lock too, but does not run after a forced training that gave the same model again.
    dvc_lock.attach_dvc_lock(MODELS)
    n_pending = len(training_run.pending_runs(MODELS))
    if n_pending:
        log.warning("%d run(s) not sent to %s yet: `rakuten sync`", n_pending, server.redacted_uri())
    store = _from_here(ROOT / "mlflow.db")
    ui = f"{call('mlflow')} ui --backend-store-uri sqlite:///{store}    (or: make ui)"
    ui = ui if server.uri() == server.EMBEDDED else server.redacted_uri()
    predictions = _from_here(PROCESSED / "predictions.csv")
    sys.stdout.write(f"\n{summary_table(results, predictions, ui, call('rakuten'))}\n\n")
    sys.stdout.flush()
    return ""


def call(program: str) -> str:
    """How the user's shell calls a program of this environment: by its name, or by its path if that is not active.

    make puts the environment first on the PATH of what it runs; the shell that called make has it only if the
    environment is active there, which VIRTUAL_ENV says.
    """
    own = Path(sys.executable).parent
    found = shutil.which(program)
    is_on_path = found is not None and Path(found).parent == own
    is_active = os.environ.get("VIRTUAL_ENV") == sys.prefix
    return program if is_on_path and (is_active or "MAKELEVEL" not in os.environ) else str(_from_here(own / program))


def _from_here(path: Path) -> Path:
    """A path relative to the current folder if it is below it."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read; run `dvc repro` first") from error


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="rakuten summary", description=__doc__)
    return run_command("summary", summarise, parser, argv)
