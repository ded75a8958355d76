"""Which model answers: the champion, a new one without a dropped request, the last good one, never a bad one."""

import json
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import mlflow
import pytest
import requests

from rakuten.tracking.registry import CHAMPION, MODEL_NAME
from tests.support.project import run_in
from tests.serving.conftest import Api
from tests.serving.test_app import POOL, get, post, unnamed
from tests.support.servers import free_port, wait_for


@pytest.fixture
def registry(trained: Path, tmp_path: Path) -> Iterator[tuple[Path, dict[str, str], mlflow.MlflowClient]]:
    """A copy of the trained project, its first version promoted; what tells an API of its registry."""
    project = tmp_path / "project"
    shutil.copytree(trained, project, symlinks=True)
    uri = f"sqlite:///{project / 'mlflow.db'}"
    mlflow.set_tracking_uri(uri)
    # Not by promotion, whose rule on latency a loaded machine may break.
    mlflow.MlflowClient(uri).set_registered_model_alias(MODEL_NAME, CHAMPION, "1")
    env = {"MLFLOW_TRACKING_URI": uri, "API_CACHE": str(tmp_path / "cache"), "API_REFRESH_SECONDS": "1"}
    yield project, env, mlflow.MlflowClient(uri)


def version(server: Api) -> str | None:
    found = get(f"{server.url}/model").json()["registry_version"]
    return found and str(found)


def another_version(project: Path, asked: mlflow.MlflowClient) -> str:
    """Train again with a threshold of its own, which makes another model; returns its version."""
    params = project / "params.yaml"
    params.write_text(params.read_text().replace("target_precision: 0.95", "target_precision: 0.6"))
    run_in(project, "dvc", "repro")
    return str(max(int(found.version) for found in asked.search_model_versions(f"name = '{MODEL_NAME}'")))


def test_a_new_champion_answers_without_a_dropped_request(
    registry: tuple[Path, dict[str, str], mlflow.MlflowClient], start: Callable[..., Api]
) -> None:
    project, env, asked = registry
    server = start(project, **env)
    about = get(f"{server.url}/model").json()
    assert (about["source"], about["registry_version"]) == ("registry", "1")
    assert about["git_commit"]
    assert about["scores"]["weighted_f1_low"] < about["scores"]["weighted_f1"]
    assert "data/raw/X_train.csv" in about["data"]

    new = another_version(project, asked)
    answers: list[requests.Response] = []
    done = threading.Event()

    def ask() -> None:
        with requests.Session() as session:
            while not done.is_set():
                answers.append(session.post(f"{server.url}/predict", json=POOL, timeout=30))

    clients = [threading.Thread(target=ask) for _ in range(4)]
    for client in clients:
        client.start()
    asked.set_registered_model_alias(MODEL_NAME, CHAMPION, new)
    wait_for(lambda: version(server) == new, "the new champion", 60)
    time.sleep(0.5)
    done.set()
    for client in clients:
        client.join()
    assert {answer.status_code for answer in answers} == {200}
    versions = [answer.json()["model_version"] for answer in answers]
    assert len(set(versions)) == 2
    assert versions[-1] == get(f"{server.url}/model").json()["model_version"]


def test_a_champion_that_fails_is_refused_and_the_old_one_stays(
    registry: tuple[Path, dict[str, str], mlflow.MlflowClient], start: Callable[..., Api], tmp_path: Path
) -> None:
    project, env, asked = registry
    server = start(project, **env)
    new = another_version(project, asked)
    source = asked.get_model_version(MODEL_NAME, new).source
    place = Path(mlflow.artifacts.download_artifacts(source, dst_path=str(tmp_path / "look")))
    assert list(place.glob("data/*/manifest.json"))
    # The stored model is altered behind the registry's back.
    stored = Path(mlflow.get_logged_model(source.rpartition("/")[2]).artifact_location.removeprefix("file://"))
    (vectorizer,) = stored.glob("data/*/vectorizer.json")
    vectorizer.write_text(vectorizer.read_text().replace("piscine", "pistache"))
    asked.set_registered_model_alias(MODEL_NAME, CHAMPION, new)
    wait_for(lambda: "the champion stays the one that is loaded" in server.log.read_text(), "the refusal", 60)
    assert "damaged or from another model" in server.log.read_text()
    assert version(server) == "1"
    assert post(f"{server.url}/predict", json=POOL).status_code == 200
    wait_for(lambda: told(server) == "1.0", "the refusal in the metrics", 30)
    # Nor is it tried over and over.
    count = server.log.read_text().count("the champion stays")
    time.sleep(3)
    assert server.log.read_text().count("the champion stays") == count
    assert told(server) == "1.0"
    # The alias given back: nothing is wanted that fails.
    asked.set_registered_model_alias(MODEL_NAME, CHAMPION, "1")
    wait_for(lambda: told(server) == "0.0", "the end of the refusal in the metrics", 30)


def told(server: Api) -> str:
    """What Prometheus is told of a refused champion."""
    lines = get(f"{server.url}/metrics").text.splitlines()
    return next(line for line in lines if line.startswith("rakuten_api_champion_refused")).split()[1]


def test_the_last_good_model_answers_while_the_tracking_server_is_away(
    registry: tuple[Path, dict[str, str], mlflow.MlflowClient], start: Callable[..., Api]
) -> None:
    project, env, _ = registry
    first = start(project, **env)
    before = unnamed(post(f"{first.url}/predict", json=POOL))
    first.stop()
    away = env | {"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{free_port()}"}
    second = start(project, **away)
    assert "answering with the last good model" in second.log.read_text()
    assert unnamed(post(f"{second.url}/predict", json=POOL)) == before
    assert version(second) == "1"
    # Without one it does not start, and says why.
    said = run_in(
        project, sys.executable, "-m", "rakuten", "serve", code=1, **(away | {"API_CACHE": str(project / "empty")})
    )
    assert "does not answer" in said
    # A cache that was cut is not believed either.
    cache = Path(env["API_CACHE"])
    kept = json.loads((cache / "current.json").read_text())["version"]
    (cache / kept / "model.safetensors").write_bytes(b"cut")
    assert "damaged" in run_in(project, sys.executable, "-m", "rakuten", "serve", code=1, **away)
