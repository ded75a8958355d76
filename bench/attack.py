"""What hostile clients cost an innocent one, on the real server: `make attack`.

For each attack, from one client and from ten: the latency of an innocent client's /predict beside its usual one, the
slowest /health, the server's memory, and the answers. Attackers come from 127.0.0.2, the innocent from 127.0.0.1.
docs/security.md has the figures, and what each attack is.
"""

import argparse
import multiprocessing
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path

import psutil

from rakuten.config import ROOT
from tests.support.api import Api
from tests.support.attacks import CORPUS, Measured, connect, measure, memory_mb

SECONDS = 8.0  # of each attack
DRIBBLING_CONNECTIONS = 24  # of each attacker
ATTACKERS = (1, 10)
MAX_PREDICT_RATIO, MAX_HEALTH_SECONDS, MAX_MEMORY_MB = 5.0, 0.2, 1000


def attack_until_stopped(port: int, name: str, number: int, sent: "multiprocessing.Queue[int]") -> None:
    """One hostile client: repeats an attack on connections of its own; puts the status of each answer in the queue."""
    attack = CORPUS[name]()

    parent = multiprocessing.parent_process()
    assert parent is not None

    def repeat() -> None:
        while parent.is_alive():
            status = 0
            with suppress(OSError), closing(connect(port, f"127.0.0.{number}")) as connection:
                with suppress(OSError):
                    attack(connection)
                answer = connection.recv(65_536).split()
                status = int(answer[1]) if len(answer) > 1 else 0
            sent.put(status)

    for _ in range(DRIBBLING_CONNECTIONS if "dribble" in name else 1):
        threading.Thread(target=repeat, daemon=True).start()
    parent.join()  # ends with it, however that ends


def run_attack(url: str, server: psutil.Process, name: str, n_clients: int) -> tuple[Measured, Counter[int]]:
    """The measurement while some clients attack, and the statuses of their answers (0: closed without one)."""
    context = multiprocessing.get_context("spawn")
    sent: multiprocessing.Queue[int] = context.Queue()
    port = int(url.rpartition(":")[2])
    clients = [
        context.Process(target=attack_until_stopped, args=(port, name, 2 + number, sent)) for number in range(n_clients)
    ]
    for client in clients:
        client.start()
    try:
        time.sleep(3 + n_clients)  # until all have made their attack
        measured = measure(url, server, SECONDS)
    finally:
        for client in clients:
            client.kill()
            client.join()
    answers: Counter[int] = Counter()
    while not sent.empty():
        answers[sent.get()] += 1
    return measured, answers


def rows(url: str, server: psutil.Process, names: Sequence[str], attackers: Sequence[int]) -> Iterator[str]:
    """The table in Markdown, a line at a time."""
    measure(url, server, 2)
    usual = measure(url, server, SECONDS)
    yield (
        f"Usual: /predict {1000 * usual.p99:.0f} ms (p99 of {len(usual.predict_seconds)}, a quarter with a picture), "
        f"{usual.memory_mb:.0f} MB.\n"
    )
    yield "| attack | clients | /predict p99, times the usual | /health at most | memory at most | answers | |"
    yield "|---|---|---|---|---|---|---|"
    for name in names:
        for n_clients in attackers:
            measured, answers = run_attack(url, server, name, n_clients)
            ratio, health = measured.p99 / usual.p99, max(measured.health_seconds)
            errors = sum(count for status, count in answers.items() if status >= 500 and status != 503)
            within = (
                ratio <= MAX_PREDICT_RATIO
                and health <= MAX_HEALTH_SECONDS
                and measured.memory_mb <= MAX_MEMORY_MB
                and set(measured.statuses) == {200}
                and not errors
            )
            told = ", ".join(f"{status or 'closed'}: {count}" for status, count in sorted(answers.items()))
            innocent = "" if set(measured.statuses) == {200} else f"; innocent {dict(measured.statuses)}"
            yield (
                f"| {name} | {n_clients} | {ratio:.1f} | {1000 * health:.0f} ms | {measured.memory_mb:.0f} MB "
                f"| {told or 'none yet'}{innocent} | {'' if within else '**over**'} |"
            )
            time.sleep(2)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--project", type=Path, default=ROOT, help="where `make run` has trained a model")
    parser.add_argument("--only", default="", help="attacks whose name has this in it")
    parser.add_argument("--clients", type=int, nargs="+", default=ATTACKERS)
    parser.add_argument("--log", type=Path, default=Path("/tmp/rakuten-attack.log"), help="of the server")
    arguments = parser.parse_args()
    api = Api(arguments.project, arguments.log).wait()
    try:
        server = psutil.Process(api.process.pid)
        for row in rows(api.url, server, [name for name in CORPUS if arguments.only in name], arguments.clients):
            sys.stdout.write(f"{row}\n")
            sys.stdout.flush()
        time.sleep(60)
        tracebacks = arguments.log.read_text(errors="replace").count("Traceback")
        sys.stdout.write(f"\nA minute later: {memory_mb(server):.0f} MB; {tracebacks} tracebacks in the server's log\n")
    finally:
        api.stop(signal.SIGKILL)
    return 0


if __name__ == "__main__":
    sys.exit(main())
