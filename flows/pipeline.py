"""The pipeline as a Prefect flow: `python flows/pipeline.py`, with or without a Prefect server.

DVC decides what runs; each of its stages is a task. Before it, what is new may be pulled; after it
the challenger is judged by the promotion rules, and what was made may be pushed. What the network
does is tried again; a stage is not: it would fail in the same way.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_link_artifact, create_markdown_artifact
from prefect.runtime import flow_run
from prefect.settings import get_current_settings

from flows.common import PassingError, alone, dvc, passing, without_tracebacks
from rakuten.cli import run_command
from rakuten.config import MODELS, REPORTS, load_env, load_params
from rakuten.errors import UserError
from rakuten.files import atomic_write, dump_json
from rakuten.monitoring.status_files import PIPELINE_FILE
from rakuten.promotion.gate import promote_challenger
from rakuten.serving.settings import load_settings
from rakuten.tracking import monitoring_runs, server
from rakuten.tracking.training_run import local_run_id

STAGES = ("ingest", "features", "train", "predict")
UNCHANGED = "didn't change, skipping"  # what DVC says of a stage that it does not run
RETRIES: dict[str, Any] = {"retries": 3, "retry_delay_seconds": [5, 30, 120], "retry_condition_fn": passing}


class Outcome(NamedTuple):
    """What a run of the pipeline came to."""

    ran: list[str]  # stages that were not up to date
    run_id: str | None  # the MLflow run of the model that is there now
    promotion: str  # what the gate said; empty where it was not asked


@task(name="pull", **RETRIES)
def pull() -> None:
    _over_the_network("pull", "--run-cache", "--allow-missing")


@task(name="push", **RETRIES)
def push() -> None:
    _over_the_network("push", "--run-cache")


def _over_the_network(*command: str) -> None:
    try:
        dvc(*command)
    except UserError as error:
        raise PassingError(str(error)) from error


@task(name="stage", task_run_name="{name}")
def stage(name: str) -> bool:
    """Bring one stage up to date. Returns whether it ran."""
    said = dvc("repro", name)
    get_run_logger().info("%s", said.strip().splitlines()[-1] if said.strip() else name)
    return f"Stage '{name}' {UNCHANGED}" not in said


@task(name="promotion gate", **RETRIES)
def gate() -> str:
    """Judge the challenger. Returns the decision, or why there is none."""
    try:
        server.check_server()
    except UserError as error:
        raise PassingError(str(error)) from error
    try:
        return promote_challenger(load_params(), dry_run=False)
    except server.SERVER_ERRORS as error:
        raise PassingError(f"the tracking server failed: {server.one_line(error)}") from error
    except UserError as error:
        return f"not promoted: {error}"


@task(name="reports")
def show(trained: bool) -> str | None:
    """Put quality report, scores, model card and links where Prefect's UI shows them. Returns the MLflow run's id."""
    quality = (REPORTS / "data_quality.json").read_text(encoding="utf-8")
    create_markdown_artifact(f"```json\n{quality}```", key="data-quality", description="ingest: what came in")
    metrics = json.loads((MODELS / "metrics.json").read_text(encoding="utf-8"))
    create_markdown_artifact(_scores(metrics), key="metrics", description="out of fold")
    card = (REPORTS / "model_card.md").read_text(encoding="utf-8")
    create_markdown_artifact(card, key="model-card")
    run_id = local_run_id(MODELS)
    if run_id is None:  # the model came by `dvc pull`
        return None
    create_link_artifact(monitoring_runs.run_url(run_id), key="mlflow-run", link_text=f"MLflow run {run_id}")
    if trained:
        try:
            monitoring_runs.set_tags(run_id, {"prefect_flow_run": str(flow_run.id), "prefect_flow_run_url": _own_url()})
        except UserError as error:
            get_run_logger().warning("the MLflow run does not name this flow run: %s", error)
    return run_id


def _scores(metrics: dict[str, Any]) -> str:
    rows = [
        f"| {name} | {metrics[name]:.4f} | {low:.4f} to {high:.4f} |"
        for name, (low, high) in metrics["interval"].items()
    ]
    kind = "**Synthetic** products: these scores say nothing about real ones.\n\n" if metrics["synthetic"] else ""
    return "\n".join([f"{kind}| score | out of fold | 95 % |", "|---|---|---|", *rows])


def _own_url() -> str:
    base = get_current_settings().ui_url
    return f"{base}/runs/flow-run/{flow_run.id}" if base else "no server"


@flow(name="pipeline")
def pipeline(pull_first: bool = False, push_after: bool = False, judge: bool = True) -> Outcome:
    """Bring the pipeline up to date.

    Args:
        pull_first: fetch what the DVC remote has, before.
        push_after: send what was made to the DVC remote, after.
        judge: let the promotion rules judge the challenger.
    """
    load_env()
    started, succeeded = time.monotonic(), False
    with alone():
        try:
            if pull_first:
                pull()
            ran = [name for name in STAGES if stage(name)]
            run_id = show("train" in ran)
            said = gate() if judge else ""
            if said:
                get_run_logger().info("promotion gate: %s", said)
                create_markdown_artifact(said, key="promotion", description="what the gate said")
            if push_after:
                push()
            succeeded = True
            return Outcome(ran, run_id, said)
        finally:
            _note(succeeded, time.monotonic() - started)


def _note(succeeded: bool, seconds: float) -> None:
    """Tell the API, which tells Prometheus."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    try:
        with atomic_write(load_settings().live / PIPELINE_FILE) as (part,):
            dump_json({"succeeded": succeeded, "seconds": round(seconds, 1), "ended": now}, part)
    except OSError as error:
        get_run_logger().warning("the outcome is not told to the API: %s", error)


def command(arguments: argparse.Namespace) -> str:
    without_tracebacks()
    done = pipeline(arguments.pull, arguments.push, not arguments.no_promotion)
    ran = ", ".join(done.ran) if done.ran else "nothing, all is up to date"
    return f"ran {ran}; {done.promotion or 'the gate was not asked'};"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog=Path(__file__).name, description=__doc__)
    parser.add_argument("--pull", action="store_true", help="fetch from the DVC remote before")
    parser.add_argument("--push", action="store_true", help="send to the DVC remote after")
    parser.add_argument("--no-promotion", action="store_true", help="do not judge the challenger")
    return run_command("pipeline", command, parser, argv)


if __name__ == "__main__":
    sys.exit(main())
