"""The routes that put products into the review desk and take decisions out of it."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from starlette.testclient import TestClient

from rakuten.review import files
from rakuten.review.desk import ReviewDesk
from tests.review.conftest import MakeProduct
from tests.serving.test_review import ANN, BOB, decide, problem
from tests.serving.test_review import client as client_fixture
from tests.serving.test_review import desk as desk_fixture
from tests.serving.test_review import model as model_fixture
from tests.serving.test_review import product as product_fixture
from tests.serving.test_review import serve as serve_fixture

client, desk, model, serve, product = client_fixture, desk_fixture, model_fixture, serve_fixture, product_fixture

SCORED = """\
designation,description,predicted_prdtypecode,confidence,second_prdtypecode,second_confidence,needs_review,model_version
Piscine gonflable,,2583,0.4,2705,0.3,True,abc
Roman policier,,2705,0.99,10,0.01,False,abc
"""


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("INTERIM", "RAW", "MODELS"):
        monkeypatch.setattr(files, folder, tmp_path)
    monkeypatch.setattr(files, "PIPELINE_FILES", {"predictions": tmp_path / "predictions.csv"})


def test_a_file_is_put_into_the_queue(client: TestClient, desk: ReviewDesk) -> None:
    for expected in ({"new": 1, "updated": 0, "decided": 0}, {"new": 0, "updated": 1, "decided": 0}):
        upload = {"file": ("scored.csv", SCORED.encode())}
        assert client.post("/review/products", headers=ANN, files=upload).json() == expected
    assert [(each.designation, each.source) for each in desk.open_products()] == [("Piscine gonflable", "file")]
    upload = {"file": ("scored.csv", SCORED.encode())}
    answer = client.post("/review/products", headers=ANN, files=upload, data={"source": "api"})
    assert answer.json()["new"] == 1
    assert desk.counts()["source"] == {"api": 1, "file": 1}


def test_the_pipelines_own_file_is_put_into_the_queue(client: TestClient, desk: ReviewDesk, tmp_path: Path) -> None:
    body = {"from": "predictions"}
    assert "predictions.csv: cannot be read" in problem(client.post("/review/products", headers=ANN, json=body), 422)
    (tmp_path / "predictions.csv").write_text(SCORED, encoding="utf-8")
    assert client.post("/review/products", headers=ANN, json=body).json()["new"] == 1


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        ({"files": {"file": ("x.csv", b"a,b\n1,2\n")}}, 422, "x.csv: neither a scored file nor label_issues.csv"),
        ({"files": {"file": ("x.parquet", b"PAR1")}}, 422, "x.parquet: cannot be read"),
        ({"files": {"other": ("x.csv", b"a")}}, 422, "file: missing"),
        ({"files": {"file": ("x.csv", b"a")}, "data": {"source": "sauce"}}, 422, "source: one of"),
        ({"json": {"from": "elsewhere"}}, 422, "from"),
        ({"content": b"a", "headers": ANN | {"content-type": "text/plain"}}, 415, "send application/json"),
    ],
)
def test_another_file_is_refused(client: TestClient, options: dict[str, Any], status: int, message: str) -> None:
    assert message in problem(client.post("/review/products", **({"headers": ANN} | options)), status)


def test_who_changes_something_is_named(client: TestClient) -> None:
    """A page of another site can post a form to loopback, but not with this header."""
    for path in ("products", "export", "decisions.csv", "annotations"):
        assert "X-Reviewer" in problem(client.post(f"/review/{path}"), 422)


def test_corrections_are_written(
    client: TestClient, desk: ReviewDesk, product: MakeProduct, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "corrections" / "corrections.csv"
    monkeypatch.setattr(files, "EXPORTED", path)
    desk.add([product("1_2")])
    decide(client, ANN, 1)
    assert client.post("/review/export", headers=ANN).json() == {"corrections": 1, "path": str(path)}
    assert pd.read_csv(path)[["productid", "imageid", "prdtypecode"]].to_numpy().tolist() == [[2, 1, 40]]


def test_decisions_are_downloaded_and_taken_over(client: TestClient, desk: ReviewDesk, product: MakeProduct) -> None:
    desk.add([product()])
    decide(client, BOB, 1, note="a\r\nb")
    answer = client.get("/review/decisions.csv")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    more = answer.text + answer.text.splitlines()[-2].replace("Bob É", "ann") + answer.text.splitlines()[-1] + "\n"
    headers = ANN | {"content-type": "text/csv"}
    for new in (1, 0):
        taken = client.post("/review/decisions.csv", headers=headers, content=more.encode())
        assert taken.json() == {"decisions": 2, "new": new}
    assert desk.counts()["person"] == {"Bob É": 1, "ann": 1}
    assert "no column source" in problem(client.post("/review/decisions.csv", headers=headers, content=b"a\n1\n"), 422)
    assert "send text/csv" in problem(client.post("/review/decisions.csv", headers=ANN, json=[]), 415)


def test_label_studio_gets_tasks_and_gives_annotations(
    client: TestClient, desk: ReviewDesk, product: MakeProduct
) -> None:
    desk.add([product(confidence=0.99, is_audit=True, shown_confidence=0.3, shown_top=[[10, 0.3], [40, 0.2]])])
    (task,) = client.get("/review/tasks.json").json()
    assert (task["data"]["source"], task["data"]["key"]) == ("file", "1_2")
    assert task["predictions"][0]["score"] == 0.3
    result = [{"from_name": "prdtypecode", "value": {"choices": ["40"]}}]
    annotation = {"completed_by": 1, "updated_at": "2026-01-02T03:04:05.678Z", "lead_time": 3.2, "result": result}
    for new in (1, 0):
        answer = client.post("/review/annotations", headers=ANN, json=[{**task, "annotations": [annotation]}])
        assert answer.json() == {"decisions": 1, "new": new}
    assert desk.counts()["person"] == {"label-studio:1": 1}
    for wrong, message in (
        ({}, "it is a list of tasks"),
        ([{"data": {}}], "task 1 has no source and key"),
        ([{**task, "annotations": [3]}], "the task of product 1_2 is not as Label Studio exports it"),
        ([{**task, "annotations": [annotation | {"updated_at": "today"}]}], "is not as Label Studio exports it"),
    ):
        assert message in problem(client.post("/review/annotations", headers=ANN, json=wrong), 422)


def test_the_labelling_configuration_has_the_names_in_the_readers_language(client: TestClient) -> None:
    answer = client.get("/review/tasks.xml", headers={"accept-language": "en-GB"})
    assert (answer.headers["content-type"], answer.headers["content-language"]) == ("application/xml", "en")
    assert '<Choice value="2583 pools and spas" alias="2583"/>' in answer.text
    assert '"2583 piscine et spa"' in client.get("/review/tasks.xml").text
