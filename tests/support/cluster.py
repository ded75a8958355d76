"""A Dask scheduler and its workers, processes on loopback that speak TCP."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.support.project import ROOT
from tests.support.servers import Server, free_port

DASK = str(Path(sys.executable).parent / "dask")
NONE: Mapping[str, str] = {}


class Node(Server):
    """A process of a cluster."""

    ready_line = ""  # in its log when it is ready

    def __init__(self, name: str, command: list[str], folder: Path, project: Path) -> None:
        # One death is enough to blame a task for it: four, as by default, take longer.
        env = {"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "1", "DASK_CONFIG": str(ROOT / "deploy/dask.yaml")}
        super().__init__(name, command, env | {"PYTHONPATH": f"{project / 'src'}{os.pathsep}{project}"}, folder)

    def launch(self) -> None:
        log = self.folder / f"{self.name}.log"
        self.before = log.stat().st_size if log.exists() else 0
        super().launch()

    def ready(self) -> bool:
        assert self.process is not None
        log = (self.folder / f"{self.name}.log").read_bytes()[self.before :].decode("utf-8", "replace")
        assert self.process.poll() is None, log[-2000:]
        return self.ready_line in log


class Worker(Node):
    ready_line = "Registered to"

    def __init__(self, number: int, address: str, folder: Path, project: Path = ROOT) -> None:
        command = [DASK, "worker", address, "--host", "127.0.0.1", "--nworkers", "1", "--nthreads", "1"]
        command += ["--no-dashboard", "--local-directory", str(folder / f"worker-{number}")]
        super().__init__(f"worker-{number}", command, folder, project)


class Cluster(Node):
    """The scheduler, and as many workers as are asked for."""

    ready_line = "Scheduler at"

    def __init__(self, folder: Path, project: Path = ROOT, env: Mapping[str, str] = NONE) -> None:
        self.port, self.project = free_port(), project
        self.address = f"tcp://127.0.0.1:{self.port}"
        command = [DASK, "scheduler", "--host", "127.0.0.1", "--port", str(self.port), "--no-dashboard"]
        super().__init__("scheduler", command, folder, project)
        self.own = dict(env)
        self.env |= self.own
        self.workers: list[Worker] = []

    def add(self, count: int = 1) -> None:
        """Start so many workers, side by side."""
        new = [Worker(len(self.workers) + n, self.address, self.folder, self.project) for n in range(count)]
        self.workers += new
        for worker in new:
            worker.env |= self.own
            worker.launch()
        for worker in new:
            worker.wait()

    def end(self) -> None:
        for node in (*self.workers, self):
            node.stop()
