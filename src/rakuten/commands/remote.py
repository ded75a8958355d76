"""Set the DVC remote, where `dvc push` and `dvc pull` keep data and models.

URL is https://dagshub.com/USER/REPO, s3://BUCKET/PREFIX (with --endpoint for an S3 that is not
Amazon's), or a folder. The address goes to .dvc/config, which is in Git; keys to .dvc/config.local,
which is not: DagsHub's token from DAGSHUB_TOKEN (environment or .env) or typed in; those of S3 from
S3_ACCESS_KEY_ID and S3_SECRET_ACCESS_KEY. Without these, DVC uses the keys of AWS's own tools.
"""

import argparse
import getpass
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rakuten.cli import run_command
from rakuten.config import ROOT
from rakuten.errors import UserError

REMOTE_NAME = "origin"
DAGSHUB_URL = re.compile(r"https://(?P<host>[^/@]+)/(?P<user>[\w.-]+)/(?P<repo>[\w.-]+?)(\.git|\.s3)?/?")


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
    _dvc("remote", "add", "--force", "--default", REMOTE_NAME, remote.url)
    _dvc("remote", "modify", REMOTE_NAME, "verify", "true")
    if remote.endpoint:
        _dvc("remote", "modify", REMOTE_NAME, "endpointurl", remote.endpoint)
    if remote.keys:
        _write_keys(*remote.keys)


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


def command(arguments: argparse.Namespace) -> str:
    """Set the remote; returns what was set and what to do next."""
    is_dagshub = DAGSHUB_URL.fullmatch(arguments.url) is not None
    token = os.environ.get("DAGSHUB_TOKEN")
    if is_dagshub and not token and sys.stdin.isatty():
        token = getpass.getpass("DagsHub token (not shown; empty to set it later): ") or None
    key_id, secret = os.environ.get("S3_ACCESS_KEY_ID"), os.environ.get("S3_SECRET_ACCESS_KEY")
    s3_keys = (key_id, secret) if key_id and secret else None
    remote = parse_remote(arguments.url, arguments.endpoint, token, s3_keys)
    configure(remote)
    keys = "its keys are in .dvc/config.local" if remote.keys else "no keys were set"
    if is_dagshub and not remote.keys:
        keys += " (set DAGSHUB_TOKEN in .env and run this again)"
    address = f"{remote.url} at {remote.endpoint}" if remote.endpoint else remote.url
    return f"the DVC remote is {address}; {keys}; commit .dvc/config, check with `make doctor`, then `dvc push`"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="rakuten remote", description=__doc__)
    parser.add_argument("url", metavar="URL", nargs="?", default="")
    parser.add_argument("--endpoint", help="URL of an S3 service other than Amazon's, such as https://s3.example.com")
    return run_command("remote", command, parser, argv)
