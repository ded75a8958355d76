"""Where `dvc push` and `dvc pull` keep data and models: `make remote URL=...`.

URL is https://dagshub.com/USER/REPO, s3://BUCKET/PREFIX (with --endpoint for an S3 that is not
Amazon's), or a folder. The address goes to .dvc/config, which is in Git; keys to .dvc/config.local,
which is not: DagsHub's token from DAGSHUB_TOKEN (environment or .env) or typed in, S3's from
S3_ACCESS_KEY_ID and S3_SECRET_ACCESS_KEY or from where AWS's tools keep them.
"""

import argparse
import getpass
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rakuten.cli import run_command
from rakuten.config import ROOT
from rakuten.errors import UserError

REMOTE_NAME = "origin"
DAGSHUB_URL = re.compile(r"https://(?P<host>[^/@]+)/(?P<user>[\w.-]+)/(?P<repo>[\w.-]+?)(\.git|\.s3)?/?")


class Remote(NamedTuple):
    """An address, and the keys to it if they are kept with it."""

    url: str
    endpoint: str | None = None
    keys: tuple[str, str] | None = None


def parse_remote(url: str, endpoint: str | None, token: str | None, s3_keys: tuple[str, str] | None) -> Remote:
    """What the remote is, from its address.

    Raises:
        UserError: the address is none of the three kinds, or holds a password.
    """
    if "@" in url.partition("//")[2].partition("/")[0]:
        raise UserError("the address holds a user or a password, and it goes into Git: leave it out")
    if found := DAGSHUB_URL.fullmatch(url):
        host, user, repo = found["host"], found["user"], found["repo"]
        # DagsHub takes the token as both keys.
        return Remote("s3://dvc", f"https://{host}/{user}/{repo}.s3", (token, token) if token else None)
    if url.startswith("s3://") and len(url) > len("s3://"):
        return Remote(url.rstrip("/"), endpoint, s3_keys)
    if "://" in url or not url:
        raise UserError(f"{url!r}: give https://dagshub.com/USER/REPO, s3://BUCKET/PREFIX or a folder")
    return Remote(str(Path(url).expanduser().absolute()))


def configure(wanted: Remote) -> None:
    """Write the remote into .dvc/config, and its keys into .dvc/config.local."""
    _dvc("remote", "remove", "--local", REMOTE_NAME, check=False)  # keys of another remote are no keys of this one
    _dvc("remote", "add", "--force", "--default", REMOTE_NAME, wanted.url)
    _dvc("remote", "modify", REMOTE_NAME, "verify", "true")
    if wanted.endpoint:
        _dvc("remote", "modify", REMOTE_NAME, "endpointurl", wanted.endpoint)
    if wanted.keys:
        for option, value in zip(("access_key_id", "secret_access_key"), wanted.keys, strict=True):
            _dvc("remote", "modify", "--local", REMOTE_NAME, option, value)


def _dvc(*arguments: str, check: bool = True) -> None:
    done = subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=ROOT, capture_output=True, text=True)
    if check and done.returncode:
        # Not the arguments: a key may be among them.
        raise UserError(f"dvc {' '.join(arguments[:2])} failed: {' '.join(done.stderr.split())}")


def command(arguments: argparse.Namespace) -> str:
    token = os.environ.get("DAGSHUB_TOKEN")
    if DAGSHUB_URL.fullmatch(arguments.url) and not token and sys.stdin.isatty():
        token = getpass.getpass("DagsHub token (not shown; empty to set it later): ") or None
    pair = os.environ.get("S3_ACCESS_KEY_ID"), os.environ.get("S3_SECRET_ACCESS_KEY")
    wanted = parse_remote(arguments.url, arguments.endpoint, token, (pair[0], pair[1]) if pair[0] and pair[1] else None)
    configure(wanted)
    keys = "its keys are in .dvc/config.local" if wanted.keys else "no keys were set"
    if DAGSHUB_URL.fullmatch(arguments.url) and not wanted.keys:
        keys += " (set DAGSHUB_TOKEN in .env and run this again)"
    place = f"{wanted.url} at {wanted.endpoint}" if wanted.endpoint else wanted.url
    return f"the DVC remote is {place}; {keys}; commit .dvc/config, check with `make doctor`, then `dvc push`; written"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="rakuten remote", description=__doc__)
    parser.add_argument("url", metavar="URL", nargs="?", default="")
    parser.add_argument("--endpoint", help="of an S3 that is not Amazon's: https://s3.example.com")
    return run_command("remote", command, parser, argv)
