"""A real Alertmanager, configured by deploy/alertmanager/start.sh, and receivers on loopback."""

import json
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.alertmanager import PROGRAM, START, alertmanager, mail_server, settings_of, webhook
from tests.support.servers import wait_for

pytestmark = pytest.mark.skipif(not PROGRAM, reason="needs Debian's prometheus-alertmanager")
ALERT = {
    "labels": {"alertname": "RakutenDrift", "severity": "warn", "job": "api"},
    "annotations": {"summary": "Live traffic has drifted: 3 alarms", "action": "look at drift.html"},
}

Start = Callable[..., tuple[str, Path]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """`start(**settings)`: starts it; returns its address and its log."""
    with ExitStack() as stack:
        yield lambda **settings: (
            stack.enter_context(alertmanager(tmp_path, **settings)),
            tmp_path / "alertmanager.log",
        )


def send_alert(address: str) -> None:
    request = urllib.request.Request(
        f"{address}/api/v2/alerts", json.dumps([ALERT]).encode(), {"Content-Type": "application/json"}
    )
    urllib.request.urlopen(request, timeout=10)


def test_a_webhook_gets_the_alert(start: Start) -> None:
    with webhook() as (url, bodies):
        address, _ = start(ALERT_WEBHOOK_URL=url)
        send_alert(address)
        wait_for(lambda: bool(bodies), "the alert", 30)
    assert bodies[0]["alerts"][0]["annotations"] == ALERT["annotations"]
    assert bodies[0]["status"] == "firing"


def test_a_mail_has_what_to_do(start: Start) -> None:
    with mail_server() as (server, mails):
        settings = {"ALERT_MAIL_SERVER": server, "ALERT_MAIL_FROM": "alerts@example.com", "ALERT_MAIL_TLS": "false"}
        address, _ = start(ALERT_MAIL_TO="team@example.com, boss@example.com", **settings)
        send_alert(address)
        wait_for(lambda: bool(mails), "the mail", 30)
    assert "team@example.com" in mails[0]
    assert "RCPT TO:<boss@example.com>" in mails[0]
    for text in ("RakutenDrift", "3 alarms", "drift.html"):
        assert text in mails[0].replace("=\r\n", "")


def test_both_may_be_set(start: Start) -> None:
    with webhook() as (url, bodies), mail_server() as (server, mails):
        settings = {"ALERT_MAIL_SERVER": server, "ALERT_MAIL_FROM": "a@example.com", "ALERT_MAIL_TLS": "false"}
        address, _ = start(ALERT_WEBHOOK_URL=url, ALERT_MAIL_TO="team@example.com", **settings)
        send_alert(address)
        wait_for(lambda: bool(bodies and mails), "both", 30)


def test_with_neither_it_runs_and_says_so(start: Start) -> None:
    address, log = start()
    send_alert(address)
    with urllib.request.urlopen(f"{address}/api/v2/alerts", timeout=10) as answer:
        assert [alert["labels"]["alertname"] for alert in json.load(answer)] == ["RakutenDrift"]
    assert log.read_text().startswith("no alert is sent to anybody: set ALERT_MAIL_TO or ALERT_WEBHOOK_URL in .env\n")


@pytest.mark.parametrize("name", ["ALERT_MAIL_FROM", "ALERT_MAIL_SERVER"])
def test_half_the_settings_of_mail_are_an_error(tmp_path: Path, name: str) -> None:
    settings = {"ALERT_MAIL_TO": "a@b.c", "ALERT_MAIL_FROM": "a@b.c", "ALERT_MAIL_SERVER": "mail:25"}
    del settings[name]
    done = subprocess.run(["sh", START], env=settings_of(tmp_path, **settings), capture_output=True, text=True)
    assert done.returncode != 0
    assert f"set {name} in .env" in done.stderr


def test_a_setting_is_a_text_whatever_it_contains(tmp_path: Path) -> None:
    """And nobody else can read the file: it has a password."""
    password = "it's: {a} #b\n- c"
    settings = {"ALERT_MAIL_FROM": "a@b.c", "ALERT_MAIL_SERVER": "mail:25", "ALERT_MAIL_USER": "u"}
    env = settings_of(tmp_path, ALERT_MAIL_TO="a@b.c", ALERT_MAIL_PASSWORD=password, ALERTMANAGER="true", **settings)
    subprocess.run(["sh", START], env=env, check=True)
    written = tmp_path / "alertmanager.yml"
    assert "auth_password: 'it''s: {a} #b- c'\n" in written.read_text()
    assert written.stat().st_mode & 0o077 == 0
