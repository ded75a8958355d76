"""The review desk with many people at once: `python -m bench.review_load --models FOLDER`.

A real server on a database of 100,000 open products, SQLite or the one of --url. Each person takes the next products,
gets a picture and decides, again and again; one more person counts, filters and searches. Half way the server is killed
with SIGKILL and started again; whoever got no answer sends the same decision again. Then the database is checked: every
decision that was answered is there once, and no product was given to two people.
"""

import argparse
import asyncio
import json
import os
import random
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sqlalchemy import func, insert, select
from sqlalchemy.orm import Session

from bench.load import _free_port
from rakuten.config import ROOT, SOURCE
from rakuten.data.taxonomy import current_taxonomy
from rakuten.review.database import open_database, transaction
from rakuten.review.tables import Answer, ReviewDecision, ReviewProduct

WORDS = [
    "piscine",
    "ronde",
    "bâche",
    "livre",
    "roman",
    "chaise",
    "table",
    "jouet",
    "figurine",
    "carte",
    "jeu",
    "console",
]
ROWS = 5000  # written at once
START_SECONDS = 120  # that the server may take to start
WARM_SECONDS = 5  # after each start, whose requests do not count
SPECIAL = ("counts", "counts of a code", "queue of a code", "queue by confidence", "search")


@dataclass
class Seen:
    """What the clients saw."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    given: dict[int, set[str]] = field(default_factory=lambda: defaultdict(set))  # product -> people
    decided: dict[tuple[int, str], str] = field(default_factory=dict)  # product and person -> time
    failures: Counter[str] = field(default_factory=Counter)
    count_from: float = 0.0  # of time.monotonic(): a server that has just started is slower


class Client:
    """One connection that is opened again when the server was killed."""

    def __init__(self, port: int, person: str, seen: Seen) -> None:
        self._port, self.person, self.seen = port, person, seen
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, name: str, method: str, path: str, body: Any = None) -> tuple[int, bytes]:
        """Send one request until it is answered; its time counts if the first try is."""
        content = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Reviewer: {self.person}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        for number in range(1000):
            started = time.perf_counter()
            try:
                answer = await self._exchange(head.encode() + content)
            except (OSError, asyncio.IncompleteReadError):
                self._streams = None
                self.seen.failures["no answer"] += 1
                await asyncio.sleep(0.25)
                continue
            if number == 0 and time.monotonic() > self.seen.count_from:
                self.seen.seconds[name].append(time.perf_counter() - started)
            if answer[0] != 200:
                self.seen.failures[f"{answer[0]} {name}"] += 1
            return answer
        raise RuntimeError("the server does not come back")

    async def _exchange(self, request: bytes) -> tuple[int, bytes]:
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = int(head.partition("content-length:")[2].partition("\r\n")[0])
        return int(head.split()[1]), await reader.readexactly(length)


async def review(client: Client, until: float, pause: float) -> None:
    """What one person does: take, look, decide."""
    while time.monotonic() < until:
        _, answer = await client.ask("queue", "GET", "/review/queue?number=3")
        products = json.loads(answer)["products"]
        for product in products:
            client.seen.given[product["id"]].add(client.person)
        if not products:
            client.seen.failures["no product"] += 1
            continue
        product = products[0]
        await client.ask("picture", "GET", f"/review/products/{product['id']}/picture")
        await asyncio.sleep(pause * random.uniform(0.5, 1.5))
        now = datetime.now(UTC).isoformat()
        body = {"product_id": product["id"], "answer": "code", "prdtypecode": 40, "seconds": 1.0, "decided_at": now}
        status, _ = await client.ask("decide", "POST", "/review/decisions", body)
        if status == 200:
            client.seen.decided[product["id"], client.person] = now


async def look_around(client: Client, until: float) -> None:
    """Count, filter and search, once a second each."""
    while time.monotonic() < until:
        for name, path in zip(
            SPECIAL,
            (
                "counts",
                "counts?code=2583",
                "queue?number=1&code=2583",
                "queue?number=1&order=confidence",
                "queue?number=1&search=nothing%20has%20this",
            ),
            strict=True,
        ):
            status, answer = await client.ask(name, "GET", f"/review/{path}")
            if status == 200 and path.startswith("queue"):
                for product in json.loads(answer)["products"]:
                    client.seen.given[product["id"]].add(client.person)
        await asyncio.sleep(1)


@asynccontextmanager
async def server(port: int, url: str, models: Path, log: Path) -> AsyncIterator["asyncio.subprocess.Process"]:
    """`rakuten serve`, ready; killed at the end."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    env |= {"PYTHONPATH": str(SOURCE), "API_PORT": str(port), "API_MODELS": str(models), "REVIEW_DATABASE_URL": url}
    env |= {"API_LIVE": str(log.parent / "live")}
    with log.open("a") as stream:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "rakuten", "serve", cwd=ROOT, env=env, stdout=stream, stderr=stream
        )
    try:
        client = Client(port, "nobody", Seen())
        until = time.monotonic() + START_SECONDS
        while True:
            try:
                await client._exchange(b"GET /ready HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
                break
            except OSError:
                if process.returncode is not None or time.monotonic() > until:
                    raise RuntimeError(f"the server does not start: see {log}") from None
                await asyncio.sleep(0.2)
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def fill(url: str, n_products: int, pictures: Path) -> None:
    """A database with open products of all codes, and 20 pictures for them."""
    generator = np.random.default_rng(0)
    for number in range(20):
        pixels = generator.integers(0, 255, (500, 500, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((40, 40)).resize((500, 500)).save(pictures / f"{number}.jpg", quality=80)
    engine, codes = open_database(url), sorted(current_taxonomy().codes)
    for start in range(0, n_products, ROWS):
        n = min(ROWS, n_products - start)
        confidence = generator.uniform(0.1, 0.8, n).round(6)
        code = generator.choice(codes, (n, 3))
        words = generator.choice(WORDS, (n, 66))
        rows = [
            {
                "source": "file" if row % 3 else "label-issues", "key": str(start + row), "productid": start + row,
                "imageid": start + row, "designation": " ".join(words[row, :6]),
                "description": " ".join(words[row, 6:]), "image": str(pictures / f"{row % 20}.jpg"),
                "language": ("french", "english", "german")[row % 3], "predicted": int(code[row, 0]),
                "prdtypecode": None if row % 3 else int(code[row, 1]), "confidence": float(confidence[row]),
                "top": (top := [[int(code[row, k]), float(confidence[row]) / (k + 1)] for k in range(3)]),
                "shown_top": top, "shown_confidence": float(confidence[row]), "model_version": "bench",
                "is_audit": False, "is_novel": False, "group": "", "state": "open",
                "priority": float(generator.uniform()), "added_at": datetime.now(UTC),
            }
            for row in range(n)
        ]  # fmt: skip
        with transaction(engine) as session:
            session.execute(insert(ReviewProduct), rows)
    engine.dispose()


async def run(arguments: argparse.Namespace, url: str, work: Path) -> Seen:
    """The load, with a kill of the server half way."""
    seen, port = Seen(), _free_port()
    people = [f"person{number}" for number in range(arguments.people)]
    log = work / "server.log"

    async def part(until: float) -> None:
        await asyncio.sleep(max(0.0, until - time.monotonic()))

    async with server(port, url, arguments.models, log) as first:
        await Client(port, "nobody", Seen()).ask("me", "GET", "/review/me")  # opens the database
        seen.count_from = time.monotonic() + WARM_SECONDS
        until = time.monotonic() + arguments.seconds
        tasks = [asyncio.create_task(review(Client(port, person, seen), until, arguments.pause)) for person in people]
        tasks.append(asyncio.create_task(look_around(Client(port, "curious", seen), until)))
        await part(until - arguments.seconds / 2)
        if arguments.kill:
            first.kill()
        else:
            await asyncio.gather(*tasks)
    if arguments.kill:
        started = time.monotonic()
        async with server(port, url, arguments.models, log):
            seen.count_from = time.monotonic() + WARM_SECONDS
            sys.stdout.write(f"killed, and back after {time.monotonic() - started:.1f} s\n")
            await asyncio.gather(*tasks)
    return seen


def check(url: str, seen: Seen) -> None:
    """Compare the database with what the clients saw.

    Raises:
        RuntimeError: a decision is lost or there twice, or two people were given the same product.
    """
    with Session(open_database(url)) as session:
        columns = (ReviewDecision.product_id, ReviewDecision.person)
        stored = Counter((row.product_id, row.person) for row in session.execute(select(*columns)))
        n_decided = session.scalar(select(func.count()).where(ReviewProduct.state == "decided"))
        undone = session.scalar(select(func.count()).where(ReviewDecision.answer == Answer.UNDO))
    shared = {number: people for number, people in seen.given.items() if len(people) > 1}
    lost = set(seen.decided) - set(stored)
    twice = [key for key, number in stored.items() if number > 1]
    sys.stdout.write(
        f"{len(seen.decided):,} decisions answered, {len(stored):,} stored, {n_decided:,} products decided, "
        f"{undone} taken back; lost: {len(lost)}, stored twice: {len(twice)}, "
        f"products given to two people: {len(shared)}\n"
    )
    if lost or twice or shared or n_decided != len(stored):
        raise RuntimeError("the database is not what people were told")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.review_load", description=__doc__)
    parser.add_argument("--models", type=Path, default=ROOT / "models", help="folder of a model; default: models")
    parser.add_argument("--url", help="of an empty database; default: an SQLite file")
    parser.add_argument("--products", type=int, default=100_000)
    parser.add_argument("--people", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=40)
    parser.add_argument("--pause", type=float, default=0.5, help="seconds that a decision takes a person, on average")
    parser.add_argument("--kill", action=argparse.BooleanOptionalAction, default=True, help="kill the server half way")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="review-load-") as folder:
        work = Path(folder)
        url = arguments.url or f"sqlite:///{work / 'review.db'}"
        (work / "pictures").mkdir()
        fill(url, arguments.products, work / "pictures")
        seen = asyncio.run(run(arguments, url, work))
        for name, seconds in seen.seconds.items():
            p50, p99, worst = np.percentile(seconds, [50, 99, 100]) * 1000
            sys.stdout.write(f"{name:20} {len(seconds):7,} p50 {p50:7.1f} ms  p99 {p99:7.1f} ms  max {worst:7.1f} ms\n")
        sys.stdout.write(f"not answered or refused: {dict(seen.failures)}\n")
        check(url, seen)
    return 0


if __name__ == "__main__":
    sys.exit(main())
