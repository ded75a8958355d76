"""Which model answers: the champion, a new one without a dropped request, the last good one, never a bad one."""

import json
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import mlflow
import pytest
import requests

from rakuten.errors import UntrustedModelError, UserError
from rakuten.serving import model_holder as module
from rakuten.serving.model_holder import ModelHolder
from rakuten.serving.settings import ApiSettings
from rakuten.tracking.registry import CHAMPION, MODEL_NAME
from rakuten.tracking.signatures import new_key, read_key, sign
from tests.support.api import POOL, Api, get, post, unnamed
from tests.support.project import run_in
from tests.support.servers import free_port, wait_for

SERVE = (sys.executable, "-m", "rakuten", "serve")


def damage(model: Path) -> None:
    """Change a model's vocabulary, so that its digest is wrong."""
    vectorizer = model / "vectorizer.json"
    vectorizer.write_text(vectorizer.read_text().replace("piscine", "pistache"))


# a holder in this process


@pytest.fixture
def local(trained: Path, tmp_path: Path) -> ApiSettings:
    """Settings for a copy of the trained model in a folder."""
    shutil.copytree(trained / "models", tmp_path / "models", symlinks=True)
    return ApiSettings(model="local", models=tmp_path / "models")


def test_a_local_model_is_loaded_once(local: ApiSettings) -> None:
    holder = ModelHolder(local)
    with pytest.raises(UserError, match="no model is loaded"):
        holder.current()
    assert holder.refresh()
    assert (holder.current().source, holder.current().registry_version) == ("local", None)
    assert not holder.refresh()


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no model; .*`make run` trains one"):
        ModelHolder(ApiSettings(model="local", models=tmp_path)).refresh()


def test_a_local_model_of_another_folder_claims_no_data(local: ApiSettings) -> None:
    holder = ModelHolder(local)
    holder.refresh()
    assert holder.current().metadata["data"] == {}
    assert holder.current().metadata["scores"]["weighted_f1"] > 0


class FakeRegistry:
    """A registry whose versions all have the same model; some are damaged."""

    def __init__(self, model: Path) -> None:
        self._model = model
        self.champion: str | None = "1"
        self.damaged: set[str] = set()
        self.downloads: list[str] = []

    def get_champion(self) -> SimpleNamespace | None:
        return None if self.champion is None else SimpleNamespace(number=self.champion, signature=None)

    def download_model(self, version: SimpleNamespace, folder: Path, require_signature: str) -> dict[str, Any]:
        self.downloads.append(version.number)
        shutil.copytree(self._model, folder, dirs_exist_ok=True)
        if version.number in self.damaged:
            damage(folder)
        return {"run_id": f"run of {version.number}"}


@pytest.fixture
def fake_registry(trained: Path, monkeypatch: pytest.MonkeyPatch) -> FakeRegistry:
    registry = FakeRegistry(trained / "models")
    monkeypatch.setattr(module, "registered_model", registry)
    return registry


@pytest.fixture
def holder(fake_registry: FakeRegistry, tmp_path: Path) -> ModelHolder:
    holder = ModelHolder(ApiSettings(model="registry", cache=tmp_path / "cache"))
    assert holder.refresh()
    return holder


def current_number(holder: ModelHolder) -> str | None:
    model = holder.current()
    assert model.metadata == {"run_id": f"run of {model.registry_version}"}
    return model.registry_version


def test_a_champion_is_downloaded_once_and_the_last_good_one_is_kept(
    holder: ModelHolder, fake_registry: FakeRegistry, tmp_path: Path
) -> None:
    assert current_number(holder) == "1"
    assert not holder.refresh()
    fake_registry.champion = "2"
    assert holder.refresh()
    assert current_number(holder) == "2"
    assert fake_registry.downloads == ["1", "2"]
    current = json.loads((tmp_path / "cache" / "current.json").read_text())
    about = {"run_id": "run of 2"}
    assert current | {"folder": ""} == {"version": "2", "folder": "", "about": about, "signature": None}
    assert {path.name for path in (tmp_path / "cache").iterdir()} == {current["folder"], "current.json"}


