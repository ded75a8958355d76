"""Set the DVC remote, where `dvc push` and `dvc pull` keep data and models.

URL is https://dagshub.com/USER/REPO, s3://BUCKET/PREFIX (with --endpoint for an S3 that is not
Amazon's), or a folder. The address goes to .dvc/config, which is in Git; keys to .dvc/config.local,
which is not: DagsHub's token from DAGSHUB_TOKEN (environment or .env) or typed in; those of S3 from
S3_ACCESS_KEY_ID and S3_SECRET_ACCESS_KEY. Without these, DVC uses the keys of AWS's own tools.

A repository on DagsHub is an MLflow server too: its address and the token are written to .env, unless
MLFLOW_TRACKING_URI names a server elsewhere.
"""

import argparse
import getpass
import logging
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dotenv import set_key

from rakuten.cli import run_command
from rakuten.config import ROOT
from rakuten.errors import UserError
from rakuten.files import atomic_write

log = logging.getLogger(__name__)

REMOTE_NAME = "origin"
DAGSHUB_URL = re.compile(r"https://(?P<host>[^/@]+)/(?P<user>[\w.-]+)/(?P<repo>[\w.-]+?)(\.git|\.s3|\.mlflow)?/?")
MLFLOW_SUFFIX = ".mlflow"  # of the address of DagsHub's MLflow servers


@dataclass(frozen=True)
class Remote:
    """A DVC remote."""

    url: str
    endpoint: str | None = None  # of an S3 that is not Amazon's
    keys: tuple[str, str] | None = None  # access key id and secret access key


def parse_remote(url: str, endpoint: str | None, token: str | None, s3_keys: tuple[str, str] | None) -> Remote:
    """The remote that an address names.

    Args:
        url: https://dagshub.com/USER/REPO, s3://BUCKET/PREFIX or a folder.
        endpoint: of an S3 that is not Amazon's.
        token: of DagsHub.
        s3_keys: access key id and secret access key.

    Raises:
        UserError: the address is none of the three kinds, or contains a password.
    """
    if "@" in url.partition("//")[2].partition("/")[0]:
        raise UserError("the address is stored in Git, so it must not contain a user or a password")
    if match := DAGSHUB_URL.fullmatch(url):
        host, user, repo = match["host"], match["user"], match["repo"]
        # At DagsHub the token is both access key id and secret access key.
        return Remote("s3://dvc", f"https://{host}/{user}/{repo}.s3", (token, token) if token else None)
    if url.startswith("s3://") and len(url) > len("s3://"):
        return Remote(url.rstrip("/"), endpoint, s3_keys)
    if "://" in url or not url:
        raise UserError(f"{url!r}: give https://dagshub.com/USER/REPO, s3://BUCKET/PREFIX or a folder")
    return Remote(str(Path(url).expanduser().absolute()))


def configure(remote: Remote) -> None:
    """Write a remote into .dvc/config, and its keys into .dvc/config.local."""
    _dvc("remote", "remove", "--local", REMOTE_NAME, check=False)  # the keys of the remote before it
    _write_address(remote)
    if remote.keys:
        _write_keys(*remote.keys)


def _write_address(remote: Remote) -> None:
    """Set the remote in .dvc/config with DVC's own parser, but not by DVC's command, which would drop the comments."""
    from configobj import ConfigObj, ConfigObjError  # type: ignore[import-untyped]  # comes with DVC

    path = ROOT / ".dvc" / "config"
    try:
        config = ConfigObj(str(path), encoding="utf-8")
    except ConfigObjError as error:
        raise UserError(f"{path}: {error}; restore it with `git checkout .dvc/config`") from error
    config.setdefault("core", {})["remote"] = REMOTE_NAME
    section = config.setdefault(f'remote "{REMOTE_NAME}"', {})
    section.clear()  # of the remote before it
    section["url"] = remote.url
    if remote.endpoint:
        section["endpointurl"] = remote.endpoint
    section["verify"] = "true"
    with atomic_write(path) as (partial,), partial.open("wb") as stream:
        config.write(stream)


