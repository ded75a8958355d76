"""The review desk on real databases, with several people at once and processes that are killed."""

import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

from rakuten.review.database import open_database
from rakuten.review.desk import NewDecision, ReviewDesk
from rakuten.review.tables import Answer
from tests.review.conftest import product as product_fixture
from tests.support.servers import Postgres, ServicePostgres

N_PRODUCTS, N_PEOPLE = 60, 6
# Decides one product after the other, and prints its number as soon as the decision is stored.
DECIDE = """
import sys
from rakuten.review.database import open_database
from rakuten.review.desk import NewDecision, ReviewDesk
from rakuten.review.tables import Answer
desk = ReviewDesk(open_database(sys.argv[1]), 1)
while products := desk.take("ann", 1):
    desk.decide(NewDecision("ann", products[0].id, Answer.CODE, 40))
    print(products[0].id, flush=True)
"""
product = product_fixture


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'review.db'}"
    server: Postgres | ServicePostgres = request.getfixturevalue("postgres")
    settings = server.database(f"review_{request.node.originalname[-20:]}".lower())
    port = settings.get("PGPORT", "5432")
    user = f"{settings['PGUSER']}:{settings['PGPASSWORD']}"
    return f"postgresql://{user}@/{settings['PGDATABASE']}?host={settings['PGHOST']}&port={port}"


def fill(desk: ReviewDesk, product: Callable[..., dict[str, Any]]) -> None:
    desk.add([product(f"1_{number}", priority=number / 100) for number in range(N_PRODUCTS)])


def test_people_at_the_same_time_decide_each_product_once(url: str, product: Callable[..., dict[str, Any]]) -> None:
    fill(ReviewDesk(open_database(url), 1), product)

    everybody_has_some = Barrier(N_PEOPLE)

    def work(person: str) -> list[int]:
        desk, decided = ReviewDesk(open_database(url), 1), []
        products = desk.take(person, 2)
        everybody_has_some.wait(60)
        while products:
            for each in products:
                desk.decide(NewDecision(person, each.id, Answer.CODE, 40))
                decided.append(each.id)
            products = desk.take(person, 2)
        return decided

    with ThreadPoolExecutor(N_PEOPLE) as pool:  # the first of them run the migrations at the same time
        by_person = list(pool.map(work, [f"person {number}" for number in range(N_PEOPLE)]))
    decided = [number for numbers in by_person for number in numbers]
    assert sorted(decided) == list(range(1, N_PRODUCTS + 1))
    assert all(by_person)
    assert ReviewDesk(open_database(url), 1).counts()["state"] == {"decided": N_PRODUCTS}


def test_no_decision_is_lost_when_the_process_is_killed(url: str, product: Callable[..., dict[str, Any]]) -> None:
    desk = ReviewDesk(open_database(url), 1)
    fill(desk, product)
    with subprocess.Popen([sys.executable, "-c", DECIDE, url], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        printed = [int(process.stdout.readline()) for _ in range(7)]
        process.send_signal(signal.SIGKILL)
    stored = {each.id for each, _, _ in desk.decided()}
    assert set(printed) <= stored
    assert len(stored) < N_PRODUCTS
    assert len(desk.take("ann", N_PRODUCTS)) == N_PRODUCTS - len(stored)  # what was open is open again
