"""Is everything there that the project needs? One line each, with the mend: `make doctor`. Changes nothing."""

import argparse
import os
import re
import subprocess
import sys
import urllib.request
import uuid
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
from rakuten.data.schema import CHALLENGE_NAMES
from rakuten.data.tables import missing_hint
from rakuten.errors import UserError
from rakuten.tracking import server, training_run

REQUIREMENTS, ENV, ENV_EXAMPLE = ROOT / "requirements.txt", ROOT / ".env", ROOT / ".env.example"
UPLOAD_KEY = "/api/2.0/mlflow-artifacts/artifacts/"
LIST_KEY = """
import sys
from dvc.repo import Repo
store = Repo().cloud.get_remote_odb()
if store.fs.exists(store.path):
    store.fs.ls(store.path)
sys.stdout.write(store.path)
"""
PASSED, NOTE, FAILED = "ok", "note", "FAILED"


class CheckResult(NamedTuple):
    """What one check found: ok, note (works, but should be known) or BAD, in words that hold the mend."""

    state: str
    text: str


def check_python() -> CheckResult:
    found = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] != (3, 11):
        return CheckResult(FAILED, f"Python {found}: 3.11 is needed; `make setup PYTHON=/path/to/python3.11`")
    return CheckResult(PASSED, f"Python {found}, {sys.executable}")


def check_lock() -> CheckResult:
    """Installed versions against requirements.txt."""
    wrong, pins = [], 0
    for line in REQUIREMENTS.read_text(encoding="utf-8").splitlines():
        text = line.partition("#")[0].strip()
        if not text or text.startswith("-"):
            continue
        pin = Requirement(text)
        if pin.marker is not None and not pin.marker.evaluate():
            continue
        pins += 1
        try:
            have = version(pin.name)
        except PackageNotFoundError:
            have = "absent"
        if have not in pin.specifier:
            wrong.append(f"{pin.name} {have} ({pin.specifier})")
    if wrong:
        shown = ", ".join(wrong[:3]) + (f" and {len(wrong) - 3} more" if len(wrong) > 3 else "")
        return CheckResult(FAILED, f"not as locked: {shown}; `pip install -r requirements.txt`")
    return CheckResult(PASSED, f"{pins} packages at the versions of requirements.txt")


def check_env() -> CheckResult:
    """.env: names that nothing reads, and whether Git would take it."""
    if not ENV.is_file():
        return CheckResult(PASSED, "no .env: embedded defaults")
    known = set(re.findall(r"^#?([A-Z0-9_]+)=", ENV_EXAMPLE.read_text(encoding="utf-8"), re.MULTILINE))
    there = dotenv_values(ENV)
    unknown = sorted(
        name for name in there if name not in known and not name.startswith(("MLFLOW_", "AWS_", "DVC_", "API_"))
    )
    if unknown:
        return CheckResult(
            NOTE, f".env sets {', '.join(unknown)}, which nothing here reads; .env.example has the names"
        )
    if subprocess.run(["git", "check-ignore", "--quiet", ".env"], cwd=ROOT, capture_output=True).returncode == 1:
        return CheckResult(FAILED, ".env is not ignored by Git: its passwords would be committed; add it to .gitignore")
    if os.name == "posix" and ENV.stat().st_mode & 0o004:
        return CheckResult(NOTE, ".env can be read by every user of this machine; `chmod 600 .env`")
    return CheckResult(PASSED, f".env sets {', '.join(there) or 'nothing'}")


def check_tracking() -> CheckResult:
    server.check_server()
    waiting = len(training_run.pending_runs(MODELS))
    if waiting:
        return CheckResult(NOTE, f"{server.redacted_uri()} answers, and {waiting} run(s) wait: `rakuten sync`")
    return CheckResult(
        PASSED, f"{server.redacted_uri()} answers" if server.uri() != server.EMBEDDED else "embedded: mlflow.db"
    )


