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

from rakuten.cli import run
from rakuten.compute.parallel import ADDRESS, is_remote, using
from rakuten.config import MODELS, RAW, ROOT, load_params
from rakuten.data.tables import CHALLENGE_NAMES, missing_hint
from rakuten.errors import UserError
from rakuten.tracking import server, training_run

REQUIREMENTS, ENV, ENV_EXAMPLE = ROOT / "requirements.txt", ROOT / ".env", ROOT / ".env.example"
UPLOAD = "/api/2.0/mlflow-artifacts/artifacts/"
LIST = """
import sys
from dvc.repo import Repo
store = Repo().cloud.get_remote_odb()
if store.fs.exists(store.path):
    store.fs.ls(store.path)
sys.stdout.write(store.path)
"""
OK, NOTE, BAD = "ok", "note", "BAD"


class Finding(NamedTuple):
    """What one check found: ok, note (works, but should be known) or BAD, in words that hold the mend."""

    state: str
    text: str


def python() -> Finding:
    found = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] != (3, 11):
        return Finding(BAD, f"Python {found}: 3.11 is needed; `make setup PYTHON=/path/to/python3.11`")
    return Finding(OK, f"Python {found}, {sys.executable}")


def lock() -> Finding:
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
        return Finding(BAD, f"not as locked: {shown}; `pip install -r requirements.txt`")
    return Finding(OK, f"{pins} packages at the versions of requirements.txt")


def env() -> Finding:
    """.env: names that nothing reads, and whether Git would take it."""
    if not ENV.is_file():
        return Finding(OK, "no .env: embedded defaults")
    known = set(re.findall(r"^#?([A-Z0-9_]+)=", ENV_EXAMPLE.read_text(encoding="utf-8"), re.MULTILINE))
    there = dotenv_values(ENV)
    unknown = sorted(
        name for name in there if name not in known and not name.startswith(("MLFLOW_", "AWS_", "DVC_", "API_"))
    )
    if unknown:
        return Finding(NOTE, f".env sets {', '.join(unknown)}, which nothing here reads; .env.example has the names")
    if subprocess.run(["git", "check-ignore", "--quiet", ".env"], cwd=ROOT, capture_output=True).returncode == 1:
        return Finding(BAD, ".env is not ignored by Git: its passwords would be committed; add it to .gitignore")
    if os.name == "posix" and ENV.stat().st_mode & 0o004:
        return Finding(NOTE, ".env can be read by every user of this machine; `chmod 600 .env`")
    return Finding(OK, f".env sets {', '.join(there) or 'nothing'}")


def tracking() -> Finding:
    server.check_server()
    waiting = len(training_run.unsent(MODELS))
    if waiting:
        return Finding(
            NOTE, f"{server.shown_uri()} answers, and {waiting} run(s) wait: `python -m rakuten.tracking sync`"
        )
    return Finding(OK, f"{server.shown_uri()} answers" if server.uri() != server.EMBEDDED else "embedded: mlflow.db")


def artifacts() -> Finding:
    """A few bytes are sent to the artifact store and deleted again."""
    address = urlsplit(server.uri())
    if address.scheme not in ("http", "https"):
        place = server.ARTIFACTS if server.ARTIFACTS.exists() else ROOT
        writable = os.access(place, os.W_OK)
        return Finding(OK, f"{place.name}/ can be written") if writable else Finding(BAD, f"{place} cannot be written")
    server.check_server()
    route = server.shown_uri().rstrip("/") + UPLOAD + f"doctor-{uuid.uuid4().hex}"
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
    return Finding(OK, "the server takes an artifact")


def remote() -> Finding:
    """Ask the DVC remote for its list, in a process of its own: its client may retry for long."""
    config = (ROOT / ".dvc" / "config").read_text(encoding="utf-8")
    if "USER/REPO" in config:
        return Finding(
            NOTE, "not named yet: `make remote URL=https://dagshub.com/USER/REPO` (or s3://..., or a folder)"
        )
    try:
        done = subprocess.run([sys.executable, "-c", LIST], cwd=ROOT, capture_output=True, text=True, timeout=40)
    except subprocess.TimeoutExpired:
        return Finding(BAD, "does not answer within 40 seconds: check the address in .dvc/config and the network")
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "no reason given"
        return Finding(
            BAD, f"{reason[:200]}; check .dvc/config, and the keys: set them in .env and `make remote URL=...`"
        )
    return Finding(OK, f"{done.stdout.strip()} answers")


def data() -> Finding:
    absent = [name for name in CHALLENGE_NAMES if not (RAW / name).is_file()]
    if not absent:
        pictures = "with" if any((RAW / "images").rglob("*.jpg")) else "without"
        return Finding(OK, f"{', '.join(CHALLENGE_NAMES)} in data/raw, {pictures} pictures")
    if any((RAW / f"{name}.dvc").is_file() for name in absent):
        return Finding(BAD, f"{', '.join(absent)} under DVC but not here: `dvc pull`")
    if len(absent) == len(CHALLENGE_NAMES) and not any((RAW / name).exists() for name in CHALLENGE_NAMES.values()):
        return Finding(NOTE, "none in data/raw: `make run` writes a synthetic sample there")
    return Finding(BAD, f"{absent[0]} is missing from data/raw. {missing_hint(RAW / absent[0])}")


def params() -> Finding:
    load_params()
    return Finding(OK, "params.yaml is complete")


def engine() -> Finding:
    with using(load_params().compute):
        if is_remote():
            return Finding(OK, f"the workers of the Dask scheduler at {os.environ[ADDRESS]}")
    return Finding(OK, f"the {cpu_count()} cores of this machine")


CHECKS: dict[str, Callable[[], Finding]] = {
    "Python": python,
    "lock": lock,
    ".env": env,
    "params.yaml": params,
    "compute": engine,
    "tracking": tracking,
    "artifacts": artifacts,
    "DVC remote": remote,
    "data": data,
}


def examine() -> Iterator[tuple[str, Finding]]:
    for name, check in CHECKS.items():
        try:
            yield name, check()
        except (UserError, OSError) as error:
            yield name, Finding(BAD, str(error))


def command(_: argparse.Namespace) -> str:
    bad = 0
    for name, finding in examine():
        sys.stdout.write(f"  {finding.state:<4}  {name:<11}  {finding.text}\n")
        sys.stdout.flush()
        bad += finding.state == BAD
    if bad:
        raise UserError(f"{bad} of {len(CHECKS)} checks failed; each line above says how to mend it")
    return f"{len(CHECKS)} checks"


def main(argv: Sequence[str] | None = None) -> int:
    return run("doctor", command, argparse.ArgumentParser(prog="python -m rakuten.doctor", description=__doc__), argv)


if __name__ == "__main__":
    sys.exit(main())
