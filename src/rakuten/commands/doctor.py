"""Check everything that the project needs: one line for each check, with what to do if it failed. Changes nothing."""

import argparse
import os
import re
import subprocess
import sys
import tomllib
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import NamedTuple
from urllib.parse import urlsplit

from dotenv import dotenv_values
from joblib import cpu_count
from packaging.requirements import Requirement

from rakuten.cli import run_command
from rakuten.compute import executor_from, is_remote
from rakuten.compute.dask import SCHEDULER_ADDRESS
from rakuten.config import MODELS, RAW, ROOT, load_params
from rakuten.data.schema import CHALLENGE_NAMES, INTEGER_PATTERN, Y_COLUMNS, Y_TRAIN, normalise_id
from rakuten.data.tables import missing_hint, read_raw_chunks
from rakuten.data.taxonomy import Taxonomy, taxonomy_file
from rakuten.errors import UserError
from rakuten.tracking import lineage, probe, server, training_run

ENV_PREFIXES = ("MLFLOW_", "AWS_", "DVC_", "API_")  # of variables that need not be in .env.example
REQUIREMENTS, PYPROJECT = ROOT / "requirements.txt", ROOT / "pyproject.toml"
ENV, ENV_EXAMPLE = ROOT / ".env", ROOT / ".env.example"
VARIABLE_PATTERN = re.compile(r"^#?([A-Z0-9_]+)=", re.MULTILINE)
ARTIFACTS_PATH = "/api/2.0/mlflow-artifacts/artifacts/"
REMOTE_PLACEHOLDER = "/USER/REPO.s3"  # in .dvc/config until the remote is set
REMOTE_TIMEOUT_SECONDS = 40
ARTIFACT_TIMEOUT_SECONDS = 20
# Lists the DVC remote and prints its path.
LIST_REMOTE = """
import sys
from dvc.repo import Repo
store = Repo().cloud.get_remote_odb()
if store.fs.exists(store.path):
    store.fs.ls(store.path)
sys.stdout.write(store.path)
"""
PASSED, NOTE, FAILED = "ok", "note", "FAILED"  # NOTE: works, but the user should know


class CheckResult(NamedTuple):
    """The result of one check."""

    state: str  # PASSED, NOTE or FAILED
    text: str  # what was found, and what to do about it


def check_python() -> CheckResult:
    """The version of Python."""
    running = ".".join(map(str, sys.version_info[:3]))
    if not (3, 11) <= sys.version_info[:2] <= (3, 13):
        wanted = "3.11, 3.12 or 3.13 is needed; `make setup PYTHON=/path/to/python3.11`"
        return CheckResult(FAILED, f"Python {running}: {wanted}")
    return CheckResult(PASSED, f"Python {running}, {sys.executable}")


def check_lock() -> CheckResult:
    """Installed versions against requirements.txt. Only packages that the pipeline needs have to be installed."""
    pins = [pin for line in REQUIREMENTS.read_text(encoding="utf-8").splitlines() if (pin := _pin(line))]
    required = _pipeline_packages()
    wrong = [text for pin in pins if (text := _deviation(pin, pin.name in required))]
    if wrong:
        shown = ", ".join(wrong[:3]) + (f" and {len(wrong) - 3} more" if len(wrong) > 3 else "")
        return CheckResult(FAILED, f"not the locked versions: {shown}; `pip install --no-deps -r requirements.txt`")
    return CheckResult(PASSED, "installed packages match requirements.txt")


def _pin(line: str) -> Requirement | None:
    """The requirement in a line of requirements.txt; None for comments, options and other platforms' packages."""
    text = line.partition("#")[0].strip(" \\")  # a line that its hashes follow ends in a backslash
    if not text or text.startswith("-"):
        return None
    pin = Requirement(text)
    return pin if pin.marker is None or pin.marker.evaluate() else None


def _pipeline_packages() -> set[str]:
    """The packages that the library and the extra `pipeline` require in pyproject.toml."""
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    return {Requirement(text).name for text in project["dependencies"] + project["optional-dependencies"]["pipeline"]}


def _deviation(pin: Requirement, required: bool) -> str:
    """Installed and locked version of a package; empty if they agree, or if it is absent and not required."""
    try:
        installed = version(pin.name)
    except PackageNotFoundError:
        return f"{pin.name} absent ({pin.specifier})" if required else ""
    return "" if installed in pin.specifier else f"{pin.name} {installed} ({pin.specifier})"


