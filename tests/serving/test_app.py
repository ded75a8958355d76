"""The routes over real HTTP, on a real model: predictions, explanations, errors, start and stop."""

import contextlib
import http.client
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import requests

from rakuten.data.schema import image_name
from rakuten.models.classifier import CHOICE_COLUMNS
from tests.support.api import POOL, Api, base64_of, check_problem, get, jpeg, post, unnamed
from tests.support.servers import wait_for

# predictions


@pytest.fixture(scope="module")
def test_products(trained: Path) -> list[dict[str, str]]:
    """The products of X_test.csv, as the API takes them."""
    raw = trained / "data" / "raw"
    rows = pd.read_csv(raw / "X_test.csv", dtype=str, keep_default_na=False)
    images = raw / "images" / "image_test"
    return [
        {
            "designation": row["designation"],
            "description": row["description"],
            "picture": base64_of((images / image_name(row["imageid"], row["productid"])).read_bytes()),
        }
        for row in rows.to_dict("records")
    ]


@pytest.mark.parametrize("batched", [True, False])
def test_the_api_predicts_what_the_predict_stage_predicted(
    api: Api, trained: Path, test_products: list[dict[str, str]], batched: bool
) -> None:
    stage = pd.read_csv(trained / "data" / "processed" / "predictions.csv")
    products = [product | {"top_k": len(CHOICE_COLUMNS)} for product in test_products]
    if batched:
        body = post(f"{api.url}/predict/batch", json={"products": products}).json()
        predictions, versions = body["predictions"], {body["model_version"]}
    else:
        predictions = [post(f"{api.url}/predict", json=product).json() for product in products]
        versions = {prediction["model_version"] for prediction in predictions}
    assert versions == set(stage["model_version"])
    assert {prediction["picture"] for prediction in predictions} == {"used"}
    assert [prediction["prdtypecode"] for prediction in predictions] == stage["predicted_prdtypecode"].tolist()
    assert [prediction["label"] for prediction in predictions] == stage["label"].tolist()
    assert [prediction["confidence"] for prediction in predictions] == stage["confidence"].tolist()
    assert [prediction["needs_review"] for prediction in predictions] == stage["needs_review"].tolist()
    assert [prediction["is_novel"] for prediction in predictions] == stage["is_novel"].tolist()
    novelty = [np.nan if prediction["novelty"] is None else prediction["novelty"] for prediction in predictions]
    assert novelty == pytest.approx(stage["novelty"].tolist(), nan_ok=True, abs=1e-6)
    for rank, (code, confidence) in enumerate(CHOICE_COLUMNS):
        choices = [prediction["top"][rank] for prediction in predictions]
        assert [choice["prdtypecode"] for choice in choices] == stage[code].tolist()
        assert [choice["confidence"] for choice in choices] == stage[confidence].tolist()


def test_json_and_form_are_answered_alike(api: Api) -> None:
    image = jpeg()
    form = unnamed(post(f"{api.url}/predict", data=POOL | {"top_k": "5"}, files={"picture": image}))
    assert unnamed(post(f"{api.url}/predict", json=POOL | {"picture": base64_of(image), "top_k": 5})) == form
    assert form["picture"] == "used"


@pytest.mark.parametrize("top_k", [27, 28, 10**9])
def test_the_most_probable_codes_are_ranked_up_to_all(top_k: int, api: Api) -> None:
    prediction = post(f"{api.url}/predict", json=POOL | {"top_k": top_k}).json()
    confidences = [choice["confidence"] for choice in prediction["top"]]
    assert len(confidences) == 27
    assert confidences == sorted(confidences, reverse=True)
    assert sum(confidences) == pytest.approx(1, abs=27e-6)
    first = {key: prediction[key] for key in ("prdtypecode", "label", "confidence")}
    assert prediction["top"][0] == first


def test_each_product_of_a_batch_has_its_own_number_of_codes(api: Api) -> None:
    products = [POOL | {"top_k": count} for count in (1, 4, 2)]
    predictions = post(f"{api.url}/predict/batch", json={"products": products}).json()["predictions"]
    assert [len(prediction["top"]) for prediction in predictions] == [1, 4, 2]
    assert len({prediction["prediction_id"] for prediction in predictions}) == 3


def test_a_repeated_request_id_gives_another_prediction_id(api: Api) -> None:
    answers = [post(f"{api.url}/predict", json=POOL, headers={"X-Request-ID": "same"}) for _ in range(2)]
    assert {answer.headers["x-request-id"] for answer in answers} == {"same"}
    assert len({answer.json()["prediction_id"] for answer in answers}) == 2


