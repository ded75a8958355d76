"""The whole loop on the synthetic sample: `make story`. Every step is asserted; its timeline is printed at the end.

Train and promote, serve, send traffic, shift it; the alert fires in a real Prometheus, the drift report names what
moved, people decide the products that need review, the flow retrains on newly labelled products and on these decisions,
the gate promotes, and the API answers with the new model, which has learnt from them, without a dropped request.
MLflow, Prefect, Prometheus and the API are real servers on loopback; everything happens in a copy of the project. With
`--screenshots FOLDER` their pages are saved as images.
"""

import argparse
import html
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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import requests

from rakuten.data.schema import X_COLUMNS, image_name
from rakuten.data.synthetic import proportional_codes, synthetic_products, write_catalogue
from rakuten.data.tables import read_raw, read_table
from rakuten.review.database import open_database
from rakuten.review.desk import NewDecision, ReviewDesk
from rakuten.review.tables import Answer, ReviewProduct
from tests.support.api import Api
from tests.support.catalogue import add_labelled
from tests.support.project import copy_project, environment, git, run_in
from tests.support.servers import answers, free_port, wait_for

N_TRAIN, N_TEST, N_TRAFFIC, N_LABELLED = 2000, 400, 700, 600  # products
N_IN_BROWSER = 10  # of the products that people decide
SEED = 42  # of the catalogue
MIN_AUDITED = 5  # of the few products that need review, fewer than usual are of the audit sample
MOSTLY_GERMAN = (0.05, 0.05, 0.9)  # shares of French, English, German titles after the shift
PROMETHEUS = Path("deploy/prometheus")
JSON_BODY = {"Content-Type": "application/json"}


class Timeline:
    """The steps that were done and when; printed as they happen, and all at the end."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._steps: list[tuple[str, str, str]] = []  # time, step, result

    def add(self, step: str, result: str) -> None:
        self._steps.append((f"{time.monotonic() - self._started:6.0f} s", step, result))
        sys.stdout.write(f"{self._steps[-1][0]}  {step}: {result}\n")
        sys.stdout.flush()

    def print(self) -> None:
        width = max(len(step) for _, step, _ in self._steps)
        sys.stdout.write("\nThe loop, on synthetic products\n\n")
        for seconds, step, result in self._steps:
            sys.stdout.write(f"  {seconds}  {step:<{width}}  {result}\n")


class DecidedProduct(NamedTuple):
    """A product of the review desk and the code that a person gave it."""

    product: ReviewProduct
    code: int


class Traffic:
    """A thread that sends products to the API until it is stopped, and counts the requests that fail."""

    def __init__(self, url: str, bodies: Sequence[str]) -> None:
        self._url, self._bodies = url, bodies
        self.n_sent, self.n_failed = 0, 0
        self.versions: list[str] = []  # model versions that answered, in order
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        with requests.Session() as session:
            while not self._stop.is_set():
                body = self._bodies[self.n_sent % len(self._bodies)].encode()
                self.n_sent += 1
                try:
                    response = session.post(f"{self._url}/predict", body, headers=JSON_BODY, timeout=30)
                except requests.RequestException:
                    self.n_failed += 1
                    continue
                if response.status_code != 200:
                    self.n_failed += 1
                elif (version := response.json()["model_version"]) not in self.versions:
                    self.versions.append(version)
                self._stop.wait(0.2)

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()


def request_bodies(raw: Path, name: str, n_products: int) -> list[str]:
    """JSON bodies for the first products of a catalogue's table (X_train or X_test), with their images."""
    folder = raw / "images" / ("image_train" if name == "X_train" else "image_test")
    bodies = []
    for row in read_raw(raw / f"{name}.csv", X_COLUMNS)[:n_products].to_dict("records"):
        image = (folder / image_name(row["imageid"], row["productid"])).read_bytes()
        product = {"designation": row["designation"], "description": row["description"]}
        bodies.append(json.dumps(product | {"picture": b64encode(image).decode()}))
    return bodies


def send(url: str, bodies: Sequence[str]) -> int:
    """Ask for a prediction of each; returns how many were answered."""
    n_answered = 0
    with requests.Session() as session:
        for body in bodies:
            n_answered += session.post(f"{url}/predict", body.encode(), headers=JSON_BODY, timeout=30).ok
    return n_answered


