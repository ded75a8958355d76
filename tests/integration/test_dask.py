"""The pipeline on a real Dask cluster: the same bytes, and what is lost when something dies."""

import filecmp
import shutil
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest
import yaml

from rakuten.compute import dask, executor_from, is_remote, parallel, parallel_map
from rakuten.compute.dask import SCHEDULER_ADDRESS, DaskExecutor
from rakuten.config import ComputeParams
from rakuten.data.synthetic import write_catalogue
from rakuten.errors import UserError
from tests.support.cluster import Cluster
from tests.support.project import ROOT, copy_project, environment, run_in
from tests.support.servers import KEY, S3, SECRET, free_port, wait_for
from tests.support.tasks import crash, environment_variable, fail, product_label, square

ON_DASK = ComputeParams(engine="dask")
MADE = ("interim", "processed", "models")  # folders whose files must be the same


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A scheduler and two workers, for tests after which both are still there."""
    started = Cluster(tmp_path_factory.mktemp("lasting"))
    started.start()
    started.add(2)
    yield started
    started.end()


@pytest.fixture
def shared(lasting: Cluster, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """The same, its address in the environment."""
    monkeypatch.setenv(SCHEDULER_ADDRESS, lasting.address)
    return lasting


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A scheduler and two workers, to be killed; its address in the environment."""
    folder = tmp_path / "cluster"
    folder.mkdir()
    started = Cluster(folder)
    monkeypatch.setenv(SCHEDULER_ADDRESS, started.address)
    started.start()
    started.add(2)
    yield started
    started.end()


def test_results_come_in_order_from_both_workers(shared: Cluster, tmp_path: Path) -> None:
    with executor_from(ON_DASK):
        assert is_remote()
        assert list(parallel_map(partial(square, tmp_path), range(40), 2)) == [n * n for n in range(40)]
    assert not is_remote()
    assert len({path.name.split(".")[1] for path in tmp_path.iterdir()}) == 2


def test_the_settings_of_dask_yaml_reach_the_workers(shared: Cluster) -> None:
    names = ["MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "OMP_NUM_THREADS"]
    with executor_from(ON_DASK):
        assert list(parallel_map(environment_variable, names, 1)) == [str(1 << 25), str(1 << 26), "1"]


def test_a_killed_worker_loses_only_its_own_work(cluster: Cluster, tmp_path: Path) -> None:
    done = tmp_path / "done"
    done.mkdir()
    results = []
    with executor_from(ON_DASK):
        for at, result in enumerate(parallel_map(partial(square, done), range(100), 5)):
            results.append(result)
            if at == 20:
                cluster.workers[0].stop()
    assert results == [n * n for n in range(100)]
    times = Counter(int(path.name.split(".")[0]) for path in done.iterdir())
    again = sum(times.values()) - 100
    assert 0 <= again <= 3 * 5  # the batch it worked on, and those that waited on it with their results
    assert max(times.values()) <= 2


def test_a_task_that_fails_names_its_product(shared: Cluster) -> None:
    with executor_from(ON_DASK), pytest.raises(UserError, match="^product 37: ValueError: cannot be squared$"):
        list(parallel_map(fail, range(100), 5, product_label))


def test_a_task_that_kills_its_workers_names_its_product_and_the_cluster_goes_on(
    shared: Cluster, tmp_path: Path
) -> None:
    results = []
    with executor_from(ON_DASK):
        with pytest.raises(UserError, match="^product 37: kills every process that works on it"):
            for result in parallel_map(crash, range(100), 5, product_label):
                results.append(result)
        assert results == list(range(37))  # its batch was tried one by one
        assert list(parallel_map(partial(square, tmp_path), range(4), 1)) == [0, 1, 4, 9]


def test_a_lost_scheduler_is_reported(cluster: Cluster, tmp_path: Path) -> None:
    with (
        executor_from(ON_DASK),
        pytest.raises(UserError, match=f"the Dask scheduler at {cluster.address} is gone"),
    ):
        for at, _ in enumerate(parallel_map(partial(square, tmp_path), range(200), 5)):
            if at == 20:
                cluster.stop()


def test_a_scheduler_that_stops_between_two_steps_is_reported(cluster: Cluster) -> None:
    with executor_from(ON_DASK):
        executor = parallel._executor.get()
        assert isinstance(executor, DaskExecutor)
        cluster.stop()
        for _ in range(2):  # before its client notices, and when it has given it up
            with pytest.raises(UserError, match="is gone"):
                executor.check_alive()
            with pytest.raises(UserError, match="is gone"):
                executor.start(False)
            wait_for(lambda: executor._client.status == "closed", "the client's end", 30)


def test_it_is_reported_when_no_worker_is_left(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parallel, "POLL_SECONDS", 1.0)
    monkeypatch.setattr(dask, "WORKER_SECONDS", 1.0)
    with executor_from(ON_DASK), pytest.raises(UserError, match="no worker left"):
        for at, _ in enumerate(parallel_map(partial(square, tmp_path), range(200), 5)):
            if at == 20:
                for worker in cluster.workers:
                    worker.stop()


def test_a_cluster_that_cannot_be_reached_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SCHEDULER_ADDRESS, raising=False)
    with (
        pytest.raises(UserError, match=f"compute.engine is dask: set {SCHEDULER_ADDRESS}"),
        executor_from(ON_DASK),
    ):
        pass
    monkeypatch.setattr(dask, "CONNECT_SECONDS", 1.0)
    monkeypatch.setattr(dask, "WORKER_SECONDS", 1.0)
    monkeypatch.setenv(SCHEDULER_ADDRESS, f"tcp://127.0.0.1:{free_port()}")
    with pytest.raises(UserError, match="no Dask scheduler at tcp://127.0.0.1"), executor_from(ON_DASK):
        pass
    alone = Cluster(tmp_path)
    alone.start()
    monkeypatch.setenv(SCHEDULER_ADDRESS, alone.address)
    with pytest.raises(UserError, match="no worker at tcp://127.0.0.1"), executor_from(ON_DASK):
        pass
    alone.end()


