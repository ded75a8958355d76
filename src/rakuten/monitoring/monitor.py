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
from rakuten.evaluation.report import REFERENCE
from rakuten.features.monitored_columns import WATCHED
from rakuten.files import dump_json, writing
from rakuten.monitoring.alerts import Verdict, by_class, judge, live_scores
from rakuten.monitoring.drift import compare
from rakuten.monitoring.plots import drift_figure
from rakuten.monitoring.prediction_log import read_window
from rakuten.serving.exported_metrics import DRIFT, LOOKED
from rakuten.tracking import lineage, monitoring_runs, registered_model

LABELS, RETRAINED = "labels.csv", "retrained.json"
LABELLED = 50_000  # of the latest predictions, those that labels are looked for


class Reference(NamedTuple):
    """What live traffic is compared with, and whose it is."""

    frame: pd.DataFrame
    model_version: str
    registry_version: str | None
    synthetic: bool


class Look(NamedTuple):
    """What one look found; `verdict` is None where there is too little to judge."""

    verdict: Verdict | None
    line: str
    report: Path | None
    run_id: str | None


def look(params: Params, live: Path, from_registry: bool) -> Look:
    """Compare the latest predictions of the model that answers with what it was trained on.

    Args:
        live: the API's folder of the live log.
        from_registry: the champion of the registry answers; else the model in models/.

    Raises:
        UserError: there is no reference, or what is there cannot be read.
    """
    reference = registered() if from_registry else local()
    current = read_window(live, params.monitor.window, reference.model_version)
    checked = datetime.now(UTC).isoformat(timespec="seconds")
    with writing(live / LOOKED) as (part,):
        dump_json({"checked": checked}, part)
    if len(current) < params.monitor.min_rows:
        line = f"{len(current):,} predictions of model {reference.model_version}: too few to judge"
        return Look(None, f"{line} (min_rows {params.monitor.min_rows:,})", None, None)
    drift = compare(reference.frame, current, params.monitor)
    labelled = read_window(live, LABELLED, reference.model_version)
    scores = live_scores(reference.frame, labelled, read_labels(live / LABELS), params)
    verdict = judge(reference.frame, current, drift.columns, scores, params)
    classes = by_class(reference.frame, current)
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
    files = [(live / DRIFT).with_suffix(ending) for ending in (".html", ".png", ".json")]
    with writing(*files) as (page, picture, table):
        drift.save_html(page)
        plots.save(drift_figure(verdict, classes, title), picture)
        dump_json(about | verdict.as_json() | {"classes": classes}, table)
    run_id = monitoring_runs.record(_metrics(verdict), {name: str(value) for name, value in about.items()}, files)
    line = f"{len(verdict.alarms)} alarms" if verdict.alarms else "no drift"
    return Look(verdict, f"{line} in {verdict.rows:,} predictions", files[0], run_id)


def _metrics(verdict: Verdict) -> dict[str, float]:
    found = {f"drift_{each.column}": each.score for each in verdict.drift}
    found |= {"rows": verdict.rows, "review": verdict.review, "alarms": len(verdict.alarms)}
    if verdict.live is not None:
        found |= {"live_weighted_f1": verdict.live.weighted_f1, "labels": verdict.live.rows}
    return found


def local() -> Reference:
    """The reference beside the model in models/."""
    version = lineage.model_version(MODELS) if (MODELS / "manifest.json").is_file() else None
    if version is None or not (REPORTS / REFERENCE).is_file():
        raise UserError(f"{REPORTS / REFERENCE}: no reference of a model; make both with `make run`")
    metrics = json.loads((MODELS / "metrics.json").read_text(encoding="utf-8"))
    return Reference(_read(REPORTS / REFERENCE), version, None, bool(metrics["synthetic"]))


def registered() -> Reference:
    """The reference that the champion's run holds."""
    held = registered_model.champion()
    if held is None:
        raise UserError("no champion: promote one with `make promote`")
    with tempfile.TemporaryDirectory() as folder:
        path, about = registered_model.reference(held, f"{REPORTS.name}/{REFERENCE}", Path(folder))
        return Reference(_read(path), about["model_version"], held.number, about["synthetic"])


def _read(path: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(path, columns=[*WATCHED, "prdtypecode"])
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
        return datetime.fromisoformat(json.loads((live / RETRAINED).read_text(encoding="utf-8"))["at"])
    except (OSError, ValueError, KeyError):
        return None


def note_retraining(live: Path, now: datetime) -> None:
    with writing(live / RETRAINED) as (part,):
        dump_json({"at": now.isoformat()}, part)
