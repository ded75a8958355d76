"""The API's own metrics: their names, and what they count."""

from collections.abc import Callable

import pytest
from prometheus_client import generate_latest

from rakuten.serving.metrics import ApiMetrics
from tests.support.api import POOL, Api, get, jpeg, post
from tests.support.servers import wait_for

NAMES = {  # with the type; dashboards and alerts use them
    "rakuten_api_requests_total": "counter",
    "rakuten_api_request_duration_seconds": "histogram",
    "rakuten_api_problems_total": "counter",
    "rakuten_api_predictions_total": "counter",
    "rakuten_api_confidence": "histogram",
    "rakuten_api_to_review_total": "counter",
    "rakuten_api_pictures_total": "counter",
    "rakuten_api_waiting_products": "gauge",
    "rakuten_api_batch_products": "histogram",
    "rakuten_api_model_info": "gauge",
    "rakuten_api_model_loaded_timestamp_seconds": "gauge",
    "rakuten_api_champion_refused": "gauge",
    "rakuten_api_champion_looks_failed_total": "counter",
    "rakuten_api_live_log_dropped_rows_total": "counter",
    "rakuten_api_live_log_lag_seconds": "gauge",
    "rakuten_api_review_dropped_products_total": "counter",
    "rakuten_api_novel_total": "counter",
}


def test_the_metrics_have_their_names_and_types() -> None:
    lines = generate_latest(ApiMetrics().registry).decode().splitlines()
    types = dict(line.split()[2:] for line in lines if line.startswith("# TYPE"))
    assert {name: kind for name, kind in types.items() if not name.endswith("_created")} == NAMES


def test_two_applications_count_apart() -> None:
    first, second = ApiMetrics(), ApiMetrics()
    first.needs_review.inc()
    assert first.registry.get_sample_value("rakuten_api_to_review_total") == 1
    assert second.registry.get_sample_value("rakuten_api_to_review_total") == 0


@pytest.fixture
def sample_sum(api: Api) -> Callable[[str], float]:
    """The sum of the samples that begin with a name and labels, as the server exposes them."""

    def value(name: str) -> float:
        lines = get(f"{api.url}/metrics").text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))

    return value


def test_a_prediction_is_counted(api: Api, sample_sum: Callable[[str], float]) -> None:
    names = (
        'rakuten_api_requests_total{route="/predict",status="200"}',
        'rakuten_api_request_duration_seconds_count{modality="picture",route="/predict"}',
        'rakuten_api_predictions_total{prdtypecode="',
        "rakuten_api_confidence_count",
        'rakuten_api_pictures_total{outcome="used"}',
        "rakuten_api_batch_products_sum",
    )
    before = [sample_sum(name) for name in names]
    answer = post(f"{api.url}/predict", data=POOL, files={"picture": jpeg()}).json()
    review, novel = sample_sum("rakuten_api_to_review_total"), sample_sum("rakuten_api_novel_total")
    assert [sample_sum(name) - old for name, old in zip(names, before, strict=True)] == [1] * len(names)
    # A moment after the answer: the thread that scored counts down after it has handed its result over.
    wait_for(lambda: sample_sum("rakuten_api_waiting_products") == 0, "no product to wait", 10)
    again = post(f"{api.url}/predict", data=POOL, files={"picture": jpeg()}).json()
    assert sample_sum("rakuten_api_to_review_total") - review == again["needs_review"]
    assert sample_sum("rakuten_api_novel_total") - novel == again["is_novel"]
    assert answer["picture"] == "used"


@pytest.mark.parametrize(
    ("modality", "path", "body"),
    [
        ("text", "/predict", POOL),
        ("batch", "/predict/batch", {"products": [POOL, POOL]}),
        ("text", "/predict/batch", {"products": [POOL]}),
    ],
)
def test_latency_is_told_apart_by_modality(
    api: Api, sample_sum: Callable[[str], float], modality: str, path: str, body: object
) -> None:
    name = f'rakuten_api_request_duration_seconds_count{{modality="{modality}",route="{path}"}}'
    before = sample_sum(name)
    assert post(api.url + path, json=body).status_code == 200
    assert sample_sum(name) - before == 1


def test_a_problem_is_counted_by_its_code(api: Api, sample_sum: Callable[[str], float]) -> None:
    names = (
        'rakuten_api_problems_total{code="invalid_request"}',
        'rakuten_api_requests_total{route="/predict",status="422"}',
    )
    before = [sample_sum(name) for name in names]
    post(f"{api.url}/predict", json={})
    assert [sample_sum(name) - old for name, old in zip(names, before, strict=True)] == [1, 1]


def test_the_model_that_answers_is_named(api: Api) -> None:
    version = get(f"{api.url}/model").json()["model_version"]
    info = f'rakuten_api_model_info{{registry_version="",source="local",version="{version}"}} 1.0'
    assert info in get(f"{api.url}/metrics").text.splitlines()