def test_an_explanation_has_views_terms_and_similar_images(api: Api, trained: Path) -> None:
    image = next((trained / "data" / "raw" / "images" / "image_test").iterdir()).read_bytes()
    explanation = post(f"{api.url}/explain", data=POOL, files={"picture": image}).json()
    assert [view["view"] for view in explanation["views"]] == ["words", "meaning", "picture"]
    assert sum(view["share"] for view in explanation["views"]) == pytest.approx(1)
    assert all(term["contribution"] > 0 for term in explanation["spoke_for"])
    assert all(term["contribution"] < 0 for term in explanation["spoke_against"])
    assert len(explanation["pictures"]) == 5
    assert explanation["prediction"].pop("prediction_id")
    assert explanation["prediction"] == unnamed(post(f"{api.url}/predict", data=POOL, files={"picture": image}))


@pytest.mark.parametrize(
    ("image", "state"),
    [
        (b"no picture", "unusable: not an image"),
        (jpeg()[:1500], "unusable: truncated"),
        (b"\x89PNG\r\n\x1a\n" + b"\0\0\0\rIHDR\0\0\xff\xff\0\0\xff\xff\x08\x02\0\0\0" + b"\0" * 20, "unusable: "),
    ],
)
def test_a_product_with_an_unusable_picture_is_predicted_from_its_text(api: Api, image: bytes, state: str) -> None:
    prediction = unnamed(post(f"{api.url}/predict", data=POOL, files={"picture": image}))
    assert prediction["picture"].startswith(state)
    text_only = unnamed(post(f"{api.url}/predict", json=POOL))
    assert text_only["picture"] == "none"
    assert prediction | {"picture": "none"} == text_only


def test_a_png_is_used_too(api: Api) -> None:
    assert post(f"{api.url}/predict", data=POOL, files={"picture": jpeg(kind="PNG")}).json()["picture"] == "used"


# errors


@pytest.mark.parametrize(
    ("method", "path", "kwargs", "status", "code"),
    [
        ("POST", "/predict", {"json": {}}, 422, "invalid_request"),
        ("POST", "/predict", {"data": "{", "headers": {"Content-Type": "application/json"}}, 422, "invalid_request"),
        ("POST", "/predict", {"json": {"designation": "a" * 50_001}}, 422, "invalid_request"),
        ("POST", "/predict", {"data": "x"}, 415, "unsupported_media_type"),
        ("POST", "/predict", {"data": POOL, "files": {"picture": bytes(10_000_001)}}, 413, "picture_too_large"),
        ("POST", "/explain", {"json": {}}, 422, "invalid_request"),
        ("POST", "/predict/batch", {"data": POOL}, 415, "unsupported_media_type"),
        ("POST", "/predict/batch", {"json": {"products": []}}, 422, "invalid_request"),
        ("POST", "/predict/batch", {"json": {"products": [POOL] * 101}}, 413, "batch_too_large"),
        ("GET", "/predict", {}, 405, "method_not_allowed"),
        ("GET", "/nothing", {}, 404, "not_found"),
    ],
)
def test_an_error_is_a_problem(
    api: Api, method: str, path: str, kwargs: dict[str, Any], status: int, code: str
) -> None:
    check_problem(requests.request(method, api.url + path, timeout=60, **kwargs), status, code)


def test_a_form_that_is_broken_is_a_problem(api: Api) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    check_problem(post(f"{api.url}/predict", data=b"--x\r\nnonsense", headers=headers), 422, "invalid_request")


