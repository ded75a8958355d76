"""Memory does not grow with the rows; at full size: `make bench-scale`."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
import yaml

from bench.measure import run
from bench.scale import MEMORY, SCRIPTS
from rakuten.config import PARAMS, ROOT
from rakuten.data.synthetic import write_catalogue
from rakuten.features.feature_set import pick, release
from rakuten.models import neighbours, training
from rakuten.models.linear import Moments

FEW, MANY = 20_000, 60_000
STAGES = ("ingest", "features", "train", "predict")

linux = pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="shares of memory are read from /proc")


@linux
def test_embeddings_on_disk_are_let_go_once_they_are_read(tmp_path: Path) -> None:
    rows, width = 60_000, 800  # 96 MB
    path, rng = tmp_path / "vectors.npy", np.random.default_rng(0)
    np.save(path, np.tile(rng.standard_normal((6_000, width)).astype(np.float16), (10, 1)))
    vectors = np.load(path, mmap_mode="r")
    everything, there, index, fold = np.arange(rows), np.ones(rows, bool), np.arange(rows) % 3, np.arange(rows) % 2
    ids = pd.DataFrame({name: everything for name in ("productid", "imageid", "prdtypecode")})

    def held() -> float:
        """MB of the file that are mapped into this process."""
        maps = psutil.Process().memory_maps()
        return sum(float(each.rss) for each in maps if each.path == str(path)) / 1e6

    assert float(vectors.sum(dtype=np.float64)) != 0
    assert held() > 90
    moments = [Moments.of(vectors, everything[fold == part], index[fold == part], 3) for part in (0, 1)]
    assert held() < 10
    assert len(neighbours.fit_neighbours(vectors, everything, Moments.total(moments), ids, 0).vectors) == rows
    assert held() < 10
    scores = np.full((rows, 3), np.nan)
    training.fit_embedding(vectors, there, np.arange(3), fold, moments, scores)
    assert not np.isnan(scores).any()
    assert held() < 10
    some = rng.permutation(rows)[:20_000]
    assert (pick(vectors, some)[::100] == vectors[some[::100]]).all()
    release(vectors)
    pick(vectors, some)
    assert held() < 10
    assert training.has_embedding(vectors).all()
    assert held() < 10


@pytest.mark.slow
@linux
def test_three_times_the_rows_take_hardly_more_memory(tmp_path: Path) -> None:
    values = yaml.safe_load(PARAMS.read_text(encoding="utf-8"))
    values["features"] |= {"image_encoder": "none", "text_encoder": "none"}
    values["train"] |= {"bootstrap": 50, "folds": 2, "shard_rows": 10_000, "blocks": values["train"]["blocks"][-2:]}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    store = {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db", "PYTHONPATH": str(ROOT)}
    peaks: dict[str, list[float]] = {stage: [] for stage in STAGES}
    for rows in (FEW, MANY):
        folder = tmp_path / str(rows)
        write_catalogue(rows, rows // 2, 3, folder / "raw", pictures=False)
        for stage in STAGES:
            script, names = SCRIPTS[stage]
            flags = [part for name in names for part in (f"--{name}", folder / name)]
            command = [sys.executable, ROOT / script, "--params", tmp_path / "params.yaml", *flags]
            peaks[stage].append(run(command, store, folder / f"{stage}.log").memory)
    for stage, (few, many) in peaks.items():
        assert many < MEMORY * few, f"{stage}: {few:.0f} MB for {FEW:,} rows, {many:.0f} MB for {MANY:,}"
