"""The routes of the review desk, on a database in a file and a model that is a stand-in."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pandas as pd
import pytest
from fastapi import FastAPI
from httpx import Response
from starlette.testclient import TestClient

from rakuten.errors import UserError
from rakuten.models.explain import Explanation
from rakuten.review.database import open_database
from rakuten.review.desk import ReviewDesk
from rakuten.serving import kept_answers
from rakuten.serving.app import PAGE, _add_error_handlers
from rakuten.serving.keys import add_key
from rakuten.serving.metrics import ApiMetrics
from rakuten.serving.middleware import RequestMiddleware
from rakuten.serving.review import ReviewService, add_review_routes
from rakuten.serving.review_admin import add_administer_routes
from rakuten.serving.roles import Role
from rakuten.serving.service import Service
from rakuten.serving.settings import ApiSettings
from rakuten.serving.training_pictures import TrainingPictures
from tests.review.conftest import MakeProduct
from tests.review.conftest import product as product_fixture
from tests.support.api import jpeg

NOW = "2026-01-02T03:04:05Z"
ANN, BOB = {"X-Reviewer": "ann"}, {"X-Reviewer": "Bob%20%C3%89"}
product = product_fixture


class FakeModel:
    """Stands for the decoder and the scorer; remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    async def decode_all(self, products: list[Any]) -> list[Any]:
        return products

    async def score(self, products: list[Any], name: str, **options: bool) -> Any:
        self.asked.append((*products, options))
        nothing = pd.DataFrame()
        return SimpleNamespace(
            codes=[[2583, 10]], explanation=Explanation(2583, "", 0.9, nothing, nothing, nothing, nothing)
        )


@pytest.fixture
def desk(tmp_path: Path) -> ReviewDesk:
    return ReviewDesk(open_database(f"sqlite:///{tmp_path / 'review.db'}"), agreement=1)


@pytest.fixture
def model() -> FakeModel:
    return FakeModel()


@pytest.fixture
def serve(
    desk: ReviewDesk, model: FakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., TestClient]:
    """Serve the desk's routes, with all that is done for every request."""
    monkeypatch.setattr(kept_answers, "CHEAP_SECONDS", 60)  # a busy machine may take long to count a product

    def make(open_: Callable[[], ReviewDesk] = lambda: desk, **settings: Any) -> TestClient:
        api = ApiSettings(keys_file=tmp_path / "keys.txt", **settings)
        review = ReviewService(api, open_)
        pictures = TrainingPictures(api.images)
        service = SimpleNamespace(settings=api, review=review, scorer=model, decoder=model, training_pictures=pictures)
        app = FastAPI()
        add_review_routes(app, cast("Service", service), PAGE)
        add_administer_routes(app, review)
        _add_error_handlers(app)
        return TestClient(RequestMiddleware(app, api, ApiMetrics()), base_url="http://127.0.0.1")

    return make


@pytest.fixture
def client(serve: Callable[..., TestClient]) -> TestClient:
    return serve()


def problem(answer: Response, status: int) -> str:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    return str(answer.json()["detail"])


def taken(client: TestClient, who: dict[str, str], **query: Any) -> list[int]:
    answer = client.get("/review/queue", headers=who, params=query)
    assert answer.status_code == 200, answer.text
    return [each["id"] for each in answer.json()["products"]]


def decide(client: TestClient, who: dict[str, str], number: int, **fields: Any) -> Response:
    body = {"product_id": number, "answer": "code", "prdtypecode": 40, "decided_at": NOW} | fields
    return client.post("/review/decisions", headers=who, json=body)


def test_the_next_products_are_those_of_nobody_else(client: TestClient, desk: ReviewDesk, product: MakeProduct) -> None:
    desk.add([product(f"1_{number}", priority=1 - number / 10) for number in range(5)])
    body = client.get("/review/queue?number=2&source=&code=&search=", headers=ANN).json()
    assert body["waiting"] == 5
    first = body["products"][0]
    assert first["added_at"].endswith("+00:00")
    assert first | {"added_at": ""} == {
        "id": 1,
        "source": "file",
        "designation": "Titre 1_0",
        "description": "",
        "has_picture": False,
        "language": "french",
        "prdtypecode": None,
        "top": [
            {"prdtypecode": 10, "label": "livres d'occasion", "confidence": 0.4},
            {"prdtypecode": 2280, "label": "journaux et revues", "confidence": 0.3},
        ],
        "model_version": "abc",
        "added_at": "",
    }
    assert [each["id"] for each in body["products"]] == [1, 2]
    assert taken(client, BOB, number=9) == [3, 4, 5]


