"""One check of live traffic: read the prediction log, score drift, apply the rules, write the report, record it.

Reads the prediction log, the model's reference (`reference.parquet`), the decisions of the review desk and, where there
is one, `labels.csv`; writes `drift.html`, `drift.json`, `drift.png`, `audit.csv` and `live_precision.json` to the log's
subfolder `drift/`, and an MLflow run. The API exports the JSON files to Prometheus.
"""

import json
import logging
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from sqlalchemy.exc import SQLAlchemyError

from rakuten.config import MODELS, REPORTS, SCORES_FILE, Params
from rakuten.data.columns import examine_header
from rakuten.data.schema import INTEGER_PATTERN, normalise_ids
from rakuten.data.tables import read_texts, write_table
from rakuten.data.taxonomy import current_taxonomy
from rakuten.errors import UserError
from rakuten.evaluation import plots
from rakuten.evaluation.report import REFERENCE_FILE
from rakuten.features.monitored_columns import MONITORED_COLUMNS
from rakuten.files import atomic_write, dump_json
from rakuten.monitoring.alerts import DriftReport, PromisedShares, class_shares, judge_drift, precision_alarms
from rakuten.monitoring.drift import DriftScores, column_drift
from rakuten.monitoring.live_novelty import live_novelty
from rakuten.monitoring.live_precision import LivePrecision, audited, live_precision
from rakuten.monitoring.live_score import ALL, AUDIT_COLUMNS, audit_sample, label_predictions, live_scores
from rakuten.monitoring.plots import drift_figure
from rakuten.monitoring.prediction_log import NOVEL_COLUMN, read_window
from rakuten.monitoring.status_files import AUDIT_FILE, DRIFT_FILE, LAST_CHECK_FILE, PRECISION_FILE
from rakuten.review.reviewed import existing_desk, reviewed_products
from rakuten.tracking import lineage, monitoring_runs, registered_model

log = logging.getLogger(__name__)

LABELS_FILE, RETRAINING_FILE = "labels.csv", "retrained.json"
LABEL_COLUMNS = ("prediction_id", "prdtypecode")
LABELLED_WINDOW = 50_000  # latest predictions that are matched with labels


class Reference(NamedTuple):
    """Predictions on train products that live traffic is compared with, and the model that made them."""

    frame: pd.DataFrame  # MONITORED_COLUMNS and prdtypecode
    model_version: str
    registry_version: str | None  # None: the model in models/
    synthetic: bool
    novelty_false_alarms: float | None  # as the model was trained; None: it does not tell novel products


class DriftCheck(NamedTuple):
    """The result of one check."""

    report: DriftReport | None  # None: too few predictions to judge
    summary: str  # one line
    n_to_audit: int = 0  # decided predictions in AUDIT_FILE that should be labelled
    html: Path | None = None  # the written report
    run_id: str | None = None  # its MLflow run; None where the server could not be reached
    precision: LivePrecision | None = None  # of automatic decisions, which needs no prediction log

    @property
    def alarms(self) -> Sequence[str]:
        """One line each: those of the report, or what is known without one."""
        return self.report.alarms if self.report is not None else precision_alarms(self.precision)


