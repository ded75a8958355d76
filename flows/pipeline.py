"""The pipeline as a Prefect flow: `python flows/pipeline.py`, with or without a Prefect server.

DVC decides which stages run; each stage is a task. Optionally new data is pulled before, and what people decided at the
review desk is written where ingest reads it. After the stages, the
promotion rules judge the challenger, and optionally the results are pushed. Tasks that use the network are
retried; stages are not: they would fail in the same way.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

# Import the flows and the library of this tree, whichever is installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

import flows  # noqa: F401 - before Prefect, whose home folder it sets

# isort: split
from prefect import flow, get_run_logger, task
from prefect.artifacts import create_link_artifact, create_markdown_artifact
from prefect.runtime import flow_run
from prefect.settings import get_current_settings
from sqlalchemy.exc import SQLAlchemyError

from flows.common import RetryableError, dvc, exclusive_lock, hide_tracebacks, is_retryable
from rakuten.cli import run_command
from rakuten.config import MODELS, REPORTS, SCORES_FILE, load_env, load_params
from rakuten.errors import UserError
from rakuten.files import atomic_write, dump_json
from rakuten.monitoring.status_files import PIPELINE_FILE
from rakuten.promotion.gate import promote_challenger
from rakuten.review import files
from rakuten.review.reviewed import existing_desk
from rakuten.serving.settings import load_settings
from rakuten.tracking import dvc_lock, monitoring_runs, server
from rakuten.tracking.training_run import local_run_id

STAGES = ("ingest", "features", "train", "predict")
UNCHANGED = "didn't change, skipping"  # in DVC's output, after the name of a stage that did not run
RETRIES: dict[str, Any] = {"retries": 3, "retry_delay_seconds": [5, 30, 120], "retry_condition_fn": is_retryable}


class PipelineResult(NamedTuple):
    """The result of one run of the pipeline."""

    stages_run: list[str]  # stages that were not up to date
    run_id: str | None  # MLflow run of the model in models/; None if the model was pulled
    promotion: str  # the gate's decision; empty if it did not judge


@task(name="pull", **RETRIES)
def pull() -> None:
    _use_remote("pull", "--run-cache", "--allow-missing")


@task(name="push", **RETRIES)
def push() -> None:
    _use_remote("push", "--run-cache")


def _use_remote(*command: str) -> None:
    try:
        dvc(*command)
    except UserError as error:
        raise RetryableError(str(error)) from error


@task(name="corrections", **RETRIES)
def export_corrections() -> int:
    """Write the decisions of the review desk where ingest reads them, see `rakuten review export`.

    A machine whose desk has no decisions keeps the corrections that it has: they come from another one.

    Returns:
        How many corrections were written.
    """
    try:
        desk = existing_desk(load_params().review.agreement)
        decided = desk.decided() if desk is not None else []
    except (UserError, SQLAlchemyError) as error:
        raise RetryableError(f"the review desk: {server.one_line(error)}") from error
    return files.export_corrections(desk) if desk is not None and decided else 0


@task(name="stage", task_run_name="{name}")
def stage(name: str) -> bool:
    """Bring one stage up to date. Returns whether it ran."""
    output = dvc("repro", name)
    get_run_logger().info("%s", output.strip().splitlines()[-1] if output.strip() else name)
    return f"Stage '{name}' {UNCHANGED}" not in output


@task(name="promotion gate", **RETRIES)
def promotion_gate() -> str:
    """Judge the challenger. Returns the decision, or why there is none."""
    try:
        server.check_server()
    except UserError as error:
        raise RetryableError(str(error)) from error
    dvc_lock.attach_dvc_lock(MODELS)  # `dvc repro` does not, where another training gave this very model
    try:
        return promote_challenger(load_params(), dry_run=False)
    except server.SERVER_ERRORS as error:
        raise RetryableError(f"the tracking server failed: {server.one_line(error)}") from error
    except UserError as error:
        return f"not promoted: {error}"


@task(name="reports")
def publish_artifacts(trained: bool) -> str | None:
    """Show data quality, scores, model card and MLflow run as Prefect artifacts. Returns the MLflow run's id.

    Args:
        trained: the train stage ran in this flow run, so its MLflow run gets this flow run's address.
    """
    quality = (REPORTS / "data_quality.json").read_text(encoding="utf-8")
    create_markdown_artifact(f"```json\n{quality}```", key="data-quality", description="ingest: what came in")
    scores = json.loads((MODELS / SCORES_FILE).read_text(encoding="utf-8"))
    create_markdown_artifact(_scores_table(scores), key="metrics", description="out of fold")
    card = (REPORTS / "model_card.md").read_text(encoding="utf-8")
    create_markdown_artifact(card, key="model-card")
    run_id = local_run_id(MODELS)
    if run_id is None:  # the model came by `dvc pull`
        return None
    create_link_artifact(monitoring_runs.run_url(run_id), key="mlflow-run", link_text=f"MLflow run {run_id}")
    if trained:
        tags = {"prefect_flow_run": str(flow_run.id), "prefect_flow_run_url": _flow_run_url()}
        try:
            monitoring_runs.set_tags(run_id, tags)
        except UserError as error:
            get_run_logger().warning("the MLflow run is not tagged with this flow run: %s", error)
    return run_id


def _scores_table(scores: dict[str, Any]) -> str:
    rows = [
        f"| {name} | {scores[name]:.4f} | {low:.4f} to {high:.4f} |" for name, (low, high) in scores["interval"].items()
    ]
    note = "**Synthetic** products: these scores say nothing about real ones.\n\n" if scores["synthetic"] else ""
    return "\n".join([f"{note}| score | out of fold | 95 % |", "|---|---|---|", *rows])


def _flow_run_url() -> str:
    base = get_current_settings().ui_url
    return f"{base}/runs/flow-run/{flow_run.id}" if base else "no server"


@flow(name="pipeline")
def pipeline(
    pull_first: bool = False, push_after: bool = False, judge: bool = True, corrections: bool = False
) -> PipelineResult:
    """Bring the pipeline up to date.

    Args:
        pull_first: pull from the DVC remote before.
        push_after: push the results to the DVC remote after.
        judge: let the promotion rules judge the challenger.
        corrections: learn from what people decided at the review desk.
    """
    load_env()
    started, succeeded = time.monotonic(), False
    with exclusive_lock():
        try:
            if pull_first:
                pull()
            if corrections:
                get_run_logger().info("%s corrections from the review desk", f"{export_corrections():,}")
            stages_run = [name for name in STAGES if stage(name)]
            run_id = publish_artifacts("train" in stages_run)
            promotion = promotion_gate() if judge else ""
            if promotion:
                get_run_logger().info("promotion gate: %s", promotion)
                create_markdown_artifact(promotion, key="promotion", description="the promotion gate's decision")
            if push_after:
                push()
            succeeded = True
            return PipelineResult(stages_run, run_id, promotion)
        finally:
            _write_status(succeeded, time.monotonic() - started)


def _write_status(succeeded: bool, seconds: float) -> None:
    """Write the status file that the API exports to Prometheus."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    try:
        with atomic_write(load_settings().live / PIPELINE_FILE) as (partial,):
            dump_json({"succeeded": succeeded, "seconds": round(seconds, 1), "ended": now}, partial)
    except OSError as error:
        get_run_logger().warning("the status of this run is not written, so Prometheus does not see it: %s", error)


def command(arguments: argparse.Namespace) -> str:
    hide_tracebacks()
    result = pipeline(arguments.pull, arguments.push, not arguments.no_promotion, arguments.corrections)
    stages_run = ", ".join(result.stages_run) or "nothing, all is up to date"
    return f"ran {stages_run}; {result.promotion or 'the promotion gate did not judge'}"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog=Path(__file__).name, description=__doc__)
    parser.add_argument("--pull", action="store_true", help="pull from the DVC remote before")
    parser.add_argument("--push", action="store_true", help="push to the DVC remote after")
    parser.add_argument("--corrections", action="store_true", help="learn from what people decided at the review desk")
    parser.add_argument("--no-promotion", action="store_true", help="do not judge the challenger")
    return run_command("pipeline", command, parser, argv)


if __name__ == "__main__":
    sys.exit(main())
