"""Two workers of a Dask cluster beside one: `python -m bench.workers`.

A real scheduler and real worker processes of one thread each, speaking TCP on loopback, and the
stages as their scripts. On a machine of two cores the stages' own process and the scheduler have
to share these with the second worker, so what is measured is less than two machines would give.
"""

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import yaml

from bench.measure import run
from src.config import PARAMS, ROOT
from src.data.sample import write_catalogue

SCRIPTS = {
    "features": ("src/features/build_features.py", ("raw", "interim", "processed", "cache")),
    "train": ("src/models/train_model.py", ("processed", "models", "reports")),
    "batch": ("src/models/predict_model.py", ("models", "cache")),
}
TARGET = 1.7
DASK = str(Path(sys.executable).parent / "dask")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.workers", description=__doc__)
    parser.add_argument("--rows", type=int, default=8000)  # four chunks for a batch
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "rakuten-workers")
    arguments = parser.parse_args(argv)
    folder: Path = arguments.folder
    if not (folder / "raw" / "X_train.csv").is_file():
        write_catalogue(arguments.rows, arguments.rows // 2, 1, folder / "raw")
    values = yaml.safe_load(PARAMS.read_text(encoding="utf-8"))
    values["compute"]["engine"] = "dask"
    values["train"]["shard_rows"] = arguments.rows // 6
    (folder / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    script = ROOT / "src/data/make_dataset.py"
    run([sys.executable, script, *flags(folder, ("raw", "interim", "reports"))], {}, folder / "ingest.log")
    found: dict[str, dict[str, float]] = {}
    for workers in (1, 2):
        with cluster(folder / f"cluster-{workers}", workers) as address:
            for stage in SCRIPTS:
                wall = measure(stage, folder, address)
                found.setdefault(stage, {})[str(workers)] = round(wall, 1)
                sys.stdout.write(f"{stage}: {workers} worker(s) {wall:.1f} s\n")
                sys.stdout.flush()
    for stage, walls in found.items():
        times = walls["1"] / walls["2"]
        verdict = "met" if times >= TARGET else "MISSED"
        sys.stdout.write(f"{stage}: two workers {times:.2f} times as fast as one (target {TARGET}): {verdict}\n")
    (folder / "results.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return 0


def measure(stage: str, folder: Path, address: str) -> float:
    """Seconds of a stage from an empty cache."""
    script, names = SCRIPTS[stage]
    shutil.rmtree(folder / "cache", ignore_errors=True)
    more: list[str | Path] = []
    if stage == "batch":
        raw = folder / "raw"
        more = ["--input", raw / "X_train.csv", "--images", raw / "images", "--output", folder / "scored.csv"]
    command = [sys.executable, ROOT / script, "--params", folder / "params.yaml", *flags(folder, names), *more]
    store = {"DASK_SCHEDULER_ADDRESS": address, "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}"}
    return run(command, store, folder / f"{stage}.log").wall


def flags(folder: Path, names: Sequence[str]) -> list[str | Path]:
    return [part for name in names for part in (f"--{name}", folder / name)]


@contextmanager
def cluster(folder: Path, workers: int) -> Iterator[str]:
    """The address of a scheduler with so many workers, ended by their own process ids."""
    folder.mkdir(parents=True, exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    address = f"tcp://127.0.0.1:{port}"
    commands = [[DASK, "scheduler", "--host", "127.0.0.1", "--port", port, "--no-dashboard"]]
    commands += [
        [DASK, "worker", address, "--host", "127.0.0.1", "--nworkers", "1", "--nthreads", "1", "--no-dashboard",
         "--local-directory", str(folder / str(number))]
        for number in range(workers)
    ]  # fmt: skip
    started: list[subprocess.Popen[bytes]] = []
    try:
        with (folder / "log").open("wb") as log:
            for command in commands:
                environment = {**os.environ, "PYTHONPATH": str(ROOT)}
                started.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
        time.sleep(8)  # so that all workers are there before the first stage
        yield address
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.wait(30)


if __name__ == "__main__":
    sys.exit(main())