@contextmanager
def running(command: Sequence[str], folder: Path, log: Path, **settings: str) -> Iterator[None]:
    """A server process in a folder, terminated at the end."""
    with log.open("w") as stream:
        process = subprocess.Popen(
            command, cwd=folder, env=environment(folder, **settings), stdout=stream, stderr=stream
        )
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def is_firing(prometheus: str, alert: str) -> bool:
    query = urllib.parse.urlencode({"query": f'ALERTS{{alertname="{alert}", alertstate="firing"}}'})
    with urllib.request.urlopen(f"{prometheus}/api/v1/query?{query}", timeout=5) as response:
        return bool(json.load(response)["data"]["result"])


def write_prometheus_config(project: Path, folder: Path, api: str) -> None:
    """The project's own configuration for this API: without a key, scraped every second."""
    shutil.copytree(project / PROMETHEUS / "rules", folder / "rules")
    text = (project / PROMETHEUS / "prometheus.yml").read_text(encoding="utf-8")
    text = text.replace("15s", "1s").replace("api:8000", api.removeprefix("http://"))
    text = text.replace("    authorization:\n      credentials_file: /etc/prometheus/keys/prometheus.key\n", "")
    (folder / "prometheus.yml").write_text(text, encoding="utf-8")


class Demo:
    """The steps of the loop in the order in which `run` calls them. A step raises AssertionError if it fails."""

    def __init__(self, folder: Path, screenshots: Path | None, stack: ExitStack) -> None:
        self._folder, self._screenshots, self._stack = folder, screenshots, stack
        self._timeline = Timeline()
        self._project = copy_project(folder / "project")
        self._usual, self._shifted = folder / "usual", folder / "shifted"  # catalogues of the traffic
        self._env: dict[str, str] = {}
        self._mlflow = self._prefect = self._prometheus = ""  # addresses

    def run(self) -> None:
        self.make_catalogues()
        self.start_mlflow_and_prefect()
        self.train_first_version()
        self.serve()
        self.start_prometheus()
        self.send_usual_traffic()
        decided = self.review()
        bodies = self.send_shifted_traffic()
        self.retrain_under_traffic(bodies)
        self.check_what_was_learnt(decided)
        self._timeline.print()

    def make_catalogues(self) -> None:
        params = self._project / "params.yaml"
        text = re.sub(r"  window: \d+", f"  window: {N_TRAFFIC}", params.read_text())
        params.write_text(re.sub(r"  min_audited: \d+", f"  min_audited: {MIN_AUDITED}", text))
        git(self._project, "commit", "--all", "--message", "A window as long as the traffic")
        write_catalogue(N_TRAIN, N_TEST, SEED, self._project / "data" / "raw")
        write_catalogue(N_TRAFFIC, 1, 7, self._usual)
        write_catalogue(N_LABELLED, N_TRAFFIC, 8, self._shifted, MOSTLY_GERMAN)
        result = f"{N_TRAIN:,} synthetic products, {N_TRAFFIC} more as traffic, {N_TRAFFIC} mostly German for later"
        self._timeline.add("catalogue", result)

    def start_mlflow_and_prefect(self) -> None:
        port = free_port()
        self._mlflow = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
        command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{self._folder / 'mlflow.db'}"]
        command += ["--artifacts-destination", str(self._folder / "artifacts")]
        self._stack.enter_context(running(command, self._project, self._folder / "mlflow.log"))
        wait_for(lambda: answers(f"{self._mlflow}/health"), "MLflow's server", 120)
        port = free_port()
        self._prefect = f"http://127.0.0.1:{port}"
        self._env = {"MLFLOW_TRACKING_URI": self._mlflow, "PREFECT_API_URL": f"{self._prefect}/api"}
        self._env["PREFECT_HOME"] = str(self._folder / "prefect")
        command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
        self._stack.enter_context(running(command, self._project, self._folder / "prefect.log", **self._env))
        wait_for(lambda: answers(f"{self._prefect}/api/health"), "Prefect's server", 120)
        self._timeline.add("servers", "MLflow and Prefect answer")

    def train_first_version(self) -> None:
        output = self._run_python("flows/pipeline.py")
        assert "ran ingest, features, train, predict" in output, output
        assert "version 1 promoted over no champion" in output, output
        git(self._project, "commit", "--all", "--message", "dvc.lock and the scores of version 1")
        self._timeline.add("pipeline", "four stages run by the flow, version 1 promoted")

    def serve(self) -> None:
        self._api = Api(self._project, self._folder / "api.log", API_REFRESH_SECONDS="2", **self._env).wait()
        self._stack.callback(self._api.stop)
        self._first_version = requests.get(f"{self._api.url}/model", timeout=10).json()["model_version"]
        self._timeline.add("serving", f"the API answers with model {self._first_version}")

    def start_prometheus(self) -> None:
        port = free_port()
        self._prometheus = f"http://127.0.0.1:{port}"
        folder = self._folder / "prometheus"
        write_prometheus_config(self._project, folder, self._api.url)
        command = ["prometheus", "--config.file=prometheus.yml", "--storage.tsdb.path=tsdb"]
        command.append(f"--web.listen-address=127.0.0.1:{port}")
        self._stack.enter_context(running(command, folder, self._folder / "prometheus.log"))
        wait_for(lambda: answers(f"{self._prometheus}/-/ready"), "Prometheus", 60)

    def send_usual_traffic(self) -> None:
        assert send(self._api.url, request_bodies(self._usual, "X_train", N_TRAFFIC)) == N_TRAFFIC
        output = self._run_python("flows/monitor_and_retrain.py")
        assert "no drift in" in output, output
        assert not is_firing(self._prometheus, "RakutenDrift")
        self._timeline.add("usual traffic", f"{N_TRAFFIC} products, no drift, no alert")

    def review(self) -> list[DecidedProduct]:
        """People decide each product that needs review, and those of the audit sample: the first ones in a browser."""
        output = self._run_python("-m", "rakuten", "review", "add", "data/processed/predictions.csv")
        desk = ReviewDesk(open_database(f"sqlite:///{self._project / 'data' / 'review' / 'review.db'}"), 1)
        test_products = synthetic_products(proportional_codes(N_TEST, SEED + 1), N_TRAIN, SEED)
        true_codes: dict[int | None, int] = {product.productid: product.true_code for product in test_products}
        by_title = {shown_title(product): true_codes[product.productid] for product in desk.open_products()}
        n_in_browser = decide_in_browser(f"{self._api.url}/review", "jean", by_title, N_IN_BROWSER)
        wait_for(lambda: len(desk.decided()) == n_in_browser, "the decisions made in the browser", 30)
        while products := desk.take("jean", 20):  # whose page has products open, which nobody else gets
            for product in products:
                desk.decide(NewDecision("jean", product.id, Answer.CODE, true_codes[product.productid]))
        decided = [DecidedProduct(product, code) for product, code, _ in desk.decided()]
        assert f"{len(decided):,} products added" in output, output
        n_wrong = sum(each.product.predicted != each.code for each in decided)
        n_audited = sum(each.product.is_audit for each in decided)
        self._timeline.add(
            "review",
            f"people decide {len(decided)} products, {n_in_browser} in a browser, {n_audited} of the audit sample; "
            f"{n_wrong} were wrong",
        )
        return decided

    def send_shifted_traffic(self) -> list[str]:
        """Returns the request bodies."""
        bodies = request_bodies(self._shifted, "X_test", N_TRAFFIC)
        assert send(self._api.url, bodies) == N_TRAFFIC
        output = self._run_python("-m", "rakuten", "monitor")
        alarms = [line.partition("monitoring: ")[2] for line in output.splitlines() if "WARNING monitoring" in line]
        assert any("language has drifted" in alarm for alarm in alarms), output
        precision = requests.get(f"{self._api.url}/model", timeout=10).json()["live_precision"]
        assert precision["labels"] >= MIN_AUDITED and precision["low"] <= precision["precision"] <= precision["high"]
        self._timeline.add(
            "audit", "live precision {precision:.2f} [{low:.2f}, {high:.2f}] by {labels} products".format(**precision)
        )
        self._timeline.add("shifted traffic", f"{N_TRAFFIC} products; {alarms[0]}")
        wait_for(lambda: is_firing(self._prometheus, "RakutenDrift"), "the alert", 30)
        self._timeline.add("alert", "RakutenDrift fires in Prometheus")
        if self._screenshots is not None:
            # Debian's package has its pages under /classic.
            page = "/alerts" if answers(f"{self._prometheus}/alerts") else "/classic/alerts"
            take_screenshots(self._screenshots, {"prometheus": f"{self._prometheus}{page}"})
        return bodies

    def retrain_under_traffic(self, bodies: Sequence[str]) -> None:
        traffic = Traffic(self._api.url, bodies[:100])
        self._stack.callback(traffic.stop)
        add_labelled(self._project, self._shifted)
        self._timeline.add("labels", f"{N_LABELLED} labelled products like the shifted ones are added")
        output = self._run_python("flows/monitor_and_retrain.py", "--corrections")
        assert "the pipeline ran ingest, features, train, predict" in output, output
        assert "version 2 promoted over version 1" in output, output
        assert re.search(r"version 2: [\d,]+ products that people decided, or near-dup.* were left out", output), output
        gain = next(line.partition(": version 2: ")[2] for line in output.splitlines() if ": weighted F1 " in line)
        self._timeline.add("retraining", f"the flow ran the pipeline; the gate promoted version 2: {gain}")

        wait_for(lambda: len(traffic.versions) == 2, "the new model's answers", 60)
        time.sleep(2)  # some more answers of the new model
        traffic.stop()
        assert traffic.n_failed == 0, f"{traffic.n_failed} of {traffic.n_sent} requests were not answered"
        assert traffic.versions[0] == self._first_version
        self._timeline.add("swap", f"model {traffic.versions[1]} answers; {traffic.n_sent} requests, none dropped")
        if self._screenshots is not None:
            pages = {"mlflow": f"{self._mlflow}/#/models/rakuten-classifier", "prefect": f"{self._prefect}/runs"}
            take_screenshots(self._screenshots, pages | {"page": self._api.url})
            shutil.copy(self._project / "data" / "live" / "drift" / "drift.png", self._screenshots / "drift.png")
            self._timeline.add("screenshots", f"MLflow, Prefect, Prometheus, page and report in {self._screenshots}")

    def check_what_was_learnt(self, decided: Sequence[DecidedProduct]) -> None:
        """Each decided product is a train row with the decided code, traced to its decision; the model knows it."""
        train = read_table(self._project / "data" / "interim" / "merged_train.csv")
        label = dict(zip(train["productid"], train["prdtypecode"], strict=True))
        assert all(label[str(each.product.productid)] == str(each.code) for each in decided)
        first = decided[-1].product
        trace = self._run_python("-m", "rakuten", "trace", "--product", str(first.productid))
        assert "row added" in trace and "jean" in trace and f"had said {first.predicted}" in trace, trace
        self._timeline.add("trace", trace.splitlines()[1].strip())
        wrong = [each for each in decided if each.product.predicted != each.code]
        n_right = 0
        for each in wrong:
            body = {"designation": each.product.designation, "description": each.product.description}
            answer = requests.post(f"{self._api.url}/predict", json=body, timeout=30).json()
            n_right += answer["prdtypecode"] == each.code
        assert 2 * n_right > len(wrong), f"{n_right} of {len(wrong)}"
        self._timeline.add(
            "learnt", f"of {len(wrong)} products that version 1 had wrong, version 2 has {n_right} right"
        )

    def _run_python(self, *arguments: str) -> str:
        return run_in(self._project, sys.executable, *arguments, code=0, **self._env)


