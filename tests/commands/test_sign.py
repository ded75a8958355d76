"""Signed models, from the key to the API, and what somebody reaches who can write to the registry."""

import json
import shutil
import sys
from pathlib import Path

import mlflow
import pytest

from rakuten.tracking.lineage import MODEL_TAG, model_digest
from rakuten.tracking.registry import CHAMPION, MODEL_NAME, SIGNATURE_TAG
from rakuten.tracking.signatures import new_key, read_key, sign
from tests.support.api import Api, get
from tests.support.project import run_in

pytestmark = pytest.mark.heavy

RAKUTEN = (sys.executable, "-m", "rakuten")
PROMOTE = (sys.executable, "src/models/promote.py", "--dry-run")
PASSWORD = {"SIGNING_PASSWORD": "open sesame"}


@pytest.fixture
def project(trained: Path, tmp_path: Path) -> Path:
    """A copy of the trained project, with a registry of its own."""
    return Path(shutil.copytree(trained, tmp_path / "project", symlinks=True))


def require_signature(project: Path, public_key: str) -> None:
    params = project / "params.yaml"
    params.write_text(params.read_text().replace("require_signature: none", f"require_signature: {public_key}"))


def stored_manifest(client: mlflow.MlflowClient) -> Path:
    source = client.get_model_version(MODEL_NAME, "1").source
    location = mlflow.get_logged_model(source.rpartition("/")[2]).artifact_location
    (manifest,) = Path(location.removeprefix("file://")).glob("data/*/manifest.json")
    return manifest


def test_only_what_the_team_has_signed_is_promoted_and_served(project: Path, tmp_path: Path) -> None:
    store = f"sqlite:///{project / 'mlflow.db'}"
    mlflow.set_tracking_uri(store)
    client = mlflow.MlflowClient(store)
    output = run_in(project, *RAKUTEN, "sign", "--new-key", "keys/models.key", **PASSWORD)
    require_signature(project, output.splitlines()[0])
    assert "version 1 is not signed" in run_in(project, *PROMOTE, code=1)

    said = run_in(project, *RAKUTEN, "sign", "--key", "keys/models.key", **PASSWORD)
    assert f"signed: version 1 (model {model_digest(project / 'models')[:12]})" in said
    assert "dry run, nothing was promoted" in run_in(project, *PROMOTE)
    client.set_registered_model_alias(MODEL_NAME, CHAMPION, "1")
    settings = {"MLFLOW_TRACKING_URI": store, "API_CACHE": str(tmp_path / "cache")}
    server = Api(project, tmp_path / "api.log", **settings).wait()
    served = get(f"{server.url}/model").json()["model_version"]
    server.stop()

    # The registry is stolen: a model that reviews nothing, with digests, run and signature made to fit.
    manifest = stored_manifest(client)
    content = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(content | {"threshold": 0.0}))
    client.set_tag(client.get_model_version(MODEL_NAME, "1").run_id, MODEL_TAG, model_digest(manifest.parent))
    new_key(tmp_path / "thief.key", "")
    client.set_model_version_tag(MODEL_NAME, "1", SIGNATURE_TAG, sign(manifest, read_key(tmp_path / "thief.key")))
    empty = settings | {"API_CACHE": str(tmp_path / "empty")}
    assert "its signature does not match the key" in run_in(project, *RAKUTEN, "serve", code=1, **empty)
    # A server that has served before goes on with the last good model.
    server = Api(project, tmp_path / "again.log", **settings).wait()
    assert "serving the last good model" in server.log.read_text()
    assert get(f"{server.url}/model").json()["model_version"] == served
    server.stop()


def test_a_model_that_is_not_the_recorded_one_is_not_signed(project: Path) -> None:
    run_in(project, *RAKUTEN, "sign", "--new-key", "models.key")
    lock = project / "dvc.lock"
    recorded = lock.read_text()
    lock.write_text(recorded.replace("models/manifest.json", "models/other.json"))
    assert "is not the model that dvc.lock records" in run_in(project, *RAKUTEN, "sign", "--key", "models.key", code=1)
    lock.write_text(recorded)
    (project / "mlflow.db").unlink()
    said = run_in(project, *RAKUTEN, "sign", "--key", "models.key", code=1)
    assert "has no version with the model in" in said
