"""The peak memory of each stage's processes does not grow with the rows; at full size: `make bench-scale`."""

import sys
from pathlib import Path

import pytest
import yaml

from bench.measure import run
from bench.scale import MEMORY, SCRIPTS
from src.config import PARAMS, ROOT
from src.data.sample import write_catalogue

FEW, MANY = 20_000, 60_000
STAGES = ("ingest", "features", "train", "predict")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="shares of memory are read from /proc")
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
