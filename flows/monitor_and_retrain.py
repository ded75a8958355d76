"""Check live traffic, and on drift run the pipeline: `python flows/monitor_and_retrain.py`.

The rules (what counts as drift, how long to wait after a retraining) are under `monitor` in params.yaml.
"""

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

# Import the flows and the library of this tree, whichever is installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

import flows  # noqa: F401 - before Prefect, whose home folder it sets

# isort: split
from prefect import flow, get_run_logger, task
from prefect.artifacts import create_link_artifact, create_markdown_artifact

from flows.common import BusyError, RetryableError, hide_tracebacks
from flows.pipeline import PipelineResult, pipeline
from rakuten.cli import run_command
from rakuten.config import load_env, load_params
from rakuten.monitoring.alerts import may_retrain
from rakuten.monitoring.monitor import DriftCheck, check_drift, last_retraining, record_retraining
from rakuten.serving.settings import load_settings
from rakuten.tracking import monitoring_runs


class MonitoringResult(NamedTuple):
    """The result of one check, and of the retraining if there was one."""

    summary: str  # one line
    alarms: list[str]
    retraining: PipelineResult | None


@task(name="drift report")
def drift_report() -> DriftCheck:
    settings = load_settings()
    return check_drift(load_params(), settings.live, settings.from_registry)


@task(name="artifacts")
def publish_artifacts(check: DriftCheck) -> None:
    """Show alarms and drift scores, and the MLflow run of the report, as Prefect artifacts."""
    lines = [f"**{check.summary}**", ""]
    if check.report is not None:
        lines += [f"- {alarm}" for alarm in check.report.alarms]
        lines += ["", "| column | kind | method | score | threshold |", "|---|---|---|---|---|"]
        for column in check.report.columns:
            name = f"**{column.column}**" if column.drifted else column.column
            cells = (name, column.kind, column.method, f"{column.score:.3f}", f"{column.threshold:g}")
            lines.append(f"| {' | '.join(cells)} |")
    create_markdown_artifact("\n".join(lines), key="drift", description="live traffic against training")
    if check.run_id:
        url = monitoring_runs.run_url(check.run_id)
        create_link_artifact(url, key="drift-report", link_text="the report in MLflow")


@flow(name="monitor-and-retrain")
def monitor_and_retrain(
    pull_first: bool = False, push_after: bool = False, corrections: bool = False
) -> MonitoringResult:
    """Check live traffic; on drift, unless a retraining was triggered within the cool-down, run the pipeline.

    Args:
        pull_first: pull new data from the DVC remote before retraining.
        push_after: push the results to the DVC remote after retraining.
        corrections: retrain on what people decided at the review desk, too.
    """
    load_env()
    log, log_folder, rules = get_run_logger(), load_settings().live, load_params().monitor
    check = drift_report()
    publish_artifacts(check)
    alarms = list(check.alarms)
    for alarm in alarms:
        log.warning("%s", alarm)
    if not alarms:
        return MonitoringResult(check.summary, alarms, None)
    now, last = datetime.now(UTC), last_retraining(log_folder)
    if last is not None and not may_retrain(last, now, rules.cool_down_hours):
        end = last + timedelta(hours=rules.cool_down_hours)
        summary = f"{check.summary}; no retraining before {end:%Y-%m-%d %H:%M} UTC"
        return MonitoringResult(summary, alarms, None)
    try:
        retraining = pipeline(pull_first, push_after, corrections=corrections)
    except (BusyError, RetryableError):
        raise  # nothing was trained: the next check may retrain
    except Exception:
        record_retraining(log_folder, now)  # the next checks would fail in the same way
        raise
    record_retraining(log_folder, now)
    if "train" not in retraining.stages_run:
        log.warning("no new data to train on: add labelled products to data/raw, or give --corrections or --pull")
    return MonitoringResult(check.summary, alarms, retraining)


def command(arguments: argparse.Namespace) -> str:
    hide_tracebacks()
    result = monitor_and_retrain(arguments.pull, arguments.push, arguments.corrections)
    if result.retraining is None:
        return result.summary
    stages_run = ", ".join(result.retraining.stages_run) or "nothing, no data or parameter is new"
    return f"{result.summary}; the pipeline ran {stages_run}; {result.retraining.promotion}"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog=Path(__file__).name, description=__doc__)
    parser.add_argument("--pull", action="store_true", help="pull new data from the DVC remote before retraining")
    parser.add_argument("--push", action="store_true", help="push the results to the DVC remote after retraining")
    parser.add_argument("--corrections", action="store_true", help="learn from what people decided at the review desk")
    return run_command("monitor", command, parser, argv)


if __name__ == "__main__":
    sys.exit(main())