def check_env() -> CheckResult:
    """.env: variables that nothing reads, and whether its passwords are safe from Git and other users."""
    if not ENV.is_file():
        return CheckResult(PASSED, "no .env: embedded defaults")
    documented = set(VARIABLE_PATTERN.findall(ENV_EXAMPLE.read_text(encoding="utf-8")))
    names = list(dotenv_values(ENV))
    unknown = sorted(name for name in names if name not in documented and not name.startswith(ENV_PREFIXES))
    if unknown:
        return CheckResult(
            NOTE, f".env sets {', '.join(unknown)}, which nothing here reads; see .env.example for the names"
        )
    if subprocess.run(["git", "check-ignore", "--quiet", ".env"], cwd=ROOT, capture_output=True).returncode == 1:
        return CheckResult(FAILED, ".env is not ignored by Git: its passwords would be committed; add it to .gitignore")
    if os.name == "posix" and ENV.stat().st_mode & 0o004:
        return CheckResult(NOTE, ".env can be read by every user of this machine; `chmod 600 .env`")
    return CheckResult(PASSED, f".env sets {', '.join(names) or 'nothing'}")


def check_git() -> CheckResult:
    """Whether this is a Git repository: a ZIP file from a web page is none, and then no model can be traced."""
    if lineage.git("rev-parse", "--is-inside-work-tree") != "true":
        if (ROOT / ".git").exists():  # in a container, often
            remedy = f"`git config --global --add safe.directory {ROOT}`"
            return CheckResult(FAILED, f"Git refuses this folder, which belongs to another user: {remedy}")
        return CheckResult(
            FAILED, "not a Git repository: clone the project, or `git init && git add . && git commit -m start`"
        )
    if lineage.git("rev-parse", "HEAD") is None:
        return CheckResult(FAILED, "no commit yet: `git add . && git commit -m start`")
    return CheckResult(PASSED, f"branch {lineage.git('rev-parse', '--abbrev-ref', 'HEAD')}")


def check_tracking() -> CheckResult:
    """Whether the tracking server answers, and whether runs still have to be sent to it."""
    server.check_server()
    n_pending = len(training_run.pending_runs(MODELS))
    if n_pending:
        return CheckResult(NOTE, f"{server.redacted_uri()} answers; {n_pending} run(s) not sent yet: `rakuten sync`")
    if server.uri() == server.EMBEDDED:
        return CheckResult(PASSED, "embedded: mlflow.db")
    return CheckResult(PASSED, f"{server.redacted_uri()} answers")


def check_artifacts() -> CheckResult:
    """Whether artifacts can be stored: a few bytes are sent to the server and deleted again."""
    address = urlsplit(server.uri())
    if address.scheme not in ("http", "https"):
        folder = server.ARTIFACTS_FOLDER if server.ARTIFACTS_FOLDER.exists() else ROOT
        if os.access(folder, os.W_OK):
            return CheckResult(PASSED, f"{folder.name}/ is writable")
        return CheckResult(FAILED, f"{folder} is not writable")
    server.check_server()
    route = f"{ARTIFACTS_PATH}doctor-{uuid.uuid4().hex}"
    for method, body, failure in (
        ("PUT", b"doctor", "does not accept an artifact"),
        ("DELETE", None, "does not delete an artifact"),
    ):
        try:
            probe.request(server.uri(), method, route, ARTIFACT_TIMEOUT_SECONDS, body).raise_for_status()
        except OSError as error:
            raise UserError(
                f"the server {failure} ({error}): check its log; the cause may be its bucket, keys or disk"
            ) from error
    return CheckResult(PASSED, "the server accepts artifacts")


def check_remote() -> CheckResult:
    """Whether the DVC remote can be listed; in another process, which is stopped if its client retries for too long."""
    config = (ROOT / ".dvc" / "config").read_text(encoding="utf-8")
    if REMOTE_PLACEHOLDER in config:
        return CheckResult(
            NOTE, "not set yet: `make remote URL=https://dagshub.com/USER/REPO` (or s3://..., or a folder)"
        )
    command = [sys.executable, "-c", LIST_REMOTE]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=REMOTE_TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired:
        return CheckResult(
            FAILED,
            f"does not answer within {REMOTE_TIMEOUT_SECONDS} seconds: "
            "check the address in .dvc/config and the network",
        )
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "no reason given"
        return CheckResult(
            FAILED, f"{reason[:200]}; check .dvc/config and the keys: set them in .env, then `make remote URL=...`"
        )
    return CheckResult(PASSED, f"{done.stdout.strip()} answers")