def test_a_damaged_copy_of_the_champion_leaves_the_last_good_one(
    holder: ModelHolder, fake_registry: FakeRegistry, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fake_registry.damaged = {"1"}  # a byte in the store, since it was fetched
    for _ in range(2):
        restarted = ModelHolder(ApiSettings(model="registry", cache=tmp_path / "cache"))
        assert restarted.refresh()
        assert current_number(restarted) == "1"
        assert not restarted.refresh()
    assert "damaged or from another model; run `dvc repro`" in caplog.text
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_the_last_good_model_must_be_signed_too(
    holder: ModelHolder,
    fake_registry: FakeRegistry,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    public_key = new_key(tmp_path / "models.key", "")
    models = SimpleNamespace(require_signature=public_key)
    monkeypatch.setattr(module, "load_params", lambda: SimpleNamespace(models=models))
    fake_registry.champion = None
    settings = ApiSettings(model="registry", cache=tmp_path / "cache")
    with pytest.raises(UserError, match="has no champion"):
        ModelHolder(settings).refresh()
    assert "version 1 is not signed" in caplog.text
    current = tmp_path / "cache" / "current.json"
    content = json.loads(current.read_text())
    manifest = tmp_path / "cache" / content["folder"] / "manifest.json"
    signature = sign(manifest, read_key(tmp_path / "models.key"))
    current.write_text(json.dumps(content | {"signature": signature}))
    assert ModelHolder(settings).refresh()


def test_a_champion_that_is_refused_at_the_start_is_not_fetched_again(
    holder: ModelHolder, fake_registry: FakeRegistry, tmp_path: Path
) -> None:
    fake_registry.damaged, fake_registry.champion = {"2"}, "2"
    restarted = ModelHolder(ApiSettings(model="registry", cache=tmp_path / "cache"))
    assert restarted.refresh()
    assert not restarted.refresh()
    assert (current_number(restarted), restarted.has_refused()) == ("1", True)
    assert fake_registry.downloads == ["1", "2"]


def test_a_cache_of_a_version_before_is_read(holder: ModelHolder, fake_registry: FakeRegistry, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    current = json.loads((cache / "current.json").read_text())
    (cache / current.pop("folder")).rename(cache / "1")
    (cache / "current.json").write_text(json.dumps(current))
    fake_registry.champion = None
    restarted = ModelHolder(ApiSettings(model="registry", cache=cache))
    assert restarted.refresh()
    assert current_number(restarted) == "1"


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"version": "1", "about": {}, "folder": "../models"}'])
def test_a_cache_that_cannot_be_read_is_as_none(
    fake_registry: FakeRegistry, trained: Path, tmp_path: Path, content: str
) -> None:
    (tmp_path / "cache").mkdir()
    shutil.copytree(trained / "models", tmp_path / "models")
    (tmp_path / "cache" / "current.json").write_text(content)
    fake_registry.champion = None
    with pytest.raises(UserError, match="has no champion"):
        ModelHolder(ApiSettings(model="registry", cache=tmp_path / "cache")).refresh()


def test_a_champion_without_a_signature_is_not_fetched_again_until_it_has_one(
    holder: ModelHolder, fake_registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(version: SimpleNamespace, folder: Path, require_signature: str) -> None:
        fake_registry.downloads.append(version.number)
        raise UntrustedModelError("not signed")

    download, signature = fake_registry.download_model, None
    monkeypatch.setattr(fake_registry, "download_model", refuse)
    monkeypatch.setattr(fake_registry, "get_champion", lambda: SimpleNamespace(number="2", signature=signature))
    with pytest.raises(UserError, match="not signed"):
        holder.refresh()
    assert not holder.refresh()
    assert holder.has_refused()
    assert fake_registry.downloads == ["1", "2"]
    monkeypatch.setattr(fake_registry, "download_model", download)
    signature = "signed"
    assert holder.refresh()
    assert not holder.has_refused()


def test_a_refused_champion_is_not_loaded_again_until_there_is_another(
    holder: ModelHolder, fake_registry: FakeRegistry
) -> None:
    fake_registry.damaged, fake_registry.champion = {"2"}, "2"
    with pytest.raises(UserError, match="damaged"):
        holder.refresh()
    assert holder.has_refused()
    assert not holder.refresh()
    assert (current_number(holder), fake_registry.downloads) == ("1", ["1", "2"])
    fake_registry.champion = "3"
    assert holder.refresh()
    assert not holder.has_refused()
    assert current_number(holder) == "3"


def test_a_refusal_ends_when_the_current_model_is_champion_again(
    holder: ModelHolder, fake_registry: FakeRegistry
) -> None:
    fake_registry.damaged, fake_registry.champion = {"2"}, "2"
    with pytest.raises(UserError, match="damaged"):
        holder.refresh()
    fake_registry.champion = "1"
    assert not holder.refresh()
    assert not holder.has_refused()
    assert current_number(holder) == "1"


def test_a_registry_without_a_champion_is_an_error(holder: ModelHolder, fake_registry: FakeRegistry) -> None:
    fake_registry.champion = None
    with pytest.raises(UserError, match="has no champion: promote one with `make promote`"):
        holder.refresh()
    assert current_number(holder) == "1"


# servers on a real registry


class Registry(NamedTuple):
    """A trained project whose first version is champion, and what an API needs to know of its registry."""

    project: Path
    env: dict[str, str]
    client: mlflow.MlflowClient

    def promote(self, version: str) -> None:
        self.client.set_registered_model_alias(MODEL_NAME, CHAMPION, version)

    def train(self) -> str:
        """Train again with another threshold, which makes another model; returns its version."""
        params = self.project / "params.yaml"
        params.write_text(params.read_text().replace("target_precision: 0.95", "target_precision: 0.6"))
        run_in(self.project, "dvc", "repro")
        versions = self.client.search_model_versions(f"name = '{MODEL_NAME}'")
        return str(max(int(version.version) for version in versions))


def make_registry(trained: Path, folder: Path) -> Registry:
    project = folder / "project"
    shutil.copytree(trained, project, symlinks=True)
    uri = f"sqlite:///{project / 'mlflow.db'}"
    mlflow.set_tracking_uri(uri)
    env = {"MLFLOW_TRACKING_URI": uri, "API_CACHE": str(folder / "cache"), "API_REFRESH_SECONDS": "1"}
    registry = Registry(project, env, mlflow.MlflowClient(uri))
    registry.promote("1")  # without the gate, whose rule on latency fails on a busy machine
    return registry


@pytest.fixture(scope="module")
def registry_with_two(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Registry, str]]:
    """A registry, and the number of a second version."""
    registry = make_registry(trained, tmp_path_factory.mktemp("registry"))
    yield registry, registry.train()


@pytest.fixture
def registry(registry_with_two: tuple[Registry, str]) -> Registry:
    registry, _ = registry_with_two
    registry.promote("1")
    return registry


def registry_version(server: Api) -> str | None:
    version = get(f"{server.url}/model").json()["registry_version"]
    return version and str(version)


def refused_metric(server: Api) -> str:
    lines = get(f"{server.url}/metrics").text.splitlines()
    return next(line for line in lines if line.startswith("rakuten_api_champion_refused")).split()[1]


def test_the_champion_s_origin_is_told(registry: Registry, start: Callable[..., Api]) -> None:
    model = get(f"{start(registry.project, **registry.env).url}/model").json()
    assert (model["source"], model["registry_version"]) == ("registry", "1")
    assert model["git_commit"]
    assert model["scores"]["weighted_f1_low"] < model["scores"]["weighted_f1"]
    assert "data/raw/X_train.csv" in model["data"]


def test_a_new_champion_answers_without_a_dropped_request(
    registry: Registry, registry_with_two: tuple[Registry, str], start: Callable[..., Api]
) -> None:
    _, second = registry_with_two
    server = start(registry.project, **registry.env)
    answers: list[requests.Response] = []
    seen_new, done = threading.Event(), threading.Event()

    def ask() -> None:
        with requests.Session() as session:
            while not done.is_set():
                answers.append(session.post(f"{server.url}/predict", json=POOL, timeout=30))
                if seen_new.is_set():
                    return

    clients = [threading.Thread(target=ask) for _ in range(4)]
    for client in clients:
        client.start()
    try:
        registry.promote(second)
        wait_for(lambda: registry_version(server) == second, "the new champion", 60)
        seen_new.set()  # each client asks once more
        for client in clients:
            client.join(60)
    finally:
        done.set()
    assert {answer.status_code for answer in answers} == {200}
    versions = [answer.json()["model_version"] for answer in answers]
    assert len(set(versions)) == 2
    assert versions[-1] == get(f"{server.url}/model").json()["model_version"]


def test_a_champion_that_was_altered_is_refused_and_the_old_one_stays(
    registry: Registry, registry_with_two: tuple[Registry, str], start: Callable[..., Api]
) -> None:
    _, second = registry_with_two
    server = start(registry.project, **registry.env)
    # The stored model is altered behind the registry's back.
    source = registry.client.get_model_version(MODEL_NAME, second).source
    location = mlflow.get_logged_model(source.rpartition("/")[2]).artifact_location
    (manifest,) = Path(location.removeprefix("file://")).glob("data/*/manifest.json")
    vectorizer = manifest.with_name("vectorizer.json")
    intact = vectorizer.read_text()
    damage(manifest.parent)
    try:
        registry.promote(second)
        wait_for(lambda: "keeping the current model" in server.log.read_text(), "the refusal", 60)
        assert "damaged or from another model" in server.log.read_text()
        assert registry_version(server) == "1"
        assert post(f"{server.url}/predict", json=POOL).status_code == 200
        wait_for(lambda: refused_metric(server) == "1.0", "the refusal in the metrics", 30)
        registry.promote("1")
        wait_for(lambda: refused_metric(server) == "0.0", "the end of the refusal in the metrics", 30)
        assert server.log.read_text().count("keeping the current model") == 1
    finally:
        vectorizer.write_text(intact)


class Offline(NamedTuple):
    """A project whose tracking server is away, after a server has cached the champion."""

    project: Path
    env: dict[str, str]
    answer: dict[str, Any]  # of the server that was online


@pytest.fixture(scope="module")
def offline(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Offline:
    folder = tmp_path_factory.mktemp("offline")
    registry = make_registry(trained, folder)
    server = Api(registry.project, folder / "api.log", **registry.env).wait()
    answer = unnamed(post(f"{server.url}/predict", json=POOL))
    server.stop()
    return Offline(registry.project, registry.env | {"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{free_port()}"}, answer)


def test_the_last_good_model_answers_while_the_tracking_server_is_away(
    offline: Offline, start: Callable[..., Api]
) -> None:
    server = start(offline.project, **offline.env)
    assert "serving the last good model" in server.log.read_text()
    assert unnamed(post(f"{server.url}/predict", json=POOL)) == offline.answer
    assert registry_version(server) == "1"


def test_without_a_last_good_model_the_server_does_not_start(offline: Offline, tmp_path: Path) -> None:
    env = offline.env | {"API_CACHE": str(tmp_path / "empty")}
    assert "does not answer" in run_in(offline.project, *SERVE, code=1, **env)


def test_a_damaged_last_good_model_is_refused(offline: Offline, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    shutil.copytree(offline.env["API_CACHE"], cache)
    folder = json.loads((cache / "current.json").read_text())["folder"]
    (cache / folder / "model.safetensors").write_bytes(b"cut")
    assert "damaged" in run_in(offline.project, *SERVE, code=1, **(offline.env | {"API_CACHE": str(cache)}))
