"""What every container is confined to, read from the compose files; tests/integration/test_compose.py starts them."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.project import ROOT

FILES = ["docker-compose.mlflow.yml", "deploy/docker-compose.api.yml", "deploy/docker-compose.dask.yml"]
OWN_IMAGES = ("rakuten-mlflow", "rakuten-api", "rakuten-dask")
# One set of capabilities, for images that start as root and go on as another user.
MAY_START_AS_ROOT = {"postgres", "s3", "prometheus-volume"}


def services(file: str) -> dict[str, dict[str, Any]]:
    loaded: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / file).read_text())["services"]
    return loaded


ALL = [
    pytest.param(service, name, id=f"{Path(file).name}-{name}")
    for file in FILES
    for name, service in services(file).items()
]


@pytest.mark.parametrize(("service", "name"), ALL)
def test_a_container_has_limits_and_no_rights_that_it_does_not_need(service: dict[str, Any], name: str) -> None:
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["mem_limit"]
    assert service["pids_limit"]
    assert service["logging"]["options"] == {"max-size": "10m", "max-file": "3"}
    assert ("cap_add" in service) is (name in MAY_START_AS_ROOT)
    assert not {"privileged", "devices", "pid", "ipc"} & service.keys()
    assert not any("docker.sock" in volume for volume in service.get("volumes", ()))


@pytest.mark.parametrize(("service", "name"), ALL)
def test_an_image_of_others_is_pinned_by_digest_and_a_port_is_on_loopback(service: dict[str, Any], name: str) -> None:
    assert service["image"] in OWN_IMAGES or "@sha256:" in service["image"]
    for port in service.get("ports", ()):
        assert port.startswith("127.0.0.1:") or ":-127.0.0.1}:" in port, f"{name}: {port}"


def test_mlflow_alone_reaches_the_database_and_the_store() -> None:
    mlflow = yaml.safe_load((ROOT / FILES[0]).read_text())
    assert mlflow["networks"]["storage"] == {"internal": True}
    inside = {name for name, service in mlflow["services"].items() if "storage" in service.get("networks", ())}
    assert inside == {"postgres", "mlflow", "s3"}
    for name in ("postgres", "s3"):
        assert mlflow["services"][name]["networks"] == ["storage"]
        assert "ports" not in mlflow["services"][name]
    for file in FILES[1:]:
        assert not any("storage" in service.get("networks", ()) for service in services(file).values())


def test_grafana_is_for_looking_only() -> None:
    grafana = services(FILES[1])["grafana"]["environment"]
    assert grafana["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"
    assert grafana["GF_AUTH_DISABLE_LOGIN_FORM"] == grafana["GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION"] == "true"
