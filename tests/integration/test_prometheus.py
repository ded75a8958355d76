"""A real Prometheus on a real API: rules that promtool accepts, alerts that fire, panels that have data."""

import json
import math
import re
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pytest
import yaml

from rakuten.review.database import open_database
from rakuten.review.desk import NewDecision, ReviewDesk
from rakuten.review.tables import Answer
from rakuten.tracking import lineage
from tests.support.alertmanager import PROGRAM, alertmanager, webhook
from tests.support.api import POOL, Api, jpeg, post
from tests.support.prediction_log import log_window
from tests.support.project import ROOT, run_in
from tests.support.servers import free_port, wait_for

PROMETHEUS = ROOT / "deploy" / "prometheus"
DASHBOARD = ROOT / "deploy" / "grafana" / "dashboards" / "rakuten.json"
pytestmark = pytest.mark.skipif(not shutil.which("promtool"), reason="needs Debian's prometheus")


def promtool(*arguments: object) -> str:
    command = ["promtool", *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_the_rules_are_valid_and_each_alert_has_a_case_that_fires_it_and_one_that_does_not() -> None:
    promtool("check", "config", "--syntax-only", PROMETHEUS / "prometheus.yml")
    promtool("check", "rules", *sorted((PROMETHEUS / "rules").glob("*.yml")))
    promtool("test", "rules", PROMETHEUS / "tests" / "alerts.yml")
    groups = yaml.safe_load((PROMETHEUS / "rules" / "alerts.yml").read_text())["groups"]
    alerts = {rule["alert"] for group in groups for rule in group["rules"]}
    cases = yaml.safe_load((PROMETHEUS / "tests" / "alerts.yml").read_text())["tests"]
    tests = [test for case in cases for test in case["alert_rule_test"]]
    assert {test["alertname"] for test in tests if test["exp_alerts"]} == alerts
    assert {test["alertname"] for test in tests if not test["exp_alerts"]} == alerts


def test_the_dashboard_is_what_its_code_makes() -> None:
    built = subprocess.run(
        [sys.executable, "-c", "import runpy; print(runpy.run_path('deploy/grafana/dashboard.py')['build'](), end='')"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert built == DASHBOARD.read_text(encoding="utf-8"), "run `make dashboard`"


class Alerts(NamedTuple):
    address: str  # of Alertmanager
    bodies: list[dict[str, Any]]  # what its webhook has got


@pytest.fixture(scope="module")
def alerts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Alerts]:
    """Alertmanager with a webhook; without the program, an address where nobody is."""
    if PROGRAM is None:
        yield Alerts(f"http://127.0.0.1:{free_port()}", [])
        return
    folder = tmp_path_factory.mktemp("alertmanager")
    with webhook() as (url, bodies), alertmanager(folder, ALERT_WEBHOOK_URL=url) as address:
        yield Alerts(address, bodies)


@pytest.fixture(scope="module")
def monitored(trained: Path, alerts: Alerts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Api]]:
    """Prometheus' address, and an API with traffic, a drift report with labels, and the status of a pipeline run."""
    folder = tmp_path_factory.mktemp("prometheus")
    live = folder / "live"
    reference = pd.read_parquet(trained / "reports" / "reference.parquet").sample(600, replace=True, random_state=0)
    window = reference.assign(predicted=2583, is_novel=[True] * 60 + [False] * 540)
    ids = log_window(live, window, lineage.model_version(trained / "models"))
    reference[["prdtypecode"]].assign(prediction_id=ids).to_csv(live / "labels.csv", index=False)
    settings = {"API_LIVE": str(live), "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}", "API_MODEL": "local"}
    settings["REVIEW_DATABASE_URL"] = f"sqlite:///{folder / 'review.db'}"
    audit_products(settings["REVIEW_DATABASE_URL"], lineage.model_version(trained / "models"))
    run_in(trained, sys.executable, "-m", "rakuten", "monitor", **settings)
    status = {"succeeded": True, "seconds": 7.5, "ended": "2026-01-01T00:00:00+00:00"}
    (live / "pipeline.json").write_text(json.dumps(status))
    keys = {"API_KEYS_FILE": str(folder / "keys.txt")}
    key = run_in(trained, sys.executable, "-m", "rakuten", "keys", "prometheus", **keys).splitlines()[0]
    (folder / "prometheus.key").write_text(key)
    server = Api(trained, folder / "log", API_LIVE=str(live), API_REQUIRE_KEYS="true", **keys).wait()
    shutil.copytree(PROMETHEUS / "rules", folder / "rules")
    config = (PROMETHEUS / "prometheus.yml").read_text()
    config = config.replace("15s", "1s").replace("api:8000", f"127.0.0.1:{server.port}")
    config = config.replace("/etc/prometheus/keys/prometheus.key", str(folder / "prometheus.key"))
    config = config.replace("alertmanager:9093", alerts.address.removeprefix("http://"))
    (folder / "prometheus.yml").write_text(config)
    promtool("check", "config", folder / "prometheus.yml")
    port = free_port()
    command = ["prometheus", f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'tsdb'}"]
    command.append(f"--web.listen-address=127.0.0.1:{port}")
    with (folder / "prometheus.log").open("w") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=stream)
    try:
        address = f"http://127.0.0.1:{port}"
        wait_for(lambda: _query(address, 'up{job="api"} == 1'), "the first scrape", 60)
        headers = {"X-API-Key": key}
        for number in range(12):
            post(f"{server.url}/predict", json=POOL, headers=headers)
            if number % 4 == 0:
                files = {"picture": ("a.jpg", jpeg(), "image/jpeg")}
                post(f"{server.url}/predict", data=POOL, files=files, headers=headers)
                post(f"{server.url}/predict", json={"no": 1}, headers=headers)
            time.sleep(0.5)  # rates need several scrapes
        yield address, server
    finally:
        process.terminate()
        process.wait(30)
        server.stop()