def check_data() -> CheckResult:
    """The raw files of the challenge."""
    absent = [name for name in CHALLENGE_NAMES if not (RAW / name).is_file()]
    if not absent:
        images = "with" if any((RAW / "images").rglob("*.jpg")) else "without"
        return CheckResult(PASSED, f"{', '.join(CHALLENGE_NAMES)} in data/raw, {images} images")
    if any((RAW / f"{name}.dvc").is_file() for name in absent):
        return CheckResult(FAILED, f"{', '.join(absent)} under DVC but not here: `dvc pull`")
    if len(absent) == len(CHALLENGE_NAMES) and not any((RAW / name).exists() for name in CHALLENGE_NAMES.values()):
        return CheckResult(NOTE, "none in data/raw: `make run` writes a synthetic sample there")
    return CheckResult(FAILED, f"{absent[0]} is missing from data/raw. {missing_hint(RAW / absent[0])}")


def check_taxonomy() -> CheckResult:
    """Whether data/taxonomy.csv is valid, and has the codes of the train labels if these are here."""
    taxonomy = Taxonomy.read(taxonomy_file())
    n_merged = len(taxonomy.merged_into)
    found = f"{len(taxonomy.codes)} codes" + (f" and {n_merged} that were merged" if n_merged else "")
    unknown = _unknown_labels(taxonomy)
    if not unknown:
        return CheckResult(PASSED, f"{taxonomy_file().name} has {found}")
    shown = ", ".join(f"{code} ({n:,} rows)" for code, n in unknown.most_common(3))
    more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
    return CheckResult(
        NOTE,
        f"{Y_TRAIN} has codes that {taxonomy_file().name} has not: {shown}{more}; ingest rejects their rows: add the "
        "codes, or set data.unknown_labels to keep in params.yaml",
    )


def _unknown_labels(taxonomy: Taxonomy) -> Counter[str]:
    """The number of train rows of each code that the taxonomy has not; of none if every code is a class."""
    path = RAW / Y_TRAIN
    if not path.is_file() or load_params().data.unknown_labels == "keep":
        return Counter()
    labels = Counter[str]()
    for chunk in read_raw_chunks(path, Y_COLUMNS):
        labels.update(chunk["prdtypecode"].map(normalise_id))
    known = set(map(str, taxonomy.names))
    return Counter({code: n for code, n in labels.items() if INTEGER_PATTERN.fullmatch(code) and code not in known})


def check_params() -> CheckResult:
    """Whether params.yaml is valid."""
    load_params()
    return CheckResult(PASSED, "params.yaml is valid")


def check_executor() -> CheckResult:
    """Where heavy work runs, and whether it can be reached."""
    with executor_from(load_params().compute):
        if is_remote():
            return CheckResult(PASSED, f"the workers of the Dask scheduler at {os.environ[SCHEDULER_ADDRESS]}")
    return CheckResult(PASSED, f"the {cpu_count()} cores of this machine")


CHECKS: dict[str, Callable[[], CheckResult]] = {
    "Python": check_python,
    "lock": check_lock,
    "Git": check_git,
    ".env": check_env,
    "params.yaml": check_params,
    "compute": check_executor,
    "tracking": check_tracking,
    "artifacts": check_artifacts,
    "DVC remote": check_remote,
    "data": check_data,
    "taxonomy": check_taxonomy,
}


def run_checks() -> Iterator[tuple[str, CheckResult]]:
    """Run CHECKS one after another; yields name and result of each."""
    for name, check in CHECKS.items():
        try:
            yield name, check()
        except (UserError, OSError) as error:
            yield name, CheckResult(FAILED, str(error))


def command(_: argparse.Namespace) -> str:
    """Print the result of each check.

    Raises:
        UserError: a check failed.
    """
    n_failed = 0
    for name, result in run_checks():
        sys.stdout.write(f"  {result.state:<6}  {name:<11}  {result.text}\n")
        sys.stdout.flush()
        n_failed += result.state == FAILED
    if n_failed:
        raise UserError(f"{n_failed} of {len(CHECKS)} checks failed; each line above says how to fix it")
    return f"{len(CHECKS)} checks, none failed"


def main(argv: Sequence[str] | None = None) -> int:
    return run_command("doctor", command, argparse.ArgumentParser(prog="rakuten doctor", description=__doc__), argv)
