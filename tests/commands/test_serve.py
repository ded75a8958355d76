"""`rakuten serve`: what keeps it from starting is one line, and a warning where every request would be refused."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rakuten.commands import serve
from rakuten.data.taxonomy import Taxonomy
from tests.support.api import POOL, Api, get, post
from tests.support.project import run_in
from tests.support.servers import free_port

SERVE = ("python", "-m", "rakuten", "serve")


def test_a_port_in_use_is_an_error(api: Api, trained: Path) -> None:
    output = run_in(trained, *SERVE, code=1, API_PORT=str(api.port))
    assert f"ERROR serving: 127.0.0.1:{api.port}: Address already in use; choose another API_PORT" in output


def test_a_missing_model_is_an_error(trained: Path, tmp_path: Path) -> None:
    output = run_in(trained, *SERVE, code=1, API_MODELS=str(tmp_path), API_PORT=str(free_port()))
    assert "`make run` trains one" in output
    assert "Traceback" not in output


def test_an_invalid_setting_is_an_error(trained: Path) -> None:
    assert "ERROR serving: API_QUEUE: Input should be greater than 0" in run_in(trained, *SERVE, code=1, API_QUEUE="0")


def test_a_wrong_taxonomy_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "taxonomy.csv").write_text("prdtypecode,fr,en,parent,merged_into\n10,livres,,,\n", encoding="utf-8")
    monkeypatch.setattr(serve, "current_taxonomy", lambda: Taxonomy.read(tmp_path / "taxonomy.csv"))
    monkeypatch.setattr(serve, "_return_freed_memory", lambda: None)
    monkeypatch.setattr(sys, "setswitchinterval", lambda _: None)
    monkeypatch.setenv("API_PORT", str(free_port()))
    assert serve.main([]) == 1
    assert capsys.readouterr().err.endswith("taxonomy.csv: line 2, column en: the name is missing\n")


def test_a_missing_key_is_a_warning(start: Callable[..., Api], tmp_path: Path) -> None:
    path = tmp_path / "keys.txt"
    server = start(API_REQUIRE_KEYS="true", API_KEYS_FILE=str(path))
    assert f"{path} has no key, so every request is refused" in server.log.read_text()


def test_the_log_begins_with_what_it_does_then_the_model_and_the_address(api: Api) -> None:
    log = api.log.read_text()
    assert log.startswith("INFO serving: loading the model")
    assert f"(local), {api.url}, no keys required" in log


def test_settings_that_hosts_make_for_other_programs_do_not_matter(start: Callable[..., Api]) -> None:
    server = start(WEB_CONCURRENCY="4", PROMETHEUS_MULTIPROC_DIR="/nowhere", FORWARDED_ALLOW_IPS="*")
    assert post(f"{server.url}/predict", json=POOL).status_code == 200
    assert get(f"{server.url}/metrics").status_code == 200
