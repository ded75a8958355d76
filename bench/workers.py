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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import yaml

from bench.measure import run
from rakuten.config import PARAMS, ROOT, SOURCE
from rakuten.data.synthetic import write_catalogue

SCRIPTS = {
    "ingest": ("src/data/make_dataset.py", ("raw", "interim", "reports")),
    "features": ("src/features/build_features.py", ("raw", "interim", "processed", "cache", "reports")),
    "train": ("src/models/train_model.py", ("processed", "models", "reports")),
}
MEASURED = {"features": "images", "batch": "images", "train": "texts"}  # stage: its catalogue
SHARDS = 6  # of a training
TARGET = 1.7
DASK = str(Path(sys.executable).parent / "dask")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.workers", description=__doc__)
    parser.add_argument("--rows", type=int, default=8_000, help="products with images: of features, and of a batch")
    parser.add_argument("--texts", type=int, default=200_000, help="products without images: of train")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "rakuten-workers")
    arguments = parser.parse_args(argv)
    folder: Path = arguments.folder
    prepare(folder / "images", arguments.rows, images=True)
    prepare(folder / "texts", arguments.texts, images=False)
    found: dict[str, dict[str, float]] = {}
    for workers in (1, 2):
        with cluster(folder / f"cluster-{workers}", workers) as address:
            for stage, catalogue in MEASURED.items():
                wall = measure(folder / catalogue, stage, address)
                found.setdefault(stage, {})[str(workers)] = round(wall, 1)
                sys.stdout.write(f"{stage}: {workers} worker(s) {wall:.1f} s\n")
                sys.stdout.flush()
    for stage, walls in found.items():
        times = walls["1"] / walls["2"]
        verdict = "met" if times >= TARGET else "MISSED"
        sys.stdout.write(f"{stage}: two workers {times:.2f} times as fast as one (target {TARGET}): {verdict}\n")
    (folder / "results.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return 0


def prepare(folder: Path, rows: int, images: bool) -> None:
    """A catalogue and all that is made of it, by this machine's own processes, where it is not there yet."""
    ready = folder / "ready"
    if ready.exists():
        return
    write_catalogue(rows, rows // 2, 1, folder / "raw", images=images)
    values = yaml.safe_load(PARAMS.read_text(encoding="utf-8"))
    values["train"]["shard_rows"] = rows // SHARDS
    if not images:
        values["features"] |= {"image_encoder": "none", "text_encoder": "none"}
    for engine in ("local", "dask"):
        values["compute"]["engine"] = engine
        (folder / f"{engine}.yaml").write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    for stage in ("ingest", "features", "train") if images else ("ingest", "features"):
        run_stage(folder, stage, "local", {})
    ready.touch()


def measure(folder: Path, stage: str, address: str) -> float:
    """Seconds of a stage on a cluster, from an empty cache."""
    shutil.rmtree(folder / "cache", ignore_errors=True)
    return run_stage(folder, stage, "dask", {"DASK_SCHEDULER_ADDRESS": address})


def run_stage(folder: Path, stage: str, engine: str, environment: Mapping[str, str]) -> float:
    """Seconds of a stage's script, or of the scoring of a file."""
    command: list[str | Path] = [sys.executable]
    if stage == "batch":
        raw = folder / "raw"
        command += ["-m", "rakuten", "score", "--input", raw / "X_train.csv", "--images", raw / "images"]
        command += ["--output", folder / "scored.csv", "--models", folder / "models", "--cache", folder / "cache"]
    else:
        script, names = SCRIPTS[stage]
        command += [ROOT / script, *(part for name in names for part in (f"--{name}", folder / name))]
    command += ["--params", folder / f"{engine}.yaml"]
    own = {"MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}", "PYTHONPATH": str(SOURCE)}
    return run(command, {**own, **environment}, folder / f"{stage}.log").wall


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
                environment = {**os.environ, "PYTHONPATH": str(SOURCE), "DASK_CONFIG": str(ROOT / "deploy/dask.yaml")}
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
