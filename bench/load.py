"""The API under load on loopback: `python -m bench.load --folder FOLDER` after `make bench` made FOLDER.

wrk (the Debian package) requests one product at a time from the real server, with 1, 8 and 64 clients: without
encoders, with the default encoders, and with an image for each product. In the same run are measured the rate of the
bare model call in one process, and MLflow's own scoring server on the same model. Then ten times as many clients as
the queue holds, and the memory over many requests.
"""

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import psutil
from mlflow.models import ModelSignature

from bench.baselines import ngrams_only
from bench.measure import memory
from rakuten.config import ROOT, SOURCE
from rakuten.data.images import ImageFiles
from rakuten.data.schema import X_COLUMNS, image_name
from rakuten.data.tables import read_raw
from rakuten.models.classifier import ProductClassifier
from rakuten.tracking.training_run import INPUT_SCHEMA

CLIENTS = (1, 8, 64)
PRODUCTS = 300
PATHS = {"words only": ("quick", False), "text": ("default", False), "text and picture": ("default", True)}
PARTS = (*PATHS, "live log", "overload")
WARM = 4  # seconds of requests before a server is measured
ROUNDS = 3  # with and without the live log, in turn
THREADS = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
READY = 120  # seconds that a server may take to start


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.load", description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="with raw/ and models/, as `make bench` leaves them")
    parser.add_argument("--seconds", type=int, default=15, help="of each measurement")
    parser.add_argument("--only", nargs="*", choices=PARTS, default=PARTS)
    parser.add_argument("--flat", type=int, default=50_000, help="requests behind the memory's course")
    arguments = parser.parse_args(argv)
    if shutil.which("wrk") is None:
        parser.error("wrk is not installed: apt-get install wrk")
    work = arguments.folder / "load"
    work.mkdir(exist_ok=True)
    bodies = _bodies(arguments.folder, work)
    models = _models(arguments.folder / "models", work)
    found: dict[str, Any] = {}
    for name, (kind, with_image) in PATHS.items():
        if name not in arguments.only:
            continue
        body = bodies[with_image]
        bare = _bare(models[kind], body[0], arguments.seconds)
        with api(models[kind], work) as (address, _):
            said = [_ask(f"{address}/predict", body[0])["confidence"]]
            wrk(f"{address}/predict", body[0], 8, WARM)
            ours = {n: wrk(f"{address}/predict", body[0], n, arguments.seconds) for n in CLIENTS}
        with mlflow_serve(models[kind], work / f"mlflow-{kind}") as address:
            said += [_ask(f"{address}/invocations", body[1])["predictions"][0]["confidence"]]
            wrk(f"{address}/invocations", body[1], 8, WARM)
            theirs = {n: wrk(f"{address}/invocations", body[1], n, arguments.seconds) for n in CLIENTS}
        if said[0] != said[1]:
            raise RuntimeError(f"{name}: the two servers do not answer alike: {said}")
        found[name] = {"bare_per_s": bare, "api": ours, "mlflow": theirs}
        _say(name, found[name])
    if "live log" in arguments.only:
        found["live log"] = _live_log(models["quick"], work, bodies[False][0], arguments.seconds)
        _say("live log", found["live log"])
    if "overload" in arguments.only:
        with api(models["quick"], work) as (address, process):
            found["overload"] = wrk(f"{address}/predict", bodies[False][0], 2560, arguments.seconds)
            found["memory_mb"] = _course(process, address, bodies[False][0], arguments.flat)
        _say("overload", found["overload"])
        _say("memory_mb", found["memory_mb"])
    (arguments.folder / "load.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return 0


def _say(name: str, what: Any) -> None:
    sys.stdout.write(f"{name}: {json.dumps(what)}\n")
    sys.stdout.flush()


def _bodies(folder: Path, work: Path) -> dict[bool, tuple[Path, Path]]:
    """Files of request bodies, ours and MLflow's, without and with an image."""
    raw = read_raw(folder / "raw" / "X_test.csv", X_COLUMNS)[:PRODUCTS]
    files = ImageFiles(folder / "raw" / "images")
    found = {}
    for with_image in (False, True):
        ours, theirs = [], []
        for row in raw.to_dict("records"):
            product = {"designation": row["designation"], "description": row["description"]}
            if with_image:
                data = files[image_name(row["imageid"], row["productid"])].read_bytes()
                product["picture"] = b64encode(data).decode()
            ours.append(json.dumps(product))
            theirs.append(json.dumps({"dataframe_records": [product]}))
        pair = tuple(work / f"{name}-{with_image}.jsonl" for name in ("ours", "theirs"))
        for path, lines in zip(pair, (ours, theirs), strict=True):
            path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        found[with_image] = (pair[0], pair[1])
    return found


def _models(models: Path, work: Path) -> dict[str, Path]:
    quick = work / "quick"
    ngrams_only(ProductClassifier.load(models)).save(quick)
    return {"default": models, "quick": quick}


def _live_log(models: Path, work: Path, bodies: Path, seconds: int) -> dict[str, list[float]]:
    """Milliseconds of one client's request, p50 and p99 of each round, with and without the live log, in turn."""
    found: dict[str, list[float]] = {f"{which} {name}": [] for which in ("with", "without") for name in ("p50", "p99")}
    with api(models, work) as (logged, _), api(models, work, API_LIVE_LOG="false") as (bare, _):
        for _ in range(ROUNDS):
            for which, address in (("with", logged), ("without", bare)):
                seen = wrk(f"{address}/predict", bodies, 1, seconds)
                for name in ("p50", "p99"):
                    found[f"{which} {name}"].append(seen[f"{name}_ms"])
    return found


def _ask(address: str, bodies: Path) -> Any:
    """The answer to the first of the bodies."""
    body = bodies.read_bytes().splitlines()[0]
    with urllib.request.urlopen(urllib.request.Request(address, body, {"Content-Type": "application/json"})) as answer:
        return json.load(answer)


def _bare(models: Path, bodies: Path, seconds: int) -> float:
    """Products a second through the model's own call, one at a time, in a process of its own."""
    script = f"""
import base64, itertools, json, time
from pathlib import Path
from rakuten.models.classifier import ProductClassifier
from rakuten.models.pyfunc_model import PyfuncModel
model = PyfuncModel(ProductClassifier.load(Path({str(models)!r})))
products = [json.loads(line) for line in Path({str(bodies)!r}).read_text().splitlines()]
images = [base64.b64decode(product.get("picture", "")) or None for product in products]
calls = [
    ([(product["designation"], product["description"])], [image])
    for product, image in zip(products, images, strict=True)
]
def predict(call):
    model.classifier.top_k(model.featurise_many(*call)[0], 3)
for call in calls[:20]:
    predict(call)
count, started = 0, time.perf_counter()
for call in itertools.cycle(calls):
    predict(call)
    count += 1
    if time.perf_counter() - started > {seconds}:
        break
print(count / (time.perf_counter() - started))
"""
    env = os.environ | THREADS | {"PYTHONPATH": str(SOURCE)}
    done = subprocess.run([sys.executable, "-c", script], env=env, cwd=ROOT, capture_output=True, text=True, check=True)
    return round(float(done.stdout), 1)


def wrk(address: str, bodies: Path, clients: int, seconds: int) -> dict[str, Any]:
    """One measurement by wrk."""
    command = ["wrk", "--threads", "1", "--connections", str(clients), "--duration", f"{seconds}s", "--timeout", "60s"]
    command += ["--latency", "--script", str(Path(__file__).with_name("load.lua")), address]
    env = os.environ | {"BODIES": str(bodies)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    line = next(line for line in done.stdout.splitlines() if line.startswith("RESULT"))
    found: dict[str, Any] = json.loads(line.removeprefix("RESULT "))
    return found | {"per_s": round(found["ok"] / found["seconds"], 1)}


@contextmanager
def api(models: Path, work: Path, **more: str) -> Iterator[tuple[str, psutil.Process]]:
    port = _free_port()
    command = [sys.executable, "-m", "rakuten", "serve"]
    settings = {"API_MODELS": str(models), "API_PORT": str(port), "API_LIVE": str(work / "live")} | more
    with _server(command, settings, f"{port}/ready", work / f"api-{port}.log") as process:
        yield f"http://127.0.0.1:{port}", process


@contextmanager
def mlflow_serve(models: Path, place: Path) -> Iterator[str]:
    """MLflow's scoring server on the same model, with as many workers as it takes by default."""
    if not place.exists():
        mlflow.pyfunc.save_model(
            str(place),
            loader_module="rakuten.models.pyfunc_model",
            data_path=str(models),
            pip_requirements=["mlflow"],
            signature=ModelSignature(inputs=INPUT_SCHEMA),  # as it is registered
        )
    port = _free_port()
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", str(place), "--env-manager", "local"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    with _server(command, THREADS, f"{port}/ping", place.with_suffix(".log")):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def _server(command: Sequence[str], settings: Mapping[str, str], probe: str, log: Path) -> Iterator[psutil.Process]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    env |= {"PYTHONPATH": str(SOURCE), **settings}
    with log.open("w") as stream:
        process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=stream, stderr=stream)
    try:
        _wait(f"http://127.0.0.1:{probe}", process, log)
        yield psutil.Process(process.pid)
    finally:
        family = psutil.Process(process.pid).children(recursive=True)
        process.terminate()
        process.wait(60)
        for child in family:
            if child.is_running():
                child.kill()


def _wait(address: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    until = time.monotonic() + READY
    while True:
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except OSError as error:
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"{address} does not answer: see {log}") from error
            time.sleep(0.5)


def _course(process: psutil.Process, address: str, bodies: Path, requests: int) -> dict[str, float]:
    """The server's memory in MB after a tenth of the requests, and after all of them."""
    found, asked = {}, 0
    for share in (0.1, 0.5, 1.0):
        while asked < share * requests:
            asked += wrk(f"{address}/predict", bodies, 8, 10)["ok"]
        found[f"after {asked:,}"] = round(memory(process.pid), 1)
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main())
