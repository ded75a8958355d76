"""What each stage costs at the challenge's real size, on a synthetic catalogue: `make bench`.

Writes 84,916 + 13,812 products with images once, outside the project, then runs every stage on
them from an empty cache, beside the loops and the pipeline that the figures are compared with.
"""

import argparse
import json
import os
import platform
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench.measure import Cost, run
from rakuten.config import ROOT, SOURCE

STAGES = {
    "ingest": ("src/data/make_dataset.py", ("raw", "interim", "reports")),
    "features": ("src/features/build_features.py", ("raw", "interim", "processed", "cache", "reports")),
    "features-again": ("src/features/build_features.py", ("raw", "interim", "processed", "cache", "reports")),
    "train": ("src/models/train_model.py", ("processed", "models", "reports")),
    "predict": ("src/models/predict_model.py", ("interim", "processed", "models", "reports")),
}
BESIDE = ("labels", "text-fit", "rival", "encoder-loop", "latency")  # what bench/beside.py measures
NEW = 0.01  # share of the contents that the second run of features does not know
THREADS = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.stages", description=__doc__)
    parser.add_argument("--rows", type=int, default=84_916)
    parser.add_argument("--test-rows", type=int, default=13_812)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "rakuten-bench")
    parser.add_argument("--only", nargs="*", choices=(*STAGES, *BESIDE), help="default: all")
    arguments = parser.parse_args(argv)
    folder: Path = arguments.folder
    chosen = arguments.only or (*STAGES, *BESIDE)
    folder.mkdir(parents=True, exist_ok=True)
    sample: list[str | Path] = [
        "--rows",
        str(arguments.rows),
        "--test-rows",
        str(arguments.test_rows),
        "--out",
        folder / "raw",
    ]
    run(
        [sys.executable, "-m", "rakuten", "sample", "--if-absent", *sample],
        {"PYTHONPATH": str(SOURCE)},
        folder / "sample.log",
    )
    results = _read(folder / "results.json")
    results["machine"] = (
        f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"
    )
    for name in chosen:
        if name == "features":
            shutil.rmtree(folder / "cache", ignore_errors=True)
        if name == "features-again":
            _forget(folder / "cache", NEW)
        results[name] = _stage(name, folder) if name in STAGES else _beside(name, folder)
        (folder / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
        sys.stdout.write(f"{name}: {json.dumps(results[name])}\n")
        sys.stdout.flush()
    return 0


def _forget(cache: Path, share: float) -> None:
    """Take this share of the vectors out of each cache, as if their contents were new."""
    for path in cache.glob("*.sqlite"):
        database = sqlite3.connect(path)
        with database:
            many = int(share * database.execute("SELECT count(*) FROM embedding").fetchone()[0])
            database.execute(
                "DELETE FROM embedding WHERE key IN (SELECT key FROM embedding ORDER BY key LIMIT ?)", (many,)
            )
        database.close()


def _stage(name: str, folder: Path) -> dict[str, object]:
    script, paths = STAGES[name]
    flags = [part for path in paths for part in (f"--{path}", folder / path)]
    tracking = {"MLFLOW_TRACKING_URI": f"sqlite:///{(folder / 'mlflow.db').as_posix()}"}
    cost = run([sys.executable, ROOT / script, *flags], tracking, folder / f"{name}.log")
    written = {path: _size(folder / path) for path in paths if path != "raw"}
    return {**_rounded(cost), "files_mb": written}


def _beside(name: str, folder: Path) -> dict[str, object]:
    out = folder / f"{name}.json"
    environment = {} if name == "encoder-loop" else THREADS
    cost = run(
        [sys.executable, "-m", "bench.baselines", name, "--folder", folder, "--out", out],
        environment,
        folder / f"{name}.log",
    )
    return {**_rounded(cost), **_read(out)}


def _rounded(cost: Cost) -> dict[str, object]:
    return {"cpu_s": round(cost.cpu, 1), "wall_s": round(cost.wall, 1), "memory_mb": round(cost.memory)}


def _size(folder: Path) -> float:
    return round(sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6, 1)


def _read(path: Path) -> dict[str, object]:
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


if __name__ == "__main__":
    sys.exit(main())