def test_no_response_tells_the_audit_sample_from_what_needs_review(
    client: TestClient, desk: ReviewDesk, product: MakeProduct
) -> None:
    """By its fields, its confidence, or its place in an order or a filter."""
    shown = {"shown_confidence": 0.35, "shown_top": [[10, 0.35], [40, 0.2]]}
    desk.add(
        [
            product("1_1", confidence=0.3, top=[[10, 0.3], [40, 0.2]]),
            product("1_2", confidence=0.99, top=[[10, 0.99], [40, 0.01]], is_audit=True, **shown),
            product("1_3", confidence=0.4, top=[[10, 0.4], [40, 0.2]]),
        ]
    )
    assert taken(client, ANN, order="confidence") == [1, 2, 3]
    assert taken(client, ANN, max_confidence=0.36) == [1, 2]
    assert client.get("/review/counts?max_confidence=0.36").json()["source"] == {"file": 2}
    answer = client.get("/review/queue?number=9", headers=ANN)
    plain, audited = answer.json()["products"][:2]
    assert set(plain) == set(audited)
    assert audited["top"][0]["confidence"] == 0.35
    assert "audit" not in answer.text
    assert "0.99" not in answer.text


def test_the_queue_has_filters_and_orders(client: TestClient, desk: ReviewDesk, product: MakeProduct) -> None:
    desk.add(
        [
            product("1_1", confidence=0.3, priority=0.1, designation="Chaise"),
            product("1_2", confidence=0.2, priority=0.2, predicted=40),
            product("1_3", confidence=0.5, priority=0.3, source="label-issues", prdtypecode=40),
        ]
    )
    for query, expected in (
        ({}, [3, 2, 1]),
        ({"order": "confidence"}, [2, 1, 3]),
        ({"order": "oldest"}, [1, 2, 3]),
        ({"code": 40}, [3, 2]),
        ({"source": "label-issues"}, [3]),
        ({"max_confidence": 0.25}, [2]),
        ({"search": "chai"}, [1]),
    ):
        assert taken(client, ANN, **query) == expected, query
    assert "order" in problem(client.get("/review/queue?order=best", headers=ANN), 422)
    assert "sauce" in problem(client.get("/review/queue?sauce=file", headers=ANN), 422)


def test_a_decision_is_recorded_once(client: TestClient, desk: ReviewDesk, product: MakeProduct) -> None:
    desk.add([product("1_1"), product("1_2")])
    for _ in range(2):
        assert decide(client, BOB, 1, seconds=1.5, note="sûr").json() == {"state": "decided"}
    ((_, answer, (made,)),) = desk.decided()
    assert (answer, made.person, made.note, made.seconds) == (40, "Bob É", "sûr", 1.5)
    assert made.decided_at.isoformat() == "2026-01-02T03:04:05+00:00"
    assert decide(client, ANN, 2, answer="skip", prdtypecode=None).json() == {"state": "open"}
    assert taken(client, ANN) == []


def test_a_decision_is_taken_back(client: TestClient, desk: ReviewDesk, product: MakeProduct) -> None:
    desk.add([product()])
    decide(client, ANN, 1)
    assert client.post("/review/undo", headers=BOB).json() == {"product": None}
    assert client.post("/review/undo", headers=ANN).json()["product"]["id"] == 1
    assert taken(client, ANN) == [1]
    assert taken(client, BOB) == []


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"product_id": 7}, "has no product 7"),
        ({"prdtypecode": None}, "'code' needs a prdtypecode"),
        ({"answer": "none"}, "'none' takes no prdtypecode"),
        ({"answer": "undo", "prdtypecode": None}, "answer"),
        ({"prdtypecode": 2**31}, "prdtypecode"),
        ({"decided_at": "2026-01-02T03:04:05"}, "decided_at"),
        ({"seconds": -1}, "seconds"),
        ({"person": "bob"}, "person"),
    ],
)
def test_a_wrong_decision_is_refused(
    client: TestClient, desk: ReviewDesk, product: MakeProduct, fields: dict[str, Any], message: str
) -> None:
    desk.add([product()])
    assert message in problem(decide(client, ANN, 1, **fields), 422)
    assert desk.counts()["person"] == {}


@pytest.mark.parametrize("name", ["", "%20", "a%0Ab", "%ff", "x" * 41])
def test_who_decides_must_have_a_name(client: TestClient, name: str) -> None:
    for method, path in (("GET", "queue"), ("POST", "undo"), ("POST", "decisions")):
        assert "X-Reviewer" in problem(client.request(method, f"/review/{path}", headers={"X-Reviewer": name}), 422)
        assert "X-Reviewer" in problem(client.request(method, f"/review/{path}"), 422)


def test_disputed_products_come_with_their_decisions(
    serve: Callable[..., TestClient], desk: ReviewDesk, product: MakeProduct
) -> None:
    desk.add([product()])
    client = serve()
    decide(client, ANN, 1)
    assert decide(client, BOB, 1, prdtypecode=10, note="no").json() == {"state": "disputed"}
    query = {"state": "disputed"}
    (found,) = client.get("/review/queue", headers={"X-Reviewer": "cid"}, params=query).json()["products"]
    assert found["decisions"] == [
        {"person": "ann", "answer": "code", "prdtypecode": 40, "note": "", "decided_at": "2026-01-02T03:04:05+00:00"},
        {
            "person": "Bob É",
            "answer": "code",
            "prdtypecode": 10,
            "note": "no",
            "decided_at": "2026-01-02T03:04:05+00:00",
        },
    ]


