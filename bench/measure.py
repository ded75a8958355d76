"""Run a command and say what it cost: CPU seconds, wall seconds, peak memory of all its processes together."""

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import psutil

EVERY = 0.5  # seconds between looks at the memory


class Cost(NamedTuple):
    cpu: float  # seconds, children included
    wall: float  # seconds
    memory: float  # MB: the sum over the processes of their share of the pages (PSS)


def run(command: Sequence[str | Path], environment: Mapping[str, str], log: Path) -> Cost:
    """Run to the end; what it prints goes to the log.

    Raises:
        RuntimeError: it failed.
    """
    before, started, peak = os.times(), time.perf_counter(), 0.0
    with log.open("w", encoding="utf-8") as stream:
        process = subprocess.Popen(
            [str(part) for part in command], stdout=stream, stderr=subprocess.STDOUT, env={**os.environ, **environment}
        )
        while process.poll() is None:
            peak = max(peak, memory(process.pid))
            time.sleep(EVERY)
    after = os.times()
    if process.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))} failed: see {log}")
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return Cost(cpu, time.perf_counter() - started, peak)


def memory(pid: int) -> float:
    """MB of a process and its children: the sum of their shares of the pages (PSS)."""
    total = 0.0
    try:
        family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0.0
    for process in family:
        try:
            memory = process.memory_full_info() if psutil.LINUX else process.memory_info()
            total += getattr(memory, "pss", memory.rss)
        except psutil.Error:
            continue  # it has just ended
    return total / 1e6