def check_artifacts() -> CheckResult:
    """A few bytes are sent to the artifact store and deleted again."""
    address = urlsplit(server.uri())
    if address.scheme not in ("http", "https"):
        place = server.ARTIFACTS_FOLDER if server.ARTIFACTS_FOLDER.exists() else ROOT
        writable = os.access(place, os.W_OK)
        return (
            CheckResult(PASSED, f"{place.name}/ can be written")
            if writable
            else CheckResult(FAILED, f"{place} cannot be written")
        )
    server.check_server()
    route = server.redacted_uri().rstrip("/") + UPLOAD_KEY + f"doctor-{uuid.uuid4().hex}"
    for method, body in (("PUT", b"doctor"), ("DELETE", None)):
        request = urllib.request.Request(route, body, server.credentials(address), method=method)
        try:
            with urllib.request.urlopen(request, timeout=20):
                pass
        except OSError as error:
            what = "takes no artifact" if method == "PUT" else "does not delete an artifact"
            raise UserError(
                f"the server {what} ({error}): look at its log; its bucket, keys or disk may be the reason"
            ) from error
    return CheckResult(PASSED, "the server takes an artifact")


def check_remote() -> CheckResult:
    """Ask the DVC remote for its list, in a process of its own: its client may retry for long."""
    config = (ROOT / ".dvc" / "config").read_text(encoding="utf-8")
    if "USER/REPO" in config:
        return CheckResult(
            NOTE, "not named yet: `make remote URL=https://dagshub.com/USER/REPO` (or s3://..., or a folder)"
        )
    try:
        done = subprocess.run([sys.executable, "-c", LIST_KEY], cwd=ROOT, capture_output=True, text=True, timeout=40)
    except subprocess.TimeoutExpired:
        return CheckResult(
            FAILED, "does not answer within 40 seconds: check the address in .dvc/config and the network"
        )
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "no reason given"
        return CheckResult(
            FAILED, f"{reason[:200]}; check .dvc/config, and the keys: set them in .env and `make remote URL=...`"
        )
    return CheckResult(PASSED, f"{done.stdout.strip()} answers")


def check_data() -> CheckResult:
    absent = [name for name in CHALLENGE_NAMES if not (RAW / name).is_file()]
    if not absent:
        pictures = "with" if any((RAW / "images").rglob("*.jpg")) else "without"
        return CheckResult(PASSED, f"{', '.join(CHALLENGE_NAMES)} in data/raw, {pictures} pictures")
    if any((RAW / f"{name}.dvc").is_file() for name in absent):
        return CheckResult(FAILED, f"{', '.join(absent)} under DVC but not here: `dvc pull`")
    if len(absent) == len(CHALLENGE_NAMES) and not any((RAW / name).exists() for name in CHALLENGE_NAMES.values()):
        return CheckResult(NOTE, "none in data/raw: `make run` writes a synthetic sample there")
    return CheckResult(FAILED, f"{absent[0]} is missing from data/raw. {missing_hint(RAW / absent[0])}")


def check_params() -> CheckResult:
    load_params()
    return CheckResult(PASSED, "params.yaml is complete")


def check_executor() -> CheckResult:
    with executor_from(load_params().compute):
        if is_remote():
            return CheckResult(PASSED, f"the workers of the Dask scheduler at {os.environ[SCHEDULER_ADDRESS]}")
    return CheckResult(PASSED, f"the {cpu_count()} cores of this machine")


CHECKS: dict[str, Callable[[], CheckResult]] = {
    "Python": check_python,
    "lock": check_lock,
    ".env": check_env,
    "params.yaml": check_params,
    "compute": check_executor,
    "tracking": check_tracking,
    "artifacts": check_artifacts,
    "DVC remote": check_remote,
    "data": check_data,
}


def run_checks() -> Iterator[tuple[str, CheckResult]]:
    for name, check in CHECKS.items():
        try:
            yield name, check()
        except (UserError, OSError) as error:
            yield name, CheckResult(FAILED, str(error))


def command(_: argparse.Namespace) -> str:
    bad = 0
    for name, finding in run_checks():
        sys.stdout.write(f"  {finding.state:<4}  {name:<11}  {finding.text}\n")
        sys.stdout.flush()
        bad += finding.state == FAILED
    if bad:
        raise UserError(f"{bad} of {len(CHECKS)} checks failed; each line above says how to mend it")
    return f"{len(CHECKS)} checks"


def main(argv: Sequence[str] | None = None) -> int:
    return run_command("doctor", command, argparse.ArgumentParser(prog="rakuten doctor", description=__doc__), argv)