def decide_in_browser(url: str, person: str, code_of_title: Mapping[str, int], n_products: int) -> int:
    """Decide the next products on the desk's page, in a real Chromium; returns how many were, 0 where there is none.

    Args:
        code_of_title: by `shown_title`.
    """
    from playwright.sync_api import expect, sync_playwright

    from tests.support.chromium import ARGUMENTS, find_chromium

    if (chromium := find_chromium()) is None:
        return 0
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        page = browser.new_page(locale="en-GB")
        page.goto(url)
        page.fill("#person-name", person)
        page.keyboard.press("Enter")
        page.locator("#product").wait_for()
        heading = page.locator("#title")
        for _ in range(n_products):
            title = heading.inner_text()
            page.fill("#search", str(code_of_title[title]))
            page.keyboard.press("ArrowDown")
            page.keyboard.press("Enter")
            expect(heading).not_to_have_text(title)
        page.wait_for_load_state("networkidle")
        browser.close()
    return n_products


def shown_title(product: ReviewProduct) -> str:
    """A title as the desk's page shows it: entities as letters, white space joined."""
    return " ".join(html.unescape(product.designation).split())


def take_screenshots(folder: Path, pages: dict[str, str]) -> None:
    """Save pages, given as name and URL, as images from a real Chromium."""
    from playwright.sync_api import sync_playwright

    from tests.support.chromium import ARGUMENTS, find_chromium

    folder.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=ARGUMENTS)
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
    parser.add_argument("--screenshots", type=Path, help="save the servers' pages as images in this folder")
    parser.add_argument("--keep", type=Path, help="work in this folder, and leave it")
    arguments = parser.parse_args(argv)
    if shutil.which("prometheus") is None:
        parser.error("prometheus is not installed: `make test-tools`, or Debian's package of that name")
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as stack:
        folder: Path = arguments.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            Demo(folder, arguments.screenshots, stack).run()
        except AssertionError as error:
            sys.stderr.write(f"the loop failed: {error}\n")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
