"""`make story`: the whole loop on the synthetic sample, every step asserted, its timeline at the end.

Trains and promotes, serves, sends traffic, shifts it; the alert fires in a real Prometheus, the drift report says what
moved, the flow retrains on newly labelled products, the gate promotes, and the API answers with the new model
without one dropped request. MLflow, Prefect, Prometheus and the API are real servers on loopback; everything
happens in a copy of the project. With `--screenshots FOLDER` their pages are kept as pictures.
"""

import argparse
import csv
import json
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from base64 import b64encode
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import requests

from rakuten.data.schema import X_COLUMNS, image_name
from rakuten.data.synthetic import write_catalogue
from rakuten.data.tables import read_raw
from tests.support.project import copy_project, environment, git, run_in
from tests.serving.conftest import Api
from tests.support.servers import answers, free_port, wait_for

ROWS, FRESH, LABELLED = 2000, 700, 600
GERMAN = (0.05, 0.05, 0.9)  # shares of French, English, German titles after the shift
PROMETHEUS = Path("deploy/prometheus")


class Timeline:
    """What happened, when; printed as it happens and whole at the end."""

    def __init__(self) -> None:
        self.started, self.lines = time.monotonic(), [("", "", "")][:0]

    def say(self, step: str, found: str) -> None:
        self.lines.append((f"{time.monotonic() - self.started:6.0f} s", step, found))
        sys.stdout.write(f"{self.lines[-1][0]}  {step}: {found}\n")
        sys.stdout.flush()

    def print(self) -> None:
        width = max(len(step) for _, step, _ in self.lines)
        sys.stdout.write("\nThe story, on synthetic products\n\n")
        for moment, step, found in self.lines:
            sys.stdout.write(f"  {moment}  {step:<{width}}  {found}\n")


class Traffic:
    """Asks the API for products, again and again, until it is stopped; counts what is not answered."""

    def __init__(self, url: str, bodies: Sequence[str]) -> None:
        self.url, self.bodies = url, list(bodies)
        self.answers, self.failed, self.versions = 0, 0, []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        with requests.Session() as session:
            while not self._stop.is_set():
                body = self.bodies[self.answers % len(self.bodies)].encode()
                self.answers += 1
                try:
                    answer = session.post(
                        f"{self.url}/predict", body, headers={"Content-Type": "application/json"}, timeout=30
                    )
                except requests.RequestException:
                    self.failed += 1
                    continue
                if answer.status_code != 200:
                    self.failed += 1
                elif (version := answer.json()["model_version"]) not in self.versions:
                    self.versions.append(version)
                self._stop.wait(0.2)

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()


def bodies(raw: Path, name: str, count: int) -> list[str]:
    """Requests for the first products of a catalogue, with their pictures."""
    found = []
    for row in read_raw(raw / f"{name}.csv", X_COLUMNS)[:count].to_dict("records"):
        folder = raw / "images" / ("image_train" if name == "X_train" else "image_test")
        picture = (folder / image_name(row["imageid"], row["productid"])).read_bytes()
        product = {"designation": row["designation"], "description": row["description"]}
        found.append(json.dumps(product | {"picture": b64encode(picture).decode()}))
    return found


def send(url: str, products: Sequence[str]) -> int:
    """Ask for all of them; returns how many were answered."""
    answered = 0
    with requests.Session() as session:
        for product in products:
            headers = {"Content-Type": "application/json"}
            answered += session.post(f"{url}/predict", product.encode(), headers=headers, timeout=30).ok
    return answered


def add_labelled(project: Path, new: Path) -> None:
    """Append a catalogue's train rows, labels and pictures to the project's raw data, indexes going on."""
    raw = project / "data" / "raw"
    rows = len(read_raw(raw / "X_train.csv", X_COLUMNS))
    for name in ("X_train.csv", "Y_train.csv"):
        with (new / name).open(encoding="utf-8", newline="") as source:
            lines = list(csv.reader(source))[1:]
        with (raw / name).open("a", encoding="utf-8", newline="") as target:
            csv.writer(target, lineterminator="\n").writerows(
                [str(rows + at), *line[1:]] for at, line in enumerate(lines)
            )
    for picture in (new / "images" / "image_train").iterdir():
        shutil.copy(picture, raw / "images" / "image_train")


