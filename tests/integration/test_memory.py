"""Memory does not grow with the number of rows; at full size: `make bench-scale`."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import yaml

from rakuten.config import PARAMS, ROOT
from rakuten.data.synthetic import write_catalogue

FEW, MANY = 20_000, 60_000
MAX_GROWTH = 1.5  # of the peak, for three times the rows
SCRIPTS = {
    "src/data/make_dataset.py": ("raw", "interim", "reports"),
    "src/features/build_features.py": ("raw", "interim", "processed", "cache", "reports"),
    "src/models/train_model.py": ("processed", "models", "reports"),
    "src/models/predict_model.py": ("interim", "processed", "models", "reports"),
}

linux = pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="shares of memory are read from /proc")

# Learns and applies every model of embeddings on a file of 96 MB, and prints the peak of the memory that Python and
# numpy allocated, in MB. Pages of a mapped file are not in it: how many are resident is the kernel's choice.
EMBEDDING_MODELS = """
import sys, tracemalloc
from pathlib import Path
import numpy as np
import pandas as pd
from rakuten.disk_array import DiskArray, missing_rows
from rakuten.models.fusion_selection import TrainingRows
from rakuten.models.linear import Moments
from rakuten.models.neighbours import fit_neighbours
from rakuten.models.training import fit_embedding

folder = Path(sys.argv[1])
tracemalloc.start()
embeddings = DiskArray(folder / "embeddings.npy")
n_rows = len(embeddings)
everything = np.arange(n_rows)
rows = TrainingRows(np.arange(3), everything % 3, everything % 2, np.ones(n_rows, bool), 0)
present = ~missing_rows(embeddings)
moments = [Moments.from_rows(embeddings, everything[rows.fold == f], rows.y[rows.fold == f], 3) for f in (0, 1)]
fit_embedding(embeddings, present, rows, moments, folder / "scores.npy")
ids = pd.DataFrame({name: everything for name in ("productid", "imageid", "prdtypecode")})
assert len(fit_neighbours(embeddings, everything, Moments.total(moments), ids, 0).vectors) == n_rows
assert embeddings[np.random.default_rng(0).permutation(n_rows)[:5000]].shape == (5000, 800)
assert "embeddings.npy" not in Path("/proc/self/maps").read_text(), "the file is still mapped"
print(tracemalloc.get_traced_memory()[1] / 1e6)
"""


@linux
def test_models_of_embeddings_do_not_hold_the_file(tmp_path: Path) -> None:
    values = np.random.default_rng(0).standard_normal((6_000, 800)).astype(np.float16)
    np.save(tmp_path / "embeddings.npy", np.tile(values, (10, 1)))
    size = (tmp_path / "embeddings.npy").stat().st_size / 1e6
    command = [sys.executable, "-c", EMBEDDING_MODELS, str(tmp_path)]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT / "src")}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert size > 90
    assert float(done.stdout) < 0.75 * size


@pytest.mark.slow
@linux
def test_three_times_the_rows_take_hardly_more_memory(tmp_path: Path) -> None:
    values = yaml.safe_load(PARAMS.read_text(encoding="utf-8"))
    values["features"] |= {"image_encoder": "none", "text_encoder": "none"}
    values["train"] |= {"bootstrap": 50, "folds": 2, "shard_rows": 10_000, "blocks": values["train"]["blocks"][-2:]}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    peaks: dict[str, list[float]] = {script: [] for script in SCRIPTS}
    for rows in (FEW, MANY):
        folder = tmp_path / str(rows)
        write_catalogue(rows, rows // 2, 3, folder / "raw", images=False)
        for script, names in SCRIPTS.items():
            flags = [part for name in names for part in (f"--{name}", str(folder / name))]
            command = [sys.executable, str(ROOT / script), "--params", str(tmp_path / "params.yaml"), *flags]
            peaks[script].append(peak_memory(command, {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db"}))
    for script, (few, many) in peaks.items():
        assert many < MAX_GROWTH * few, f"{script}: {few:.0f} MB for {FEW:,} rows, {many:.0f} MB for {MANY:,}"


def peak_memory(command: list[str], environment: dict[str, str]) -> float:
    """MB at the peak of a command and its children: the sum of their shares of the pages (PSS)."""
    peak = 0.0
    with subprocess.Popen(command, env={**os.environ, **environment}, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None:
            peak = max(peak, _shared_memory(process.pid))
            time.sleep(0.2)
        assert process.returncode == 0, process.stderr and process.stderr.read()
    return peak


def _shared_memory(pid: int) -> float:
    total = 0.0
    try:
        for process in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
            total += process.memory_full_info().pss / 1e6
    except psutil.NoSuchProcess:
        pass
    return total