def check_drift(params: Params, log_folder: Path, from_registry: bool) -> DriftCheck:
    """Compare the latest predictions of the model that answers with its reference.

    Args:
        log_folder: folder of the API's prediction log.
        from_registry: the registry's champion answers; otherwise the model in models/.

    Raises:
        UserError: the reference is missing, or the reference, labels.csv or audit.csv cannot be read.
    """
    reference = champion_reference() if from_registry else local_reference()
    version = reference.model_version
    window = read_window(log_folder, params.monitor.window, version)
    taxonomy = current_taxonomy()
    reviewed = taxonomy.follow_codes(read_reviewed(params.review.agreement))
    checked = datetime.now(UTC).isoformat(timespec="seconds")
    precision = _check_precision(log_folder, audited(reviewed, version), params, checked, version)
    with atomic_write(log_folder / LAST_CHECK_FILE) as (partial,):
        dump_json({"checked": checked}, partial)
    min_rows = params.monitor.min_rows
    if len(window) < min_rows:
        summary = f"{len(window):,} predictions of model {version}: too few to judge (min_rows {min_rows:,})"
        return DriftCheck(report=None, summary=summary, precision=precision)
    scores = column_drift(reference.frame, window, params.monitor)
    to_label, labels = (read_labels(log_folder / name) for name in (AUDIT_FILE, LABELS_FILE))
    # Of two labels the latter counts: what was written by hand.
    labels = pd.concat([desk_labels(reviewed), to_label, labels])[list(LABEL_COLUMNS)]
    labelled = label_predictions(read_window(log_folder, LABELLED_WINDOW, version), labels)
    live = live_scores(taxonomy.follow_codes(reference.frame), taxonomy.follow_codes(labelled), params)
    novelty = live_novelty(window[NOVEL_COLUMN], reference.novelty_false_alarms, len(reference.frame), min_rows)
    if novelty is not None:
        log.info("%s", novelty)
    shares = PromisedShares(precision, novelty)
    report = judge_drift(reference.frame, window, scores.columns, live, params, shares)
    to_audit = audit_sample(labelled, params.monitor.min_labels)
    with atomic_write(log_folder / AUDIT_FILE) as (partial,):
        # As objects: beside a table without rows, whole numbers would become floats.
        write_table(pd.concat([to_label.astype(object), to_audit.astype(object)])[list(AUDIT_COLUMNS)], partial)
    metadata = {
        "checked": checked,
        "window": [_iso_time(window["time"].iloc[0]), _iso_time(window["time"].iloc[-1])],
        "model_version": version,
        "registry_version": reference.registry_version,
        "synthetic": reference.synthetic,
    }
    files = _write_report(log_folder, report, scores, class_shares(reference.frame, window), metadata)
    tags = {name: str(value) for name, value in metadata.items()}
    return DriftCheck(
        report=report,
        summary=f"{f'{len(report.alarms)} alarms' if report.alarms else 'no drift'} in {len(window):,} predictions",
        n_to_audit=len(to_audit),
        html=files[0],
        run_id=monitoring_runs.log_drift_report(_mlflow_metrics(report), tags, files),
        precision=precision,
    )


def read_reviewed(agreement: int) -> pd.DataFrame:
    """The products that people decided at the review desk, see `reviewed_products`; none if it cannot be read.

    Drift is judged without them too.
    """
    try:
        return reviewed_products(existing_desk(agreement))
    except (UserError, SQLAlchemyError) as error:
        log.warning("without the decisions of the review desk: %s", str(error).partition("\n")[0])
        return reviewed_products(None)


def desk_labels(reviewed: pd.DataFrame) -> pd.DataFrame:
    """LABEL_COLUMNS of the reviewed products that came from live traffic."""
    labels: pd.DataFrame = reviewed.dropna(subset="prediction_id")[list(LABEL_COLUMNS)]
    return labels


def _check_precision(
    log_folder: Path, products: pd.DataFrame, params: Params, checked: str, model_version: str
) -> LivePrecision | None:
    """The live precision by the audited products, written for the API; says so if there are too few of them."""
    needed = params.monitor.min_audited
    precision = live_precision(products, params.predict.target_precision, needed)
    if precision is not None:
        log.info("%s", precision)
    elif len(products):
        log.info(
            "%s audited products of model %s: too few to tell its precision (min_audited %s)",
            len(products),
            model_version,
            needed,
        )
    with atomic_write(log_folder / PRECISION_FILE) as (partial,):
        written = None if precision is None else precision.as_json()
        dump_json({"checked": checked, "model_version": model_version, "live_precision": written}, partial)
    return precision


def _iso_time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _write_report(
    log_folder: Path,
    report: DriftReport,
    scores: DriftScores,
    classes: list[dict[str, Any]],
    metadata: Mapping[str, Any],
) -> list[Path]:
    """Write drift.html, drift.png and drift.json; returns their paths in this order."""
    start, end = metadata["window"]
    synthetic = "synthetic reference, " if metadata["synthetic"] else ""
    title = f"{synthetic}{report.n_rows:,} predictions of model {metadata['model_version']}, {start} to {end}"
    files = [(log_folder / DRIFT_FILE).with_suffix(suffix) for suffix in (".html", ".png", ".json")]
    with atomic_write(*files) as (html, image, table):
        scores.save_html(html, [] if report.shares.novelty is None else [str(report.shares.novelty)])
        plots.save_figure(drift_figure(report, classes, title), image)
        dump_json({**metadata, **report.as_json(), "classes": classes}, table)
    return files