@contextmanager
def running(command: Sequence[str], project: Path, log: Path, **settings: str) -> Iterator[None]:
    """A server, ended at the end."""
    with log.open("w") as stream:
        process = subprocess.Popen(
            command, cwd=project, env=environment(project, **settings), stdout=stream, stderr=stream
        )
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def firing(prometheus: str, alert: str) -> bool:
    query = urllib.parse.urlencode({"query": f'ALERTS{{alertname="{alert}", alertstate="firing"}}'})
    with urllib.request.urlopen(f"{prometheus}/api/v1/query?{query}", timeout=5) as answer:
        return bool(json.load(answer)["data"]["result"])


def prometheus_config(project: Path, folder: Path, api: str) -> Path:
    """The project's own configuration, with this API, without a key, and looking every second."""
    shutil.copytree(project / PROMETHEUS / "rules", folder / "rules")
    text = (project / PROMETHEUS / "prometheus.yml").read_text(encoding="utf-8")
    text = text.replace("15s", "1s").replace("api:8000", api.removeprefix("http://"))
    text = text.replace("    authorization:\n      credentials_file: /etc/prometheus/keys/prometheus.key\n", "")
    (folder / "prometheus.yml").write_text(text, encoding="utf-8")
    return folder


def tell(folder: Path, pictures: Path | None) -> None:
    """The story; raises AssertionError where a step does not come out."""
    line, project = Timeline(), copy_project(folder / "project")
    fresh, shifted = folder / "fresh", folder / "shifted"
    params = project / "params.yaml"
    params.write_text(re.sub(r"  window: \d+", f"  window: {FRESH}", params.read_text()))
    git(project, "commit", "--all", "--message", "A window as long as the story's traffic")
    write_catalogue(ROWS, 400, 42, project / "data" / "raw")
    write_catalogue(FRESH, 1, 7, fresh)
    write_catalogue(LABELLED, FRESH, 8, shifted, GERMAN)
    line.say("catalogue", f"{ROWS:,} synthetic products, {FRESH} more as traffic, {FRESH} mostly German ones for later")
    with ExitStack() as stack:
        port = free_port()
        mlflow = f"http://127.0.0.1:{port}"
        command = [
            sys.executable,
            "-m",
            "mlflow",
            "server",
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
            "--workers",
            "1",
        ]
        command += ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"]
        command += ["--artifacts-destination", str(folder / "artifacts")]
        stack.enter_context(running(command, project, folder / "mlflow.log"))
        wait_for(lambda: answers(f"{mlflow}/health"), "MLflow's server", 120)
        port = free_port()
        prefect = f"http://127.0.0.1:{port}"
        env = {"MLFLOW_TRACKING_URI": mlflow, "PREFECT_API_URL": f"{prefect}/api"}
        env["PREFECT_HOME"] = str(folder / "prefect")
        command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
        stack.enter_context(running(command, project, folder / "prefect.log", **env))
        wait_for(lambda: answers(f"{prefect}/api/health"), "Prefect's server", 120)
        line.say("servers", "MLflow and Prefect answer")

        said = run_in(project, sys.executable, "flows/pipeline.py", **env)
        assert "ran ingest, features, train, predict" in said, said
        assert "version 1 promoted over no champion" in said, said
        git(project, "commit", "--all", "--message", "dvc.lock and the scores of version 1")
        line.say("pipeline", "four stages run by the flow, version 1 promoted")

        api = Api(project, folder / "api.log", API_REFRESH_SECONDS="2", **env).wait()
        stack.callback(api.stop)
        first = requests.get(f"{api.url}/model", timeout=10).json()["model_version"]
        line.say("serving", f"the API answers with model {first}")
        port = free_port()
        prometheus = f"http://127.0.0.1:{port}"
        place = prometheus_config(project, folder / "prometheus", api.url)
        command = ["prometheus", "--config.file=prometheus.yml", "--storage.tsdb.path=tsdb"]
        command.append(f"--web.listen-address=127.0.0.1:{port}")
        stack.enter_context(running(command, place, folder / "prometheus.log"))
        wait_for(lambda: answers(f"{prometheus}/-/ready"), "Prometheus", 60)

        assert send(api.url, bodies(fresh, "X_train", FRESH)) == FRESH
        said = run_in(project, sys.executable, "flows/monitor_and_retrain.py", **env)
        assert "no drift in" in said, said
        assert not firing(prometheus, "RakutenDrift")
        line.say("usual traffic", f"{FRESH} products, no drift, no alert")

        later = bodies(shifted, "X_test", FRESH)
        assert send(api.url, later) == FRESH
        said = run_in(project, sys.executable, "-m", "rakuten", "monitor", **env)
        moved = [text.partition("monitoring: ")[2] for text in said.splitlines() if "WARNING monitoring" in text]
        assert any("language has drifted" in text for text in moved), said
        line.say("shifted traffic", f"{FRESH} products; {moved[0]}")
        wait_for(lambda: firing(prometheus, "RakutenDrift"), "the alert", 30)
        line.say("alert", "RakutenDrift fires in Prometheus")
        if pictures is not None:
            # Debian's package has its pages under /classic.
            alerts = "/alerts" if answers(f"{prometheus}/alerts") else "/classic/alerts"
            photograph(pictures, {"prometheus": f"{prometheus}{alerts}"})

        traffic = Traffic(api.url, later[:100])
        stack.callback(traffic.stop)
        add_labelled(project, shifted)
        line.say("labels", f"{LABELLED} products like the new ones come, with their codes")
        said = run_in(project, sys.executable, "flows/monitor_and_retrain.py", **env)
        assert "the pipeline ran ingest, features, train, predict" in said, said
        assert "version 2 promoted over version 1" in said, said
        gain = next(text.partition(": version 2: ")[2] for text in said.splitlines() if ": weighted F1 " in text)
        line.say("retraining", f"the flow ran the pipeline; the gate promoted version 2: {gain}")

        wait_for(lambda: len(traffic.versions) == 2, "the new model's answers", 60)
        time.sleep(2)
        traffic.stop()
        assert traffic.failed == 0, f"{traffic.failed} of {traffic.answers} requests were not answered"
        assert traffic.versions[0] == first
        line.say("swap", f"model {traffic.versions[1]} answers; {traffic.answers} requests meanwhile, none dropped")
        if pictures is not None:
            models = f"{mlflow}/#/models/rakuten-classifier"
            photograph(pictures, {"mlflow": models, "prefect": f"{prefect}/runs", "page": api.url})
            shutil.copy(project / "data" / "live" / "drift" / "drift.png", pictures / "drift.png")
            line.say("pictures", f"MLflow, Prefect, Prometheus, the page and the drift report in {pictures}")
    line.print()


