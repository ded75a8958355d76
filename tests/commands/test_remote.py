import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from dotenv import dotenv_values

from rakuten.commands import remote as module
from rakuten.commands.remote import Remote, configure, parse_remote
from rakuten.errors import UserError
from tests.support.project import copy_project, run_in

REMOTE = (sys.executable, "-m", "rakuten", "remote")
KEYS = ("key", "secret")
DAGSHUB = "https://dagshub.com/me/my.project"
ENDPOINT = "https://s3.example.com"


@pytest.mark.parametrize(
    ("url", "endpoint", "token", "keys", "expected"),
    [
        (DAGSHUB, None, None, None, Remote("s3://dvc", f"{DAGSHUB}.s3")),
        (f"{DAGSHUB}.git", None, "t", KEYS, Remote("s3://dvc", f"{DAGSHUB}.s3", ("t", "t"))),
        (f"{DAGSHUB}.s3/", None, "t", None, Remote("s3://dvc", f"{DAGSHUB}.s3", ("t", "t"))),
        ("s3://bucket/prefix/", None, "t", None, Remote("s3://bucket/prefix")),
        ("s3://bucket", ENDPOINT, None, KEYS, Remote("s3://bucket", ENDPOINT, KEYS)),
        ("/srv/dvc", None, "t", KEYS, Remote("/srv/dvc")),
    ],
)
def test_three_kinds_of_address(
    url: str, endpoint: str | None, token: str | None, keys: tuple[str, str] | None, expected: Remote
) -> None:
    assert parse_remote(url, endpoint, token, keys) == expected


@pytest.mark.parametrize("url", ["", "s3://", "ftp://a/b", "https://dagshub.com/me"])
def test_other_addresses_are_refused(url: str) -> None:
    with pytest.raises(UserError, match="give https://dagshub.com/USER/REPO, s3://BUCKET/PREFIX or a folder"):
        parse_remote(url, None, None, None)


def test_a_password_in_the_address_is_refused_and_not_shown() -> None:
    with pytest.raises(UserError, match="stored in Git, so it must not contain a user or a password") as caught:
        parse_remote("https://me:secret@dagshub.com/a/b", None, None, None)
    assert "secret" not in str(caught.value)


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A copy of the project whose remote is named, with a token, and what the command printed."""
    folder = copy_project(tmp_path_factory.mktemp("remote") / "named")
    return folder, run_in(folder, *REMOTE, "https://dagshub.com/me/project", DAGSHUB_TOKEN="hidden-token")


def config(folder: Path, name: str = "config") -> str:
    return (folder / ".dvc" / name).read_text()


def test_the_closing_line_names_the_remote_and_what_comes_next(named: tuple[Path, str]) -> None:
    _, output = named
    assert "INFO remote: the DVC remote is s3://dvc at https://dagshub.com/me/project.s3; its keys are in" in output
    assert output.count("next:") == 1
    assert "next: commit .dvc/config, check with `make doctor`, then `dvc push` (" in output.splitlines()[-1]


def test_the_address_goes_into_git(named: tuple[Path, str]) -> None:
    folder, _ = named
    assert "/USER/REPO.s3" not in config(folder)
    assert "endpointurl = https://dagshub.com/me/project.s3" in config(folder)
    assert "verify = true" in config(folder)


def test_the_comment_in_the_configuration_survives(named: tuple[Path, str]) -> None:
    lines = config(named[0]).splitlines()
    assert lines[lines.index("['remote \"origin\"']") - 1].startswith("# Set by `make remote URL=")


def test_dvc_reads_what_was_written(named: tuple[Path, str]) -> None:
    output = run_in(named[0], sys.executable, "-m", "dvc", "remote", "list")
    assert output.split() == ["origin", "s3://dvc", "(default)"]


def test_a_damaged_configuration_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc" / "config").write_text("[core\n")
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "_dvc", lambda *arguments, check=True: None)
    with pytest.raises(UserError, match="config: .*restore it with `git checkout .dvc/config`"):
        configure(Remote("s3://bucket"))


def test_mlflow_records_at_dagshub_too(named: tuple[Path, str]) -> None:
    folder, output = named
    token = "hidden-token"
    assert "INFO remote: MLflow records at https://dagshub.com/me/project.mlflow; user and password are in" in output
    assert dotenv_values(folder / ".env") == {
        "MLFLOW_TRACKING_URI": "https://dagshub.com/me/project.mlflow",
        "MLFLOW_TRACKING_USERNAME": token,
        "MLFLOW_TRACKING_PASSWORD": token,
    }
    assert (folder / ".env").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("url", "current", "expected"),
    [
        (DAGSHUB, None, f"{DAGSHUB}.mlflow"),
        (f"{DAGSHUB}.mlflow", None, f"{DAGSHUB}.mlflow"),
        (DAGSHUB, "https://dagshub.com/me/other.mlflow", f"{DAGSHUB}.mlflow"),
        (DAGSHUB, "http://127.0.0.1:5000", None),
        ("s3://bucket", None, None),
    ],
)
def test_an_mlflow_server_elsewhere_stays_in_use(url: str, current: str | None, expected: str | None) -> None:
    assert module.mlflow_settings(url, "t", current).get("MLFLOW_TRACKING_URI") == expected


def test_other_lines_of_env_stay(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text(
        "# mine\nA=1 # one\n#MLFLOW_TRACKING_URI=x\nexport MLFLOW_TRACKING_URI=old\n\nB='é'", encoding="utf-8"
    )
    path.chmod(0o644)
    module.write_env(path, {"MLFLOW_TRACKING_URI": "new", "MLFLOW_TRACKING_PASSWORD": "it's"})
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[:4] == ["# mine", "A=1 # one", "#MLFLOW_TRACKING_URI=x", "MLFLOW_TRACKING_URI='new'"]
    assert dotenv_values(path) == {"A": "1", "MLFLOW_TRACKING_URI": "new", "B": "é", "MLFLOW_TRACKING_PASSWORD": "it's"}
    assert path.stat().st_mode & 0o777 == 0o600


def test_the_token_is_kept_out_of_git(named: tuple[Path, str]) -> None:
    folder, output = named
    assert "hidden-token" not in output
    assert "hidden-token" not in config(folder)
    assert config(folder, "config.local").count("hidden-token") == 2
    assert (folder / ".dvc" / "config.local").stat().st_mode & 0o777 == 0o600


def test_no_process_has_the_token_among_its_arguments(named: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[Sequence[str]] = []
    monkeypatch.setattr(module, "ROOT", named[0])
    monkeypatch.setattr(module, "_dvc", lambda *arguments, check=True: commands.append(arguments))
    configure(Remote("s3://bucket", keys=("an id", "a secret")))
    assert commands
    assert "secret" not in str(commands)
    assert "secret_access_key = a secret" in config(named[0], "config.local")


def test_another_remote_replaces_the_first_with_its_keys(named: tuple[Path, str], tmp_path: Path) -> None:
    folder = tmp_path / "project"
    shutil.copytree(named[0], folder, symlinks=True)
    output = run_in(folder, *REMOTE, str(folder / "store"))
    assert "no keys were set" in output
    assert "endpointurl" not in config(folder)
    assert "hidden-token" not in config(folder, "config.local")


def test_without_a_token_it_is_asked_for(named: tuple[Path, str], tmp_path: Path) -> None:
    folder = tmp_path / "project"
    shutil.copytree(named[0], folder, symlinks=True)
    output = run_in(folder, *REMOTE, "https://dagshub.com/me/project")
    assert "no keys were set" in output
    assert "INFO remote: next: set DAGSHUB_TOKEN in .env and run this again (" in output