def _write_keys(access_key_id: str, secret_access_key: str) -> None:
    """Add the keys to .dvc/config.local: not by DVC's command, which would show them in the list of processes."""
    from dvc.config import Config  # type: ignore[import-untyped]  # takes a second to import

    folder = ROOT / ".dvc"
    local = folder / "config.local"
    local.touch(mode=0o600)
    local.chmod(0o600)  # before there is anything to read; DVC keeps it
    with Config(str(folder)).edit("local") as config:
        keys = {"access_key_id": access_key_id, "secret_access_key": secret_access_key}
        config.setdefault("remote", {}).setdefault(REMOTE_NAME, {}).update(keys)


def _dvc(*arguments: str, check: bool = True) -> None:
    done = subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=ROOT, capture_output=True, text=True)
    if check and done.returncode:
        raise UserError(f"dvc {' '.join(arguments[:2])} failed: {' '.join(done.stderr.split())}")


def mlflow_settings(url: str, token: str, current: str | None) -> dict[str, str]:
    """The variables that make MLflow record at a repository on DagsHub; none if it records elsewhere already.

    Args:
        url: of the repository.
        token: is both user and password.
        current: the tracking address that is set.
    """
    match = DAGSHUB_URL.fullmatch(url)
    if match is None or (current and not current.rstrip("/").endswith(MLFLOW_SUFFIX)):
        return {}
    return {
        "MLFLOW_TRACKING_URI": f"https://{match['host']}/{match['user']}/{match['repo']}{MLFLOW_SUFFIX}",
        "MLFLOW_TRACKING_USERNAME": token,
        "MLFLOW_TRACKING_PASSWORD": token,
    }


def write_env(path: Path, variables: Mapping[str, str]) -> None:
    """Set variables in a .env that its owner alone can read from now on; its other lines stay as they are."""
    path.touch(mode=0o600)
    path.chmod(0o600)  # before there is a token to read; set_key keeps it
    for name, value in variables.items():
        set_key(path, name, value, follow_symlinks=True)


def command(arguments: argparse.Namespace) -> str:
    """Set the remote; returns what to do next."""
    is_dagshub = DAGSHUB_URL.fullmatch(arguments.url) is not None
    token = os.environ.get("DAGSHUB_TOKEN")
    if is_dagshub and not token and sys.stdin.isatty():
        token = getpass.getpass("DagsHub token (not shown; empty to set it later): ") or None
    key_id, secret = os.environ.get("S3_ACCESS_KEY_ID"), os.environ.get("S3_SECRET_ACCESS_KEY")
    s3_keys = (key_id, secret) if key_id and secret else None
    remote = parse_remote(arguments.url, arguments.endpoint, token, s3_keys)
    configure(remote)
    keys = "its keys are in .dvc/config.local" if remote.keys else "no keys were set"
    address = f"{remote.url} at {remote.endpoint}" if remote.endpoint else remote.url
    log.info("the DVC remote is %s; %s", address, keys)
    if is_dagshub and not token:
        return "next: set DAGSHUB_TOKEN in .env and run this again"
    if is_dagshub and token:
        _tell_mlflow(arguments.url, token)
    return "next: commit .dvc/config, check with `make doctor`, then `dvc push`"


def _tell_mlflow(url: str, token: str) -> None:
    """Let MLflow record at a repository on DagsHub, and log where it records."""
    variables = mlflow_settings(url, token, os.environ.get("MLFLOW_TRACKING_URI"))
    if variables:
        write_env(ROOT / ".env", variables)
        log.info("MLflow records at %s; user and password are in .env", variables["MLFLOW_TRACKING_URI"])
    else:
        log.info("MLflow records elsewhere, as MLFLOW_TRACKING_URI says; unset it and run this again to use DagsHub")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="rakuten remote", description=__doc__)
    parser.add_argument("url", metavar="URL", nargs="?", default="")
    parser.add_argument("--endpoint", help="URL of an S3 service other than Amazon's, such as https://s3.example.com")
    return run_command("remote", command, parser, argv)