def photograph(folder: Path, pages: dict[str, str]) -> None:
    """Pages by name in a real Chromium."""
    from playwright.sync_api import sync_playwright

    from tests.serving.test_page import ARGUMENTS, CHROMIUMS

    found = next(filter(None, map(shutil.which, CHROMIUMS)))
    folder.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=ARGUMENTS)
        for name, url in pages.items():
            page = browser.new_page(viewport={"width": 1280, "height": 900}, locale="en-US")
            page.goto(url)
            page.wait_for_timeout(5000)
            if name == "mlflow" and (panel := page.get_by_role("button", name="Close")).count():
                panel.last.click()
                page.wait_for_timeout(1000)
            if name == "page":
                page.get_by_label("Title", exact=False).first.fill("Schwimmbecken rund aufblasbar 360 cm")
                page.keyboard.press("Enter")
                page.wait_for_timeout(3000)
            page.screenshot(path=folder / f"{name}.png")
        browser.close()


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.end_to_end", description=__doc__)
    parser.add_argument("--screenshots", type=Path, help="keep the servers' pages as pictures in this folder")
    parser.add_argument("--keep", type=Path, help="work in this folder, and leave it")
    arguments = parser.parse_args(argv)
    if shutil.which("prometheus") is None:
        parser.error("prometheus is not installed: `make test-tools`, or Debian's package of that name")
    with tempfile.TemporaryDirectory() as temporary:
        folder: Any = arguments.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            tell(folder, arguments.screenshots)
        except AssertionError as error:
            sys.stderr.write(f"the story broke off: {error}\n")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