def test_a_worker_with_other_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = copy_project(tmp_path / "other")
    with (other / "src" / "rakuten" / "features" / "text.py").open("a") as file:
        file.write("\n# changed\n")
    old = Cluster(tmp_path, other)
    old.start()
    old.add()
    monkeypatch.setenv(SCHEDULER_ADDRESS, old.address)
    with executor_from(ON_DASK), pytest.raises(UserError, match="has other code or other libraries"):
        list(parallel_map(fail, range(20), 5))
    old.end()


class Project:
    """The stages by their scripts, each kind of run in folders of its own, on one catalogue."""

    def __init__(self, folder: Path, raw: object, address: str) -> None:
        self.folder, self.raw, self.address = folder, raw, address
        values = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
        values["train"] |= {"bootstrap": 50, "folds": 3, "shard_rows": 60, "blocks": values["train"]["blocks"][:2]}
        folder.mkdir()
        for engine in ("local", "dask"):
            values["compute"] = {"engine": engine}
            (folder / f"{engine}.yaml").write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")

    def command(self, script: str, engine: str, *names: str) -> list[str]:
        """The command of a script, or of `rakuten score`, with these path flags."""
        paths = {name: self.folder / engine / "data" / name for name in names} | {"raw": self.raw}
        flags = [part for name in names for part in (f"--{name}", str(paths[name]))]
        program = ["-m", "rakuten", "score"] if script == "score" else [str(ROOT / script)]
        return [sys.executable, *program, "--params", str(self.folder / f"{engine}.yaml"), *flags]

    def run(self, script: str, engine: str, *names: str, more: Sequence[object] = (), code: int = 0, **env: str) -> str:
        command = [*self.command(script, engine, *names), *map(str, more)]
        return run_in(ROOT, *command, code=code, **self.environment(engine), **env)

    def environment(self, engine: str) -> dict[str, str]:
        store = f"sqlite:///{self.folder / engine}.db"
        return {"MLFLOW_TRACKING_URI": store, "DASK_SCHEDULER_ADDRESS": self.address if engine == "dask" else ""}

    def stages(self, engine: str, **env: str) -> None:
        self.run("src/data/make_dataset.py", engine, "raw", "interim", "reports", **env)
        self.run("src/features/build_features.py", engine, "raw", "interim", "processed", "cache", "reports", **env)
        self.run("src/models/train_model.py", engine, "processed", "models", "reports", **env)
        self.run("src/models/predict_model.py", engine, "interim", "processed", "models", "reports", **env)

    def same(self, *folders: str) -> None:
        for name in folders:
            one, other = (self.folder / engine / "data" / name for engine in ("local", "dask"))
            files = sorted(path.name for path in one.iterdir() if path.is_file() and path.name != "run.json")
            assert files == sorted(path.name for path in other.iterdir() if path.is_file() and path.name != "run.json")
            assert files
            assert filecmp.cmpfiles(one, other, files, shallow=False)[1:] == ([], []), name


