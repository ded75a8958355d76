"""What `make remote` makes of an address."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rakuten.commands.remote import Remote, parse_remote
from rakuten.errors import UserError
from tests.support.project import run_in

COMMAND = (sys.executable, "-m", "rakuten", "remote")


KEYS = ("key", "secret")
DAGSHUB = "https://dagshub.com/me/my.project"
THERE = "https://s3.example.com"


@pytest.mark.parametrize(
    ("url", "endpoint", "token", "keys", "expected"),
    [
        (DAGSHUB, None, None, None, Remote("s3://dvc", f"{DAGSHUB}.s3")),
        (f"{DAGSHUB}.git", None, "t", KEYS, Remote("s3://dvc", f"{DAGSHUB}.s3", ("t", "t"))),
        (f"{DAGSHUB}.s3/", None, "t", None, Remote("s3://dvc", f"{DAGSHUB}.s3", ("t", "t"))),
        ("s3://bucket/prefix/", None, "t", None, Remote("s3://bucket/prefix")),
        ("s3://bucket", THERE, None, KEYS, Remote("s3://bucket", THERE, KEYS)),
        ("/srv/dvc", None, "t", KEYS, Remote("/srv/dvc")),
    ],
)
def test_three_kinds_of_address(
    url: str, endpoint: str | None, token: str | None, keys: tuple[str, str] | None, expected: Remote
) -> None:
    assert parse_remote(url, endpoint, token, keys) == expected


@pytest.mark.parametrize(
    "url", ["", "s3://", "ftp://a/b", "https://dagshub.com/me", "https://me:secret@dagshub.com/a/b"]
)
def test_other_addresses_are_refused(url: str) -> None:
    with pytest.raises(UserError):
        parse_remote(url, None, None, None)


def test_the_token_is_kept_out_of_git(clone: Callable[[str], Path]) -> None:
    folder = clone("named")
    said = run_in(folder, *COMMAND, "https://dagshub.com/me/project", DAGSHUB_TOKEN="hidden-token")
    assert "the DVC remote is s3://dvc at https://dagshub.com/me/project.s3" in said
    assert "hidden-token" not in said
    config, local = ((folder / ".dvc" / name).read_text() for name in ("config", "config.local"))
    assert "USER/REPO" not in config
    assert "endpointurl = https://dagshub.com/me/project.s3" in config
    assert "verify = true" in config
    assert "hidden-token" not in config
    assert local.count("hidden-token") == 2
    # Another kind of remote takes the place of the first, nothing of that stays.
    run_in(folder, *COMMAND, str(folder / "store"))
    assert "endpointurl" not in (folder / ".dvc" / "config").read_text()
    assert "hidden-token" not in (folder / ".dvc" / "config.local").read_text()