def _mlflow_metrics(report: DriftReport) -> dict[str, float]:
    values = {f"drift_{column.column}": column.score for column in report.columns}
    values |= {"rows": report.n_rows, "review": report.review_share, "alarms": len(report.alarms)}
    for live in report.live:
        suffix = "" if live.products == ALL else f"_{live.products.replace(' ', '_')}"
        values |= {f"live_weighted_f1{suffix}": live.weighted_f1, f"labels{suffix}": live.n_labels}
    precision, novelty = report.shares
    if precision is not None:
        values |= {"live_precision": precision.precision, "audited": precision.n_labels}
    if novelty is not None:
        values["novel"] = novelty.share
    return values


def local_reference() -> Reference:
    """The reference that was written with the model in models/.

    Raises:
        UserError: there is no model or no reference, or the reference cannot be read.
    """
    path = REPORTS / REFERENCE_FILE
    if not ((MODELS / "manifest.json").is_file() and path.is_file()):
        raise UserError(f"{path}: no reference data; train a model with `make run`")
    scores = json.loads((MODELS / SCORES_FILE).read_text(encoding="utf-8"))
    return Reference(
        frame=_read_reference(path),
        model_version=lineage.model_version(MODELS),
        registry_version=None,
        synthetic=bool(scores["synthetic"]),
        novelty_false_alarms=scores.get("novelty", {}).get("target_false_alarms"),
    )


def champion_reference() -> Reference:
    """The reference that the training run of the registry's champion logged.

    Raises:
        UserError: there is no champion, the server cannot be reached, or the reference cannot be read.
    """
    champion = registered_model.get_champion()
    if champion is None:
        raise UserError("no champion: promote one with `make promote`")
    with tempfile.TemporaryDirectory() as folder:
        path, run = registered_model.download_reference(champion, f"{REPORTS.name}/{REFERENCE_FILE}", Path(folder))
        return Reference(
            frame=_read_reference(path),
            model_version=run["model_version"],
            registry_version=champion.number,
            synthetic=run["synthetic"],
            novelty_false_alarms=run["novelty_false_alarms"],
        )


def _read_reference(path: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(path, columns=[*MONITORED_COLUMNS, "prdtypecode"])
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not reference data of this version of the code ({error}); train again") from error


def read_labels(path: Path) -> pd.DataFrame:
    """Labels that were added later: the rows of a CSV file that have a prdtypecode. No rows if there is no file.

    Returns:
        The columns of the file as text, but prdtypecode as int64.

    Raises:
        UserError: the file is no CSV with the columns LABEL_COLUMNS, or a code is no whole number.
    """
    if not path.is_file():
        return pd.DataFrame({"prediction_id": pd.Series(dtype="str"), "prdtypecode": pd.Series(dtype="int64")})
    frame = read_texts(path)
    if fault := examine_header(list(frame.columns), LABEL_COLUMNS).fault:
        raise UserError(f"{path}: line 1: {fault}")
    frame = normalise_ids(frame)
    frame = frame[(frame["prediction_id"] != "") & (frame["prdtypecode"].str.strip() != "")]
    invalid = frame.loc[~frame["prdtypecode"].str.fullmatch(INTEGER_PATTERN), "prdtypecode"]
    if len(invalid):
        raise UserError(f"{path}: the prdtypecode {invalid.iloc[0]!r} is not a number; correct it or leave it empty")
    return frame.astype({"prdtypecode": "int64"})


def last_retraining(log_folder: Path) -> datetime | None:
    """When drift last triggered a retraining; None if it never did, or the record cannot be read."""
    try:
        return datetime.fromisoformat(json.loads((log_folder / RETRAINING_FILE).read_text(encoding="utf-8"))["at"])
    except (OSError, ValueError, KeyError):
        return None


def record_retraining(log_folder: Path, now: datetime) -> None:
    """Write down that drift has triggered a retraining: its cool-down starts."""
    with atomic_write(log_folder / RETRAINING_FILE) as (partial,):
        dump_json({"at": now.isoformat()}, partial)
