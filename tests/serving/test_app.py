"""The API over real HTTP, on a real model: answers, refusals, limits, keys, overload, stopping."""

import base64
import io
import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import requests
from PIL import Image

from rakuten.data.schema import image_name
from rakuten.serving import keys
from rakuten.serving.settings import ApiSettings, is_loopback
from tests.support.project import run_in
from tests.serving.conftest import Api

POOL = {"designation": "Piscine gonflable ronde", "description": "<p>Avec pompe</p>"}


def post(url: str, **what: Any) -> requests.Response:
    return requests.post(url, timeout=60, **what)


def get(url: str, **what: Any) -> requests.Response:
    return requests.get(url, timeout=10, **what)


def unnamed(response: requests.Response) -> dict[str, Any]:
    """An answer without its prediction's id, which is another each time."""
    found: dict[str, Any] = response.json()
    assert found.pop("prediction_id")
    return found


def jpeg(size: tuple[int, int] = (64, 64), kind: str = "JPEG") -> bytes:
    data = io.BytesIO()
    Image.effect_noise(size, 80).convert("RGB").save(data, kind)
    return data.getvalue()


def base64_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


def problem(answer: requests.Response, status: int, code: str) -> str:
    """Check that an answer is a problem of this kind; return its detail."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert (body["status"], body["code"]) == (status, code)
    assert body["request_id"] == answer.headers["x-request-id"]
    assert "Traceback" not in answer.text
    return str(body["detail"])


def test_every_row_of_predictions_comes_out_the_same(api: Api, trained: Path) -> None:
    raw = trained / "data" / "raw"
    rows = pd.read_csv(raw / "X_test.csv", dtype=str, keep_default_na=False)
    stage = pd.read_csv(trained / "data" / "processed" / "predictions.csv")
    products = []
    for row in rows.to_dict("records"):
        picture = raw / "images" / "image_test" / image_name(row["imageid"], row["productid"])
        products.append(
            {
                "designation": row["designation"],
                "description": row["description"],
                "picture": base64_of(picture.read_bytes()),
            }
        )
    together = post(f"{api.url}/predict/batch", json={"products": products}).json()
    alone = [post(f"{api.url}/predict", json=product).json() for product in products]
    assert {together["model_version"], *(each["model_version"] for each in alone)} == set(stage["model_version"])
    for found in (together["predictions"], alone):
        assert [each["prdtypecode"] for each in found] == stage["predicted_prdtypecode"].tolist()
        assert [each["needs_review"] for each in found] == stage["needs_review"].tolist()
        assert {each["picture"] for each in found} == {"used"}
        assert [each["confidence"] for each in found] == stage["confidence"].tolist()
        assert [each["top"][2]["prdtypecode"] for each in found] == stage["third_prdtypecode"].tolist()


def test_json_and_form_say_the_same(api: Api) -> None:
    picture = jpeg()
    form = unnamed(post(f"{api.url}/predict", data=POOL | {"top_k": "5"}, files={"picture": picture}))
    body = POOL | {"picture": base64_of(picture), "top_k": 5}
    assert unnamed(post(f"{api.url}/predict", json=body)) == form
    assert len(form["top"]) == 5
    assert form["top"][0]["confidence"] == form["confidence"]
    without = post(f"{api.url}/predict", data=POOL, files={"picture": ("", b"")}).json()
    assert without["picture"] == "none"


def test_an_explanation_says_what_spoke(api: Api, trained: Path) -> None:
    picture = next((trained / "data" / "raw" / "images" / "image_test").iterdir()).read_bytes()
    found = post(f"{api.url}/explain", data=POOL, files={"picture": picture}).json()
    assert [view["view"] for view in found["views"]] == ["words", "meaning", "picture"]
    assert sum(view["share"] for view in found["views"]) == pytest.approx(1)
    assert all(term["contribution"] > 0 for term in found["spoke_for"])
    assert all(term["contribution"] < 0 for term in found["spoke_against"])
    assert len(found["pictures"]) == 5
    assert found["prediction"].pop("prediction_id")
    assert found["prediction"] == unnamed(post(f"{api.url}/predict", data=POOL, files={"picture": picture}))


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"no picture", "unusable: not an image"),
        (jpeg()[:1500], "unusable: truncated"),
        (jpeg(kind="PNG"), "used"),
        (b"\x89PNG\r\n\x1a\n" + b"\0\0\0\rIHDR\0\0\xff\xff\0\0\xff\xff\x08\x02\0\0\0" + b"\0" * 20, "unusable: "),
    ],
)
def test_a_picture_that_cannot_be_used_does_not_cost_the_prediction(api: Api, data: bytes, word: str) -> None:
    found = post(f"{api.url}/predict", data=POOL, files={"picture": data}).json()
    assert found["picture"].startswith(word)
    assert found["prdtypecode"] == 2583 or word == "used"


def test_what_is_not_understood_is_said(api: Api) -> None:
    url = f"{api.url}/predict"
    as_json = {"Content-Type": "application/json"}
    assert problem(post(url, json={}), 422, "invalid_request") == "designation: Field required"
    assert "valid string" in problem(post(url, json={"designation": 5}), 422, "invalid_request")
    assert "colour" in problem(post(url, json=POOL | {"colour": 1}), 422, "invalid_request")
    assert "top_k" in problem(post(url, json=POOL | {"top_k": 28}), 422, "invalid_request")
    assert "base64" in problem(post(url, json=POOL | {"picture": "%"}), 422, "invalid_request")
    assert "JSON" in problem(post(url, data="{", headers=as_json), 422, "invalid_request")
    problem(post(url, data=b"\xff", headers=as_json), 422, "invalid_request")
    problem(post(url, data='{"designation": "\\ud800"}', headers=as_json), 422, "invalid_request")
    problem(post(url, data="x"), 415, "unsupported_media_type")
    problem(post(f"{api.url}/predict/batch", data=POOL), 415, "unsupported_media_type")
    problem(post(f"{api.url}/predict/batch", json={"products": []}), 422, "invalid_request")
    problem(get(url), 405, "method_not_allowed")
    problem(get(f"{api.url}/nothing"), 404, "not_found")
    problem(get(f"{api.url}/static/../app.py"), 404, "not_found")
    twice = [("designation", (None, "a")), ("designation", (None, "b"))]
    assert "twice" in problem(post(url, files=twice), 422, "invalid_request")
    broken = {"Content-Type": "multipart/form-data; boundary=x"}
    problem(post(url, data=b"--x\r\nnonsense", headers=broken), 422, "invalid_request")


def test_what_is_too_large_is_refused(api: Api, start: Callable[..., Api]) -> None:
    url = f"{api.url}/predict"
    assert "50,000" in problem(post(url, json={"designation": "a" * 50_001}), 422, "invalid_request")
    many = {"products": [POOL] * 101}
    assert "100" in problem(post(f"{api.url}/predict/batch", json=many), 413, "batch_too_large")
    large = base64_of(bytes(10_000_001))
    problem(post(url, json=POOL | {"picture": large}), 413, "picture_too_large")
    small = start(API_MAX_BODY_MB="0.01", API_MAX_PICTURE_MB="0.005")
    problem(post(f"{small.url}/predict", json={"designation": "a" * 20_000}), 413, "body_too_large")
    # Sent in pieces, without a length to go by.
    pieces = (b'{"designation": "' if at == 0 else b"a" * 5_000 for at in range(5))
    answer = post(f"{small.url}/predict", data=pieces, headers={"Content-Type": "application/json"})
    problem(answer, 413, "body_too_large")
    assert post(f"{small.url}/predict", json=POOL).status_code == 200


def test_every_answer_has_its_headers_and_its_id(api: Api) -> None:
    for path in ("/", "/health", "/model", "/metrics", "/nothing", "/openapi.json"):
        answer = get(api.url + path, headers={"X-Request-ID": "given-1"})
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-request-id"] == "given-1"
        assert "access-control-allow-origin" not in answer.headers
        assert "server" not in answer.headers
    odd = get(f"{api.url}/health", headers={"X-Request-ID": "a b\tc"})
    assert odd.headers["x-request-id"] != "a b\tc"
    # A page of another host, its name bent to this machine, is not answered.
    elsewhere = get(f"{api.url}/model", headers={"Host": f"evil.example:{api.port}"})
    problem(elsewhere, 403, "host_not_allowed")


def test_the_log_has_each_request_and_no_product(api: Api, start: Callable[..., Api]) -> None:
    secret = {"designation": "Confidentiel 7f3a", "description": ""}
    telling = start(API_LOG_TEXT="true")
    for server in (api, telling):
        answer = post(f"{server.url}/predict", json=secret)
        time.sleep(0.2)
        lines = [line for line in server.log.read_text().splitlines() if answer.headers["x-request-id"] in line]
        (line,) = map(json.loads, lines)
        assert (line["method"], line["route"], line["status"], line["client"]) == ("POST", "/predict", 200, "127.0.0.1")
        assert ("Confidentiel" in server.log.read_text()) == (server is telling)


def test_the_model_says_where_it_comes_from(api: Api, trained: Path) -> None:
    about = get(f"{api.url}/model").json()
    metrics = json.loads((trained / "models" / "metrics.json").read_text())
    assert about["source"] == "local"
    assert about["scores"]["weighted_f1"] == metrics["weighted_f1"]
    assert about["synthetic"] is True
    assert about["run_id"] == json.loads((trained / "models" / "run.json").read_text())["run_id"]
    assert set(about["data"]) >= {"data/raw/X_train.csv", "data/raw/images", "data/processed/train_features.csv"}
    assert len(about["classes"]) == 27
    assert about["classes"][0] == {"prdtypecode": 10, "label": "livres d'occasion"}


def test_metrics_count_what_happened(api: Api) -> None:
    def value(name: str) -> float:
        lines = get(f"{api.url}/metrics").text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))

    names = (
        'rakuten_api_requests_total{route="/predict",status="200"}',
        'rakuten_api_request_duration_seconds_count{modality="picture",route="/predict"}',
        'rakuten_api_predictions_total{prdtypecode="',
        "rakuten_api_confidence_count",
        'rakuten_api_pictures_total{outcome="used"}',
        'rakuten_api_problems_total{code="invalid_request"}',
    )
    before = [value(name) for name in names]
    post(f"{api.url}/predict", data=POOL, files={"picture": jpeg()})
    post(f"{api.url}/predict", json={})
    assert [value(name) - old for name, old in zip(names, before, strict=True)] == [1] * len(names)
    assert value("rakuten_api_waiting_products") == 0
    assert 'rakuten_api_model_info{registry_version="",source="local",version="' in get(f"{api.url}/metrics").text


def test_keys_are_asked_for_off_loopback_and_can_be_revoked(
    start: Callable[..., Api], trained: Path, tmp_path: Path
) -> None:
    assert not ApiSettings().asks_for_keys
    assert ApiSettings(host="0.0.0.0").asks_for_keys
    assert not ApiSettings(host="::1").asks_for_keys
    assert [is_loopback(host) for host in ("localhost", "127.0.0.9", "10.0.0.1", "example.com")] == [
        True,
        True,
        False,
        False,
    ]

    file = tmp_path / "keys.txt"
    make = {name: run_in(trained, "python", "-m", "rakuten", "keys", name, API_KEYS_FILE=str(file)) for name in "ab"}
    key = {name: said.splitlines()[0] for name, said in make.items()}
    assert key["a"] not in file.read_text()
    assert file.stat().st_mode & 0o077 == 0
    assert "has a key" in run_in(trained, "python", "-m", "rakuten", "keys", "a", code=1, API_KEYS_FILE=str(file))

    server = start(API_REQUIRE_KEYS="true", API_KEYS_FILE=str(file))
    url = f"{server.url}/predict"
    for headers in ({}, {"X-API-Key": "wrong"}, {"X-API-Key": key["a"] + "x"}, {"Authorization": "Bearer "}):
        problem(post(url, json=POOL, headers=headers), 401, "unauthorized")
    for headers in ({"X-API-Key": key["a"]}, {"Authorization": f"Bearer {key['b']}"}):
        assert post(url, json=POOL, headers=headers).status_code == 200
    for path, status in (("/", 200), ("/health", 200), ("/ready", 200), ("/model", 401), ("/metrics", 401)):
        assert get(server.url + path).status_code == status
    assert '"client": "a"' in server.log.read_text()

    file.write_text("".join(line for line in file.read_text().splitlines(keepends=True) if line.startswith("b:")))
    problem(post(url, json=POOL, headers={"X-API-Key": key["a"]}), 401, "unauthorized")
    assert post(url, json=POOL, headers={"X-API-Key": key["b"]}).status_code == 200
    file.unlink()
    problem(post(url, json=POOL, headers={"X-API-Key": key["b"]}), 401, "unauthorized")


def test_a_line_that_is_no_key_lets_nobody_in(caplog: pytest.LogCaptureFixture) -> None:
    good = "a" * 64
    assert keys.parse_keys(f"# who\none:{good}\n\ntwo:{good[1:]}\nthree\n") == {"one": good}
    assert caplog.text.count("is left out") == 2


def test_too_many_requests_are_told_when_to_come_back(start: Callable[..., Api]) -> None:
    server = start(API_RATE_PER_MINUTE="5")  # the fixture's own questions count too
    answers = [get(f"{server.url}/model") for _ in range(7)]
    assert answers[0].status_code in (200, 429)
    problem(answers[-1], 429, "rate_limited")
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 60


def test_more_than_can_be_scored_is_sent_away_and_nothing_else_breaks(start: Callable[..., Api]) -> None:
    server = start(API_QUEUE="8")
    picture = base64_of(jpeg((500, 500)))

    def ask(_: int) -> requests.Response:
        return post(f"{server.url}/predict", json=POOL | {"picture": picture})

    with ThreadPoolExecutor(48) as clients:
        answers = list(clients.map(ask, range(300)))
    statuses = {answer.status_code for answer in answers}
    assert statuses == {200, 503}
    for answer in answers:
        if answer.status_code == 503:
            problem(answer, 503, "overloaded")
            assert int(answer.headers["retry-after"]) >= 1
    assert ask(0).status_code == 200


def test_a_stop_finishes_what_is_in_flight(start: Callable[..., Api]) -> None:
    server = start()
    batch: dict[str, Any] = {"products": [POOL | {"picture": base64_of(jpeg((300, 300)))}] * 60}
    answers: list[requests.Response] = []
    thread = threading.Thread(target=lambda: answers.append(post(f"{server.url}/predict/batch", json=batch)))
    thread.start()
    until = time.monotonic() + 20
    while "rakuten_api_waiting_products 60" not in get(f"{server.url}/metrics").text:
        assert time.monotonic() < until
    assert server.stop() == 0
    thread.join(60)
    assert answers[0].status_code == 200
    assert len(answers[0].json()["predictions"]) == 60
    assert "stopped" in server.log.read_text()
    assert "Traceback" not in server.log.read_text()


def test_a_port_that_is_taken_and_a_model_that_is_absent_are_said_in_a_line(
    api: Api, trained: Path, tmp_path: Path
) -> None:
    command = ("python", "-m", "rakuten", "serve")
    said = run_in(trained, *command, code=1, API_PORT=str(api.port))
    assert f"ERROR serving: 127.0.0.1:{api.port}: Address already in use" in said
    said = run_in(trained, *command, code=1, API_MODELS=str(tmp_path), API_PORT="8765")
    assert "no model; make one with `make run`" in said
    assert "API_QUEUE: Input should be greater than 0" in run_in(trained, *command, code=1, API_QUEUE="0")