@pytest.mark.parametrize("path", ["/static/../app.py", "/static/%2e%2e/app.py", "/static//etc/passwd"])
def test_no_file_outside_the_page_is_served(api: Api, path: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", api.port, timeout=10)  # sends the path as it is
    with contextlib.closing(connection):
        connection.request("GET", path)
        assert connection.getresponse().status == 404


# state


def test_the_server_is_alive_and_ready(api: Api) -> None:
    assert get(f"{api.url}/health").json() == {"status": "alive"}
    assert get(f"{api.url}/ready").json() == {"status": "ready"}


def test_the_page_is_served(api: Api) -> None:
    answer = get(f"{api.url}/")
    assert answer.headers["content-type"].startswith("text/html")
    assert answer.headers["cache-control"] == "no-cache"
    assert get(f"{api.url}/static/page.js").status_code == 200


def test_the_model_has_its_origin_and_scores(api: Api, trained: Path) -> None:
    model = get(f"{api.url}/model").json()
    metrics = json.loads((trained / "models" / "scores.json").read_text())
    assert model["source"] == "local"
    assert model["registry_version"] is None
    assert model["scores"]["weighted_f1"] == metrics["weighted_f1"]
    assert model["synthetic"] is True
    assert model["run_id"] == json.loads((trained / "models" / "run.json").read_text())["run_id"]
    assert set(model["data"]) >= {"data/raw/X_train.csv", "data/raw/images", "data/processed/train_groups.npy"}


def test_the_model_has_its_classes_views_and_limits(api: Api) -> None:
    model = get(f"{api.url}/model").json()
    assert len(model["classes"]) == 27
    names = {"fr": "livres d'occasion", "en": "second-hand books"}
    assert model["classes"][0] == {"prdtypecode": 10, "label": names["fr"], "names": names, "parent": "books"}
    assert model["views"] == ["words", "meaning", "picture"]
    assert model["limits"] == {"batch": 100, "picture_bytes": 10_000_000, "text_characters": 50_000}


@pytest.mark.parametrize(("wanted", "language"), [("en-GB,fr;q=0.5", "en"), ("de", "fr")])
def test_names_are_in_the_readers_language(wanted: str, language: str, api: Api) -> None:
    headers = {"accept-language": wanted}
    model = get(f"{api.url}/model", headers=headers)
    names = {each["prdtypecode"]: each["names"][language] for each in model.json()["classes"]}
    assert {each["prdtypecode"]: each["label"] for each in model.json()["classes"]} == names
    answers = [
        post(f"{api.url}/predict", json=POOL, headers=headers),
        post(f"{api.url}/predict/batch", json={"products": [POOL]}, headers=headers),
        post(f"{api.url}/explain", json=POOL | {"picture": base64_of(jpeg())}, headers=headers),
    ]
    single, batch, explained = (answer.json() for answer in answers)
    choices = [*single["top"], *batch["predictions"][0]["top"], *explained["prediction"]["top"], *explained["pictures"]]
    assert len(choices) > 9
    assert {choice["label"] for choice in choices} <= set(names.values())
    assert all(choice["label"] == names[choice["prdtypecode"]] for choice in [single, *choices])
    for answer in [model, *answers]:
        assert (answer.headers["content-language"], answer.headers["vary"]) == (language, "accept-language")


def test_a_product_to_review_has_its_parent_where_the_model_is_sure_of_it(api: Api, trained: Path) -> None:
    """As in predictions.csv."""
    names = {"": None, "home": "maison", "toys": "jouets, loisirs et enfance", "books": "livres et presse"}
    predictions = pd.read_csv(trained / "data" / "processed" / "predictions.csv", keep_default_na=False)
    products = pd.read_csv(trained / "data" / "raw" / "X_test.csv", keep_default_na=False)
    assert set(predictions["parent"]) > {""}
    assert (predictions.loc[~predictions["needs_review"], "parent"] == "").all()
    rows = predictions.index[predictions["parent"].isin(names)][:5]
    for row in rows:
        texts = products.loc[row, ["designation", "description"]].to_dict()
        name = image_name(products.loc[row, "imageid"], products.loc[row, "productid"])
        image = (trained / "data" / "raw" / "images" / "image_test" / name).read_bytes()
        answer = post(f"{api.url}/predict", json=texts | {"picture": base64_of(image)}).json()
        key = predictions.loc[row, "parent"]
        assert answer["parent"] == ({"key": key, "label": names[key]} if key else None)


# stop


def test_a_stop_finishes_the_requests_in_flight(start: Callable[..., Api]) -> None:
    server = start()
    batch: dict[str, Any] = {"products": [POOL | {"picture": base64_of(jpeg((300, 300)))}] * 60}
    answers: list[requests.Response] = []
    client = threading.Thread(target=lambda: answers.append(post(f"{server.url}/predict/batch", json=batch)))
    client.start()
    in_flight = "rakuten_api_waiting_products 60"
    wait_for(lambda: in_flight in get(f"{server.url}/metrics").text, "the batch in the queue", 20, interval=0.01)
    assert server.stop() == 0
    client.join(60)
    assert answers[0].status_code == 200
    assert len(answers[0].json()["predictions"]) == 60
    assert "stopped" in server.log.read_text()
    assert "Traceback" not in server.log.read_text()
