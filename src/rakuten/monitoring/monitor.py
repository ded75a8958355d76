"""One look at live traffic: read the log, compare, judge, write the report, record it in MLflow.

Reads what the API logged (`data/live/`), the champion's reference and, if it is there, `labels.csv`;
writes `drift.html`, `drift.json` and `drift.png` to `data/live/drift/`, which the API shows to Prometheus.
"""

import json
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from rakuten.config import MODELS, REPORTS, Params
from rakuten.errors import UserError
from rakuten.evaluation import plots
from rakuten.evaluation.report import REFERENCE_FILE
from rakuten.features.monitored_columns import MONITORED_COLUMNS
from rakuten.files import atomic_write, dump_json
from rakuten.monitoring.alerts import DriftReport, class_shares, judge_drift, live_score
from rakuten.monitoring.drift import column_drift
from rakuten.monitoring.plots import drift_figure
from rakuten.monitoring.prediction_log import read_window
from rakuten.monitoring.status_files import DRIFT_FILE, LAST_CHECK_FILE
from rakuten.tracking import lineage, monitoring_runs, registered_model

LABELS_FILE, RETRAINING_FILE = "labels.csv", "retrained.json"
LABELLED_WINDOW = 50_000  # of the latest predictions, those that labels are looked for


class Reference(NamedTuple):
    """What live traffic is compared with, and whose it is."""

    frame: pd.DataFrame
    model_version: str
    registry_version: str | None
    synthetic: bool


class DriftCheck(NamedTuple):
    """What one look found; `verdict` is None where there is too little to judge."""

    verdict: DriftReport | None
    line: str
    report: Path | None
    run_id: str | None


def check_drift(params: Params, live: Path, from_registry: bool) -> DriftCheck:
    """Compare the latest predictions of the model that answers with what it was trained on.

    Args:
        live: the API's folder of the live log.
        from_registry: the champion of the registry answers; else the model in models/.

    Raises:
        UserError: there is no reference, or what is there cannot be read.
    """
    reference = champion_reference() if from_registry else local_reference()
    current = read_window(live, params.monitor.window, reference.model_version)
    checked = datetime.now(UTC).isoformat(timespec="seconds")
    with atomic_write(live / LAST_CHECK_FILE) as (part,):
        dump_json({"checked": checked}, part)
    if len(current) < params.monitor.min_rows:
        line = f"{len(current):,} predictions of model {reference.model_version}: too few to judge"
        return DriftCheck(None, f"{line} (min_rows {params.monitor.min_rows:,})", None, None)
    drift = column_drift(reference.frame, current, params.monitor)
    labelled = read_window(live, LABELLED_WINDOW, reference.model_version)
    scores = live_score(reference.frame, labelled, read_labels(live / LABELS_FILE), params)
    verdict = judge_drift(reference.frame, current, drift.columns, scores, params)
    classes = class_shares(reference.frame, current)
    window = [datetime.fromtimestamp(current["time"].iloc[at], UTC).isoformat(timespec="seconds") for at in (0, -1)]
    about: dict[str, Any] = {
        "checked": checked,
        "window": window,
        "model_version": reference.model_version,
        "registry_version": reference.registry_version,
        "synthetic": reference.synthetic,
    }
    kind = "synthetic reference, " if reference.synthetic else ""
    title = f"{kind}{verdict.rows:,} predictions of model {reference.model_version}, {window[0]} to {window[1]}"
    files = [(live / DRIFT_FILE).with_suffix(ending) for ending in (".html", ".png", ".json")]
    with atomic_write(*files) as (page, picture, table):
        drift.save_html(page)
        plots.save_figure(drift_figure(verdict, classes, title), picture)
        dump_json(about | verdict.as_json() | {"classes": classes}, table)
    run_id = monitoring_runs.log_drift_report(
        _metrics(verdict), {name: str(value) for name, value in about.items()}, files
    )
    line = f"{len(verdict.alarms)} alarms" if verdict.alarms else "no drift"
    return DriftCheck(verdict, f"{line} in {verdict.rows:,} predictions", files[0], run_id)


def _metrics(verdict: DriftReport) -> dict[str, float]:
    found = {f"drift_{each.column}": each.score for each in verdict.drift}
    found |= {"rows": verdict.rows, "review": verdict.review, "alarms": len(verdict.alarms)}
    if verdict.live is not None:
        found |= {"live_weighted_f1": verdict.live.weighted_f1, "labels": verdict.live.rows}
    return found


def local_reference() -> Reference:
    """The reference beside the model in models/."""
    version = lineage.model_version(MODELS) if (MODELS / "manifest.json").is_file() else None
    if version is None or not (REPORTS / REFERENCE_FILE).is_file():
        raise UserError(f"{REPORTS / REFERENCE_FILE}: no reference of a model; make both with `make run`")
    metrics = json.loads((MODELS / "metrics.json").read_text(encoding="utf-8"))
    return Reference(_read_reference(REPORTS / REFERENCE_FILE), version, None, bool(metrics["synthetic"]))


def champion_reference() -> Reference:
    """The reference that the champion's run holds."""
    held = registered_model.get_champion()
    if held is None:
        raise UserError("no champion: promote one with `make promote`")
    with tempfile.TemporaryDirectory() as folder:
        path, about = registered_model.download_reference(held, f"{REPORTS.name}/{REFERENCE_FILE}", Path(folder))
        return Reference(_read_reference(path), about["model_version"], held.number, about["synthetic"])


def _read_reference(path: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(path, columns=[*MONITORED_COLUMNS, "prdtypecode"])
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not a reference of this code ({error}); train again") from error


def read_labels(path: Path) -> pd.DataFrame:
    """Labels that came later: prediction_id, prdtypecode. No rows where there is no file.

    Raises:
        UserError: it is no CSV with these columns, or a code is no whole number.
    """
    if not path.is_file():
        return pd.DataFrame({"prediction_id": pd.Series(dtype="str"), "prdtypecode": pd.Series(dtype="int64")})
    try:
        frame = pd.read_csv(path, dtype="str", keep_default_na=False, encoding="utf-8")
        return frame[["prediction_id", "prdtypecode"]].astype({"prdtypecode": "int64"})
    except (ValueError, KeyError) as error:
        raise UserError(f"{path}: not a CSV of prediction_id and prdtypecode ({error})") from error


def last_retraining(live: Path) -> datetime | None:
    """When drift last led to a retraining."""
    try:
        return datetime.fromisoformat(json.loads((live / RETRAINING_FILE).read_text(encoding="utf-8"))["at"])
    except (OSError, ValueError, KeyError):
        return None


def record_retraining(live: Path, now: datetime) -> None:
    with atomic_write(live / RETRAINING_FILE) as (part,):
        dump_json({"at": now.isoformat()}, part)