def audit_products(url: str, model_version: str) -> None:
    """A review desk in which people have checked 60 automatic decisions of a model, and found 45 of them right."""
    product: dict[str, Any] = {
        "source": "file", "productid": 1, "imageid": 1, "designation": "Piscine", "description": "", "image": None,
        "language": "french", "prdtypecode": None, "predicted": 2583, "confidence": 0.99, "top": [[2583, 0.99]],
        "model_version": model_version, "is_audit": True, "group": "", "priority": 0.5,
    }  # fmt: skip
    desk = ReviewDesk(open_database(url), 1)
    desk.add([product | {"key": f"1_{number}"} for number in range(60)])
    for number in range(60):
        desk.decide(NewDecision("ann", number + 1, Answer.CODE, 2583 if number < 45 else 10))


def _query(address: str, query: str) -> list[dict[str, Any]]:
    try:
        url = f"{address}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return list(json.load(answer)["data"]["result"])
    except urllib.error.HTTPError as error:
        raise AssertionError(f"{query}: {error.read().decode()}") from error
    except OSError:
        return []


def test_every_panel_has_data(monitored: tuple[str, Api]) -> None:
    address, _ = monitored
    panels = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    queries = [(panel["title"], target["expr"]) for panel in panels for target in panel.get("targets", [])]
    assert len(queries) > 20

    def all_have_data() -> bool:
        queries[:] = [(title, query) for title, query in queries if not _has_data(address, query)]
        return not queries

    with suppress(AssertionError):
        wait_for(all_have_data, "data of every panel", 120)
    assert not queries, "no data"


def _has_data(address: str, query: str) -> bool:
    values = [float(sample["value"][1]) for sample in _query(address, query)]
    return not all(map(math.isnan, values))  # NaN: 0 / 0


def test_the_live_precision_is_said_by_the_api_and_alarms(monitored: tuple[str, Api]) -> None:
    address, server = monitored
    key = (server.log.parent / "prometheus.key").read_text()
    with urllib.request.urlopen(urllib.request.Request(f"{server.url}/model", headers={"X-API-Key": key})) as answer:
        precision = json.load(answer)["live_precision"]
    assert (precision["precision"], precision["labels"], precision["promised"]) == (0.75, 60, 0.95)
    assert precision["low"] < 0.75 < precision["high"] < 0.95
    (sample,) = _query(address, 'rakuten_live_precision{which="live"}')
    assert float(sample["value"][1]) == 0.75
    pending = 'ALERTS{alertname="RakutenPrecisionBelowPromise"}'  # it fires after a quarter of an hour
    wait_for(lambda: bool(_query(address, pending)), "the alert", 60)


def test_a_flood_of_novel_products_alarms(monitored: tuple[str, Api]) -> None:
    address, _ = monitored
    (share,) = _query(address, 'rakuten_novel_share{which="live"}')
    assert float(share["value"][1]) == 0.1
    pending = 'ALERTS{alertname="RakutenNovelProducts"}'  # it fires after a quarter of an hour
    wait_for(lambda: bool(_query(address, pending)), "the alert", 60)


def test_what_is_scraped_follows_the_conventions(monitored: tuple[str, Api]) -> None:
    address, server = monitored
    names = {sample["metric"]["__name__"] for sample in _query(address, '{__name__=~"rakuten_.+", job="api"}')}
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
    result = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stdout + result.stderr


def sent_alerts(alerts: Alerts) -> set[str]:
    return {alert["labels"]["alertname"] for body in alerts.bodies for alert in body["alerts"]}


def test_alerts_fire_and_reach_somebody(monitored: tuple[str, Api], alerts: Alerts) -> None:
    """On the drift of the traffic; then on the API, once it has stopped."""
    address, server = monitored
    drift = 'ALERTS{alertname="RakutenDrift", alertstate="firing"}'
    wait_for(lambda: bool(_query(address, drift)), "the alert on drift", 60)
    if PROGRAM is not None:
        wait_for(lambda: "RakutenDrift" in sent_alerts(alerts), "the alert at the webhook", 60)
    assert server.stop() == 0
    down = 'ALERTS{alertname="RakutenApiDown"}'  # pending; that it fires after a minute is tested by promtool
    wait_for(lambda: bool(_query(address, down)), "the alert on a target that is down", 60)
