"""Live traffic watched, and the pipeline run where it has drifted: `python flows/monitor_and_retrain.py`.

What counts as drift, and how long to leave it after a retraining, stands under `monitor` in params.yaml.
"""

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_link_artifact, create_markdown_artifact

from flows.common import BusyError, PassingError, without_tracebacks
from flows.pipeline import Outcome, pipeline
from rakuten.cli import run_command
from rakuten.config import load_env, load_params
from rakuten.monitoring.alerts import may_retrain
from rakuten.monitoring.monitor import DriftCheck, check_drift, last_retraining, record_retraining
from rakuten.serving.settings import load_settings
from rakuten.tracking import monitoring_runs


class Watched(NamedTuple):
    """What a look came to."""

    line: str
    alarms: list[str]
    outcome: Outcome | None  # of the retraining, if there was one


@task(name="drift report")
def report() -> DriftCheck:
    settings = load_settings()
    return check_drift(load_params(), settings.live, settings.from_registry)


@task(name="artifacts")
def show(found: DriftCheck) -> None:
    lines = [f"**{found.line}**", ""]
    if found.verdict is not None:
        lines += [f"- {alarm}" for alarm in found.verdict.alarms]
        lines += ["", "| column | kind | method | score | threshold |", "|---|---|---|---|---|"]
        for each in found.verdict.drift:
            mark = "**" if each.drifted else ""
            row = (f"{mark}{each.column}{mark}", each.kind, each.method, f"{each.score:.3f}", f"{each.threshold:g}")
            lines.append(f"| {' | '.join(row)} |")
    create_markdown_artifact("\n".join(lines), key="drift", description="live traffic against training")
    if found.run_id:
        create_link_artifact(
            monitoring_runs.run_url(found.run_id), key="drift-report", link_text="the report in MLflow"
        )


@flow(name="monitor-and-retrain")
def monitor_and_retrain(pull_first: bool = False, push_after: bool = False) -> Watched:
    """Judge live traffic; on drift, unless it led to a retraining lately, run the pipeline to a challenger.

    Args:
        pull_first: fetch new data from the DVC remote before retraining.
        push_after: send what was made to the DVC remote.
    """
    load_env()
    log, live, rules = get_run_logger(), load_settings().live, load_params().monitor
    found = report()
    show(found)
    alarms = list(found.verdict.alarms) if found.verdict else []
    for alarm in alarms:
        log.warning("%s", alarm)
    if not alarms:
        return Watched(found.line, alarms, None)
    now, last = datetime.now(UTC), last_retraining(live)
    if last is not None and not may_retrain(last, now, rules.cool_down_hours):
        until = last + timedelta(hours=rules.cool_down_hours)
        return Watched(f"{found.line}; no retraining before {until:%Y-%m-%d %H:%M} UTC", alarms, None)
    try:
        outcome = pipeline(pull_first, push_after)
    except (BusyError, PassingError):
        raise  # nothing was trained: the next look may try again
    except Exception:
        record_retraining(live, now)  # it would fail in the same way within the hour
        raise
    record_retraining(live, now)
    if "train" not in outcome.ran:
        log.warning("nothing to learn from is new: add labelled products to data/raw (or `git pull`, then --pull)")
    return Watched(found.line, alarms, outcome)


def command(arguments: argparse.Namespace) -> str:
    without_tracebacks()
    done = monitor_and_retrain(arguments.pull, arguments.push)
    if done.outcome is None:
        return f"{done.line};"
    ran = ", ".join(done.outcome.ran) if done.outcome.ran else "nothing, no data or parameter is new"
    return f"{done.line}; the pipeline ran {ran}; {done.outcome.promotion};"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog=Path(__file__).name, description=__doc__)
    parser.add_argument("--pull", action="store_true", help="fetch new data from the DVC remote before retraining")
    parser.add_argument("--push", action="store_true", help="send what was made to the DVC remote")
    return run_command("monitor", command, parser, argv)


if __name__ == "__main__":
    sys.exit(main())
