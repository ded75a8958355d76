"""The real Prometheus on the real API: rules that promtool takes, alerts that fire, panels that have data."""

import json
import re
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from rakuten.tracking import lineage
from tests.support.project import ROOT, log_window, run_in
from tests.serving.conftest import Api
from tests.serving.test_app import POOL, jpeg, post
from tests.support.servers import free_port, wait_for

PROMETHEUS = ROOT / "deploy" / "prometheus"
DASHBOARD = ROOT / "deploy" / "grafana" / "dashboards" / "rakuten.json"
pytestmark = pytest.mark.skipif(not shutil.which("promtool"), reason="needs Debian's prometheus")


def promtool(*arguments: object) -> str:
    command = ["promtool", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_rules_are_sound_and_every_alert_has_its_two_cases() -> None:
    promtool("check", "config", "--syntax-only", PROMETHEUS / "prometheus.yml")
    promtool("check", "rules", *sorted((PROMETHEUS / "rules").glob("*.yml")))
    promtool("test", "rules", PROMETHEUS / "tests" / "alerts.yml")
    groups = yaml.safe_load((PROMETHEUS / "rules" / "alerts.yml").read_text())["groups"]
    alerts = {rule["alert"] for group in groups for rule in group["rules"]}
    cases = yaml.safe_load((PROMETHEUS / "tests" / "alerts.yml").read_text())["tests"]
    tried = [each for case in cases for each in case["alert_rule_test"]]
    assert {each["alertname"] for each in tried if each["exp_alerts"]} == alerts
    assert {each["alertname"] for each in tried if not each["exp_alerts"]} == alerts


def test_the_dashboard_is_what_its_code_makes() -> None:
    made = subprocess.run(
        [sys.executable, "-c", "import runpy; print(runpy.run_path('deploy/grafana/dashboard.py')['build'](), end='')"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert made == DASHBOARD.read_text(encoding="utf-8"), "run `make dashboard`"


@pytest.fixture(scope="module")
def watched(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Api]]:
    """Prometheus' address, and an API that has traffic, a drift report with labels, and a pipeline's outcome."""
    folder = tmp_path_factory.mktemp("prometheus")
    live = folder / "live"
    reference = pd.read_parquet(trained / "reports" / "reference.parquet").sample(600, replace=True, random_state=0)
    ids = log_window(live, reference.assign(predicted=2583), lineage.model_version(trained / "models"))
    reference[["prdtypecode"]].assign(prediction_id=ids).to_csv(live / "labels.csv", index=False)
    own = {"API_LIVE": str(live), "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}", "API_MODEL": "local"}
    run_in(trained, sys.executable, "-m", "rakuten", "monitor", **own)
    outcome = {"succeeded": True, "seconds": 7.5, "ended": "2026-01-01T00:00:00+00:00"}
    (live / "pipeline.json").write_text(json.dumps(outcome))
    keys = {"API_KEYS_FILE": str(folder / "keys.txt")}
    made = run_in(trained, sys.executable, "-m", "rakuten", "keys", "prometheus", **keys).splitlines()[0]
    (folder / "prometheus.key").write_text(made)
    server = Api(trained, folder / "log", API_LIVE=str(live), API_REQUIRE_KEYS="true", **keys).wait()
    shutil.copytree(PROMETHEUS / "rules", folder / "rules")
    config = (PROMETHEUS / "prometheus.yml").read_text()
    config = config.replace("15s", "1s").replace("api:8000", f"127.0.0.1:{server.port}")
    config = config.replace("/etc/prometheus/keys/prometheus.key", str(folder / "prometheus.key"))
    (folder / "prometheus.yml").write_text(config)
    promtool("check", "config", folder / "prometheus.yml")
    port = free_port()
    command = ["prometheus", f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'tsdb'}"]
    command.append(f"--web.listen-address=127.0.0.1:{port}")
    with (folder / "prometheus.log").open("w") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=stream)
    try:
        address = f"http://127.0.0.1:{port}"
        wait_for(lambda: _found(address, 'up{job="api"} == 1'), "the first scrape", 60)
        key = {"X-API-Key": made}
        for at in range(12):
            post(f"{server.url}/predict", json=POOL, headers=key)
            if at % 4 == 0:
                files = {"picture": ("a.jpg", jpeg(), "image/jpeg")}
                post(f"{server.url}/predict", data=POOL, files=files, headers=key)
                post(f"{server.url}/predict", json={"no": 1}, headers=key)
            time.sleep(0.5)  # rates need several scrapes
        yield address, server
    finally:
        process.terminate()
        process.wait(30)
        server.stop()


def _found(address: str, query: str) -> list[dict[str, Any]]:
    try:
        url = f"{address}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return list(json.load(answer)["data"]["result"])
    except urllib.error.HTTPError as error:
        raise AssertionError(f"{query}: {error.read().decode()}") from error
    except OSError:
        return []


def test_every_panel_has_data(watched: tuple[str, Api]) -> None:
    address, _ = watched
    panels = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    asked = [(panel["title"], target["expr"]) for panel in panels for target in panel.get("targets", [])]
    assert len(asked) > 20
    until = time.monotonic() + 60
    while asked := [each for each in asked if not _has_data(address, each[1])]:
        assert time.monotonic() < until, f"no data: {asked}"
        time.sleep(1)


def _has_data(address: str, query: str) -> bool:
    values = [float(each["value"][1]) for each in _found(address, query)]
    return any(value == value for value in values)  # NaN: nothing to divide


def test_what_is_scraped_follows_the_conventions(watched: tuple[str, Api]) -> None:
    address, server = watched
    names = {each["metric"]["__name__"] for each in _found(address, '{__name__=~"rakuten_.+", job="api"}')}
    assert {"rakuten_drift_score", "rakuten_live_weighted_f1", "rakuten_api_requests_total"} <= names
    for name in names:
        assert re.fullmatch(r"rakuten_[a-z0-9_]+", name)
        assert not name.endswith(("_ms", "_milliseconds", "_mb"))
    with urllib.request.urlopen(
        urllib.request.Request(
            f"{server.url}/metrics", headers={"X-API-Key": (server.log.parent / "prometheus.key").read_text()}
        )
    ) as answer:
        text = answer.read().decode()
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stdout + done.stderr


def test_alerts_fire(watched: tuple[str, Api]) -> None:
    """Drift as it was planted; then the API goes away."""
    address, server = watched
    drift = 'ALERTS{alertname="RakutenDrift", alertstate="firing"}'
    wait_for(lambda: bool(_found(address, drift)), "the alert on drift", 30)
    assert server.stop() == 0
    down = 'ALERTS{alertname="RakutenApiDown"}'  # pending: its minute is promtool's business
    wait_for(lambda: bool(_found(address, down)), "the alert on a target that is down", 30)