def test_the_pipeline_gives_the_same_bytes_from_s3_on_two_workers(tmp_path: Path, s3: S3) -> None:
    """Raw files, pictures, a file to score and its result on S3; the rest in a folder that all see."""
    folder = tmp_path / "cluster"
    folder.mkdir()
    keys = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_DEFAULT_REGION": "eu-west-3"}
    env = keys | {"AWS_ENDPOINT_URL": s3.url}
    sample = tmp_path / "sample"
    write_catalogue(130, 30, 7, sample)
    s3.client.create_bucket(Bucket="scale")
    for path in sample.rglob("*"):
        if path.is_file():
            s3.client.upload_file(str(path), "scale", f"raw/{path.relative_to(sample).as_posix()}")
    cluster = Cluster(folder, env=env)
    cluster.start()
    cluster.add(2)
    try:
        local = Project(tmp_path / "project", sample, cluster.address)
        local.stages("local")
        local.raw = "s3://scale/raw"
        local.stages("dask", **env)
        local.same(*MADE, "reports")
        files = {"local": (sample, tmp_path), "dask": ("s3://scale/raw", "s3://scale/out")}
        for engine, (raw, out) in files.items():
            more = ["--input", f"{raw}/X_test.csv", "--images", f"{raw}/images", "--output", f"{out}/scored.parquet"]
            local.run("score", engine, "models", "cache", more=more, **(env if engine == "dask" else {}))
        sent = s3.client.get_object(Bucket="scale", Key="out/scored.parquet")["Body"].read()
        assert sent == (tmp_path / "scored.parquet").read_bytes()
    finally:
        cluster.end()


@pytest.mark.slow
def test_a_lost_scheduler_loses_no_embedding(cluster: Cluster, sample: Path, tmp_path: Path) -> None:
    project = Project(tmp_path / "project", sample, cluster.address)
    project.run("src/data/make_dataset.py", "local", "raw", "interim", "reports")
    shutil.copytree(project.folder / "local", project.folder / "dask")
    features = partial(project.command, "src/features/build_features.py")
    names = ("raw", "interim", "processed", "cache", "reports")
    env = environment(ROOT, **project.environment("dask"))
    with subprocess.Popen(features("dask", *names), env=env, stderr=subprocess.PIPE, text=True) as job:
        wait_for(lambda: _kept(project.folder / "dask" / "data" / "cache") >= 32, "the first embeddings", 120)
        cluster.stop()
        said = job.communicate(timeout=120)[1]
    assert job.returncode == 1
    assert said.splitlines()[-1].startswith(f"ERROR features: the Dask scheduler at {cluster.address} is gone")
    assert "Traceback" not in said, said
    assert not list((project.folder / "dask" / "data" / "processed").glob("*"))
    kept = _kept(project.folder / "dask" / "data" / "cache")
    cluster.start()
    for worker in cluster.workers:  # they end with their scheduler
        worker.stop()
        worker.start()
    said = project.run("src/features/build_features.py", "dask", *names)
    assert f"{kept:,} cached" in said
    project.run("src/features/build_features.py", "local", *names)
    project.same("processed")


def _kept(cache: Path) -> int:
    total = 0
    for path in cache.glob("*.sqlite"):
        database = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        try:
            total += database.execute("SELECT count(*) FROM embedding").fetchone()[0]
        except sqlite3.OperationalError:
            pass  # being made
        finally:
            database.close()
    return total


@pytest.mark.slow
def test_the_prefect_flow_runs_on_the_cluster(workshop: Path, cluster: Cluster, tmp_path: Path) -> None:
    project = tmp_path / "project"
    shutil.copytree(workshop, project, symlinks=True)
    params = yaml.safe_load((project / "params.yaml").read_text(encoding="utf-8"))
    params["compute"]["engine"] = "dask"
    params["train"]["shard_rows"] = 150
    (project / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")
    env = {"DASK_SCHEDULER_ADDRESS": cluster.address, "PREFECT_HOME": str(tmp_path / "prefect")}
    said = run_in(project, sys.executable, "flows/pipeline.py", "--no-promotion", **env)
    assert "ran train, predict" in said
    assert "Close client connection" in (cluster.folder / "scheduler.log").read_text()
