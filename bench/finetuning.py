"""What fine-tuning gains and costs on a catalogue: `python -m bench.finetuning --raw FOLDER [--truth Y_test.csv]`.

Runs the pipeline in a clone of the project as it is committed, with the raw files of FOLDER and the settings of
bench/params-finetune.yaml, and prints what the finetune stage cost, the scores of each view and of the fusion with and
without the fine-tuned views, and how long a network takes for one product. With --api, wrk also asks the API for one
product after another, without images. A run that was killed goes on where it stopped.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.load import PRODUCTS, WARM, api, wrk
from bench.measure import run
from rakuten.config import ROOT
from rakuten.data.images import ImageFiles, image_paths, usable_image_bytes
from rakuten.data.schema import X_COLUMNS
from rakuten.data.tables import read_raw, read_table_chunks
from rakuten.evaluation.bootstrap import bootstrap_ci
from rakuten.evaluation.metrics import classification_scores
from rakuten.features.encoders.finetuned import GRAPH_FILE, NetworkFolder, read_networks
from rakuten.features.encoders.finetuned_text import cased_texts
from rakuten.types import FINETUNED_TEXT

STAGES = {
    "ingest": "src/data/make_dataset.py",
    "features": "src/features/build_features.py",
    "finetune": "src/models/finetune_encoders.py",
    "train": "src/models/train_model.py",
    "predict": "src/models/predict_model.py",
}
TIMED = 200  # products that a network scores one by one
RESAMPLES = 1000
API_SECONDS = 20
TEXT_COLUMNS = ["designation", "description"]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.finetuning", description=__doc__)
    parser.add_argument("--raw", type=Path, required=True, help="X_train.csv, Y_train.csv, X_test.csv, images/")
    parser.add_argument("--truth", type=Path, help="a CSV with the prdtypecode of each test product")
    parser.add_argument("--params", type=Path, default=ROOT / "bench" / "params-finetune.yaml")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "rakuten-finetuning")
    parser.add_argument("--api", action="store_true", help="load-test the API too (needs wrk)")
    arguments = parser.parse_args(argv)
    if arguments.api and shutil.which("wrk") is None:
        parser.error("wrk is not installed: apt-get install wrk")
    project = prepare(arguments.folder, arguments.raw, arguments.params)
    environment = {"MLFLOW_TRACKING_URI": "", "PYTHONPATH": str(project / "src")}
    found: dict[str, Any] = {"params": arguments.params.name}
    for stage, script in STAGES.items():
        cost = run([sys.executable, project / script], environment, arguments.folder / f"{stage}.log")
        found[f"{stage} stage"] = {"cpu_s": round(cost.cpu), "wall_s": round(cost.wall), "peak_mb": round(cost.memory)}
    scores = json.loads((project / "models" / "scores.json").read_text(encoding="utf-8"))
    fused = {"rows": scores["rows"], "weighted_f1": scores["weighted_f1"]}
    found["out of fold"] = {"fused": fused | {"interval": scores["interval"]["weighted_f1"]}, **scores["compared"]}
    if arguments.truth:
        found["test"] = test_scores(project, arguments.truth)
    for view, network in read_networks(project / "models" / "finetuned").items():
        found[view] = {**network.settings(), **network_cost(project, view, network)}
    if arguments.api:
        found["api, one client"] = api_latency(project, arguments.folder)
    (arguments.folder / "finetuning.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    sys.stdout.write(json.dumps(found, indent=2) + "\n")
    return 0


def prepare(folder: Path, raw: Path, params: Path) -> Path:
    """The clone, with the raw files; one that is there already is used, so that its checkpoints are."""
    project = folder / "project"
    if not project.exists():
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(project)], check=True)
        (project / "data" / "raw").mkdir(parents=True, exist_ok=True)
        for name in ("X_train.csv", "Y_train.csv", "X_test.csv"):
            shutil.copyfile(raw / name, project / "data" / "raw" / name)
        (project / "data" / "raw" / "images").symlink_to((raw / "images").resolve())
    shutil.copyfile(params, project / "params.yaml")
    return project


def test_scores(project: Path, truth: Path) -> Mapping[str, object]:
    """Weighted F1 of the predictions of the test products, with its 95 % interval."""
    y_true = pd.read_csv(truth)["prdtypecode"].to_numpy()
    predictions = pd.read_csv(project / "data" / "processed" / "predictions.csv")
    y_pred = predictions["predicted_prdtypecode"].to_numpy()
    interval = bootstrap_ci(y_true, y_pred, RESAMPLES, 42).scores["weighted_f1"]
    return {"rows": len(y_true), **classification_scores(y_true, y_pred), "interval": interval}


def network_cost(project: Path, view: str, network: NetworkFolder) -> Mapping[str, object]:
    """Size of a network's graph, and milliseconds for one product on one thread."""
    products = pd.concat(islice(read_table_chunks(project / "data" / "interim" / "merged_test.csv", size=5_000), 1))
    if view == FINETUNED_TEXT:
        texts = zip(products["designation"], products["description"], strict=True)
        milliseconds = timed(lambda text: network.text().scores([text]), [cased_texts(*text) for text in texts])
    else:
        paths = image_paths(products, ImageFiles(project / "data" / "raw" / "images"))
        images = [usable_image_bytes(path) for path in paths if path][:TIMED]
        milliseconds = timed(lambda image: network.image().scores([image]), images)
    p50, p99 = np.percentile(milliseconds, [50, 99]).round(1).tolist()
    return {"graph_mb": round((network.path / GRAPH_FILE).stat().st_size / 1e6, 1), "p50_ms": p50, "p99_ms": p99}


def api_latency(project: Path, folder: Path) -> Mapping[str, object]:
    """Milliseconds of one client's requests with title and description of the test products."""
    bodies = folder / "requests.jsonl"
    products = read_raw(project / "data" / "raw" / "X_test.csv", X_COLUMNS)[:PRODUCTS]
    bodies.write_text("\n".join(json.dumps(row) for row in products[TEXT_COLUMNS].to_dict("records")) + "\n")
    with api(project / "models", folder) as (address, _):
        wrk(f"{address}/predict", bodies, 1, WARM)
        return wrk(f"{address}/predict", bodies, 1, API_SECONDS)


def timed(score: Any, contents: Iterable[object]) -> list[float]:
    """Milliseconds of scoring each of the first contents; the first one, which opens the network, is not counted."""
    milliseconds = []
    for content in islice(contents, TIMED):
        started = time.perf_counter()
        score(content)
        milliseconds.append(1000 * (time.perf_counter() - started))
    return milliseconds[1:]


if __name__ == "__main__":
    sys.exit(main())
