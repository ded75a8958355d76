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
from tests.support.api import Api, get, jpeg, post
from tests.support.review import check_upgraded, fill_first_tables
from tests.support.servers import Postgres, ServicePostgres, wait_for

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


def test_a_database_of_the_first_tables_is_brought_up_to_date(url: str) -> None:
    check_upgraded(url, fill_first_tables(url))


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


def test_what_the_api_is_unsure_of_is_decided_over_http_and_survives_a_kill(
    start: Callable[..., Api], tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path / 'review.db'}"
    settings = {"API_REVIEW": "true", "API_REVIEW_PICTURES": str(tmp_path / "pictures"), "REVIEW_DATABASE_URL": url}
    api, picture, ann = start(**settings), jpeg(), {"X-Reviewer": "ann"}
    words = ("lampe", "Lot de 3", "objet rare", "neuf", "set", "x")
    answers = [post(f"{api.url}/predict", data={"designation": word}, files={"picture": picture}) for word in words]
    unsure = {word for word, answer in zip(words, answers, strict=True) if answer.json()["needs_review"]}
    assert unsure, [answer.json() for answer in answers]

    def queue() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = get(f"{api.url}/review/queue?number=50", headers=ann).json()["products"]
        return found

    wait_for(lambda: unsure <= {product["designation"] for product in queue()}, "the queue", 20)
    product = queue()[0]
    assert product["source"] == "api"
    where = f"{api.url}/review/products/{product['id']}"
    assert get(f"{where}/picture").content == picture
    explanation = get(f"{where}/explanation").json()
    assert explanation["prediction"]["prdtypecode"] == product["top"][0]["prdtypecode"]
    assert {view["view"] for view in explanation["views"]} >= {"words", "picture"}
    assert "confidence" not in str(explanation)  # a product of the audit sample would have a high one
    decision = {"product_id": product["id"], "answer": "none", "decided_at": "2026-01-02T03:04:05Z"}
    assert post(f"{api.url}/review/decisions", headers=ann, json=decision).json() == {"state": "decided"}
    api.stop(signal.SIGKILL)
    ((decided, _, (made,)),) = ReviewDesk(open_database(url), 1).decided()
    assert (decided.id, made.person, made.answer) == (product["id"], "ann", "none")