def test_products_are_counted(client: TestClient, desk: ReviewDesk, product: MakeProduct) -> None:
    desk.add([product("1_1"), product("1_2", predicted=40), product("1_3", predicted=40, language="english")])
    assert client.get("/review/counts", params={"code": 40}).json() == {
        "state": {"open": 2},
        "source": {"file": 2},
        "predicted": {"40": 2},
        "language": {"english": 1, "french": 1},
        "person": {},
        "agreement": None,
    }
    decide(client, ANN, 1)
    decide(client, BOB, 1)
    counts = client.get("/review/counts").json()
    assert counts["state"] == {"decided": 1, "open": 2}
    assert counts["agreement"] == {"kappa": 1.0, "pairs": 1}


def test_the_picture_of_a_product(client: TestClient, desk: ReviewDesk, product: MakeProduct, tmp_path: Path) -> None:
    (tmp_path / "1.jpg").write_bytes(jpeg())
    (tmp_path / "2.jpg").write_bytes(b"<script>")
    paths = [str(tmp_path / name) for name in ("1.jpg", "2.jpg", "3.jpg")]
    desk.add([product(f"1_{number}", image=path) for number, path in enumerate([*paths, None])])
    answer = client.get("/review/products/1/picture")
    assert answer.content == (tmp_path / "1.jpg").read_bytes()
    assert answer.headers["content-type"] == "image/jpeg"
    assert answer.headers["cache-control"] == "private, max-age=600"
    for number in (2, 3, 4, 5):
        assert problem(client.get(f"/review/products/{number}/picture"), 404) == f"product {number} has no picture"


def test_the_explanation_is_that_of_the_product_and_is_not_logged(
    client: TestClient, desk: ReviewDesk, model: FakeModel, product: MakeProduct
) -> None:
    desk.add([product(designation="Piscine", description="ronde")])
    body = client.get("/review/products/1/explanation").json()
    assert body["prediction"] == {"prdtypecode": 2583, "label": "piscine et spa"}
    assert set(body) == {"prediction", "views", "spoke_for", "spoke_against", "pictures"}
    assert model.asked == [(("Piscine", "ronde", None), {"with_explanation": True, "is_logged": False})]
    assert "no product 2" in problem(client.get("/review/products/2/explanation"), 404)


def test_who_i_am(serve: Callable[..., TestClient], tmp_path: Path) -> None:
    client = serve()
    nobody = {"person": None, "role": "administer", "keys_required": False, "agreement": 1}
    assert client.get("/review/me").json() == nobody
    assert client.get("/review/me", headers=BOB).json() == nobody | {"person": "Bob É"}
    key = add_key(tmp_path / "keys.txt", "cid", role=Role.REVIEW)
    client = serve(require_keys="true")
    me = client.get("/review/me", headers={"X-API-Key": key, **BOB}).json()
    assert me == {"person": "cid", "role": "review", "keys_required": True, "agreement": 1}


def test_a_key_opens_what_its_role_allows(
    serve: Callable[..., TestClient], desk: ReviewDesk, product: MakeProduct, tmp_path: Path
) -> None:
    desk.add([product()])
    client = serve(require_keys="true")
    keys = {role: {"X-API-Key": add_key(tmp_path / "keys.txt", role.word, role=role)} for role in Role}
    assert client.get("/review").status_code == 200
    assert problem(client.get("/review/queue"), 401)
    said = problem(client.get("/review/queue", headers=keys[Role.CLASSIFY]), 403)
    assert said == "the key of classify has the role classify: this needs review"
    assert decide(client, keys[Role.REVIEW] | BOB, 1).json() == {"state": "decided"}
    assert desk.counts()["person"] == {"review": 1}
    said = problem(client.post("/review/export", headers=keys[Role.REVIEW]), 403)
    assert said == "the key of review has the role review: this needs administer"


def test_a_database_that_does_not_answer_is_a_problem(serve: Callable[..., TestClient], desk: ReviewDesk) -> None:
    def fail() -> ReviewDesk:
        raise UserError("the review database x cannot be opened: no")

    answer = serve(open_=fail).get("/review/me")
    assert problem(answer, 503) == "the review database x cannot be opened: no"
    assert answer.headers["retry-after"] == "2"
    with desk._engine.connect() as connection:
        connection.exec_driver_sql("DROP TABLE review_decisions")
        connection.commit()
    assert problem(serve().get("/review/counts"), 503) == "the database: no such table: review_decisions"
