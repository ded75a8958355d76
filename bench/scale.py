"""How memory and cost grow with the rows: `make bench-scale` (hours; --rows 10000 100000 for a try).

Each stage runs on synthetic catalogues of two sizes, outside the project, without encoders, and so does the scoring of
a file. Training runs once more with the two embedding views and one small block of n-grams, on embeddings drawn at
random around a mean of each class: it reads them like real ones, which could not be made here at this size. Printed are
the ratios of the larger size to the smaller one.
"""

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import yaml

from bench.measure import Cost, run
from rakuten.config import PARAMS, ROOT, SOURCE
from rakuten.data.tables import read_table_chunks
from rakuten.disk_array import DiskArray

SCRIPTS = {
    "ingest": ("src/data/make_dataset.py", ("raw", "interim", "reports")),
    "features": ("src/features/build_features.py", ("raw", "interim", "processed", "cache", "reports")),
    "train": ("src/models/train_model.py", ("processed", "models", "reports")),
    "predict": ("src/models/predict_model.py", ("interim", "processed", "models", "reports")),
    "batch": ("", ("models", "cache")),  # `rakuten score`
    "train-all-views": ("src/models/train_model.py", ("processed", "models", "reports")),
}
MEMORY, CPU = 1.5, 1.2  # the targets: of the peak, and of CPU seconds a row
WIDTHS = {"texts": 512, "images": 2432}  # of the default encoders


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.scale", description=__doc__)
    parser.add_argument("--rows", type=int, nargs=2, default=(100_000, 1_000_000))
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "rakuten-scale")
    parser.add_argument("--only", nargs="*", choices=SCRIPTS, default=list(SCRIPTS), help="default: all")
    arguments = parser.parse_args(argv)
    results = arguments.folder / "results.json"
    arguments.folder.mkdir(parents=True, exist_ok=True)
    known: dict[str, dict[str, list[float]]] = json.loads(results.read_text()) if results.is_file() else {}
    for rows in arguments.rows:
        folder = arguments.folder / str(rows)
        sample(folder, rows)
        for stage in arguments.only:
            cost = measure(stage, folder)
            known.setdefault(stage, {})[str(rows)] = [round(value, 1) for value in cost]
            results.write_text(json.dumps(known, indent=2) + "\n", encoding="utf-8")
            print_line(f"{rows:>9,} rows  {stage:<16} {cost.cpu:8.1f} CPU s {cost.wall:8.1f} s {cost.memory:8,.0f} MB")
    small, large = map(str, arguments.rows)
    for stage, costs in known.items():
        if small in costs and large in costs:
            print_line(compared(stage, costs[small], costs[large], arguments.rows[1] / arguments.rows[0]))
    return 0


def compared(stage: str, small: Sequence[float], large: Sequence[float], times: float) -> str:
    """The line of a stage: the larger size to the smaller one."""
    memory, cpu = large[2] / small[2], large[0] / small[0] / times
    verdict = "met" if memory <= MEMORY and cpu <= CPU else "MISSED"
    return (
        f"{stage:<16} memory {memory:.2f} times (target {MEMORY}), CPU a row {cpu:.2f} times (target {CPU}): {verdict}"
    )


def sample(folder: Path, rows: int) -> None:
    """A catalogue without images, and params.yaml for both ways to train."""
    out: list[str | Path] = ["--out", folder / "raw", "--rows", str(rows), "--test-rows", str(rows // 10)]
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "rakuten", "sample", "--if-absent", "--no-images", *out]
    run(command, {}, folder / "sample.log")
    params = yaml.safe_load(PARAMS.read_text(encoding="utf-8"))
    blocks = params["train"]["blocks"]
    params["train"]["blocks"] = [block for block in blocks if block["columns"] == ["style"]]
    (folder / "all.yaml").write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")
    params["train"]["blocks"] = blocks
    params["features"] |= {"image_encoder": "none", "text_encoder": "none"}
    (folder / "quick.yaml").write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")


def measure(stage: str, folder: Path) -> Cost:
    script, paths = SCRIPTS[stage]
    within = folder
    if stage == "train-all-views":
        within = folder / "all-views"
        embed(folder / "processed", within / "processed")
    flags = [part for path in paths for part in (f"--{path}", within / path)]
    if stage == "batch":
        (folder / "scored.csv").unlink(missing_ok=True)
        flags += ["--input", folder / "raw" / "X_train.csv", "--output", folder / "scored.csv"]
    flags += ["--params", folder / ("all.yaml" if stage == "train-all-views" else "quick.yaml")]
    program: list[str | Path] = [ROOT / script] if script else ["-m", "rakuten", "score"]
    tracking = {"MLFLOW_TRACKING_URI": f"sqlite:///{(folder / 'mlflow.db').as_posix()}", "PYTHONPATH": str(SOURCE)}
    return run([sys.executable, *program, *flags], tracking, folder / f"{stage}.log")


def embed(features: Path, output: Path) -> None:
    """Write the feature table, with embeddings drawn around a mean of each class, chunk by chunk."""
    output.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(features / "train_features.csv", output / "train_features.csv")
    n_rows = sum(map(len, read_table_chunks(output / "train_features.csv")))
    for name, width in WIDTHS.items():
        rng = np.random.default_rng(0)
        means = rng.normal(size=(3000, width)).astype(np.float32)
        embeddings = DiskArray.full(output / f"train_{name}.npy", (n_rows, width), np.nan, np.float16)
        for chunk in read_table_chunks(output / "train_features.csv", ("prdtypecode",)):
            noise = rng.standard_normal((len(chunk), width), dtype=np.float32)
            embeddings[chunk.index.to_numpy()] = 0.1 * means[chunk["prdtypecode"] % 3000] + noise


def print_line(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
