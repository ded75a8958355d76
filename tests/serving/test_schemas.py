"""The OpenAPI document, and the bodies that it promises."""

from collections.abc import Iterator
from typing import Any, cast

import pytest
from fastapi import FastAPI
from pydantic import BaseModel

from rakuten.serving import schemas
from rakuten.serving.app import _add_prediction_routes, _add_state_routes, _complete_document
from rakuten.serving.middleware import PUBLIC_PATHS
from rakuten.serving.service import Service
from tests.support.api import POOL, Api, get, jpeg, post


@pytest.fixture(scope="module")
def document(api: Api) -> dict[str, Any]:
    body: dict[str, Any] = get(f"{api.url}/openapi.json").json()
    return body


def references(node: Any) -> Iterator[str]:
    """Every $ref in a document."""
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        node = list(node.values())
    if isinstance(node, list):
        for child in node:
            yield from references(child)


def test_request_schemas_are_added_to_a_document() -> None:
    document = schemas.add_request_schemas({"components": {"schemas": {"Other": {}}}})
    assert set(document["components"]["schemas"]) == {"Other", "ProductIn", "BatchIn"}
    batch = document["components"]["schemas"]["BatchIn"]
    assert batch["properties"]["products"]["items"] == {"$ref": "#/components/schemas/ProductIn"}
    assert "$defs" not in batch


def test_paths_that_need_a_key_say_so_and_swagger_has_a_field_for_it() -> None:
    document: dict[str, Any] = {"components": {}, "paths": {"/predict": {"post": {}}, "/health": {"get": {}}}}
    document = schemas.add_security(schemas.add_security(document, PUBLIC_PATHS), PUBLIC_PATHS)
    schemes = document["components"]["securitySchemes"]
    assert schemes["X-API-Key"] | {"description": ""} == {
        "type": "apiKey", "in": "header", "name": "X-API-Key", "description": "",
    }  # fmt: skip
    assert document["paths"]["/predict"]["post"]["security"] == [{name: []} for name in schemes]
    assert document["paths"]["/predict"]["post"]["description"] == "Needs a key of the role classify or above."
    assert document["paths"]["/health"]["get"] == {}


@pytest.mark.parametrize("keys_required", [True, False])
def test_the_document_asks_for_a_key_only_where_one_is_required(keys_required: bool) -> None:
    app = FastAPI()
    service = cast("Service", None)  # only a request needs it
    _add_prediction_routes(app, service)
    _add_state_routes(app, service)
    _complete_document(app, keys_required)
    document = app.openapi()
    assert ("securitySchemes" in document["components"]) == keys_required
    assert {path for path, item in document["paths"].items() if "'security'" in str(item)} == (
        {"/predict", "/explain", "/predict/batch", "/model", "/metrics", "/training-pictures/{imageid}/{productid}"}
        if keys_required
        else set()
    )


def test_a_form_has_the_fields_of_a_product() -> None:
    form = schemas.PRODUCT_BODY["requestBody"]["content"]["multipart/form-data"]["schema"]
    product = schemas.ProductIn.model_json_schema()
    assert set(form["properties"]) == set(product["properties"])
    assert form["required"] == product["required"]
    for limit in ("minimum", "default"):
        assert form["properties"]["top_k"][limit] == product["properties"]["top_k"][limit]


def test_the_examples_of_a_product_are_valid() -> None:
    for example in schemas.ProductIn.model_json_schema()["examples"]:
        schemas.ProductIn.model_validate(example)


def test_the_document_lists_the_routes_and_no_page(document: dict[str, Any]) -> None:
    routes = {(method, path) for path, item in document["paths"].items() for method in item}
    assert routes == {
        ("post", "/predict"),
        ("post", "/predict/batch"),
        ("post", "/explain"),
        ("get", "/model"),
        ("get", "/training-pictures/{imageid}/{productid}"),
        ("get", "/health"),
        ("get", "/ready"),
        ("get", "/metrics"),
        ("get", "/review/me"),
        ("get", "/review/queue"),
        ("get", "/review/counts"),
        ("get", "/review/products/{product_id}/picture"),
        ("get", "/review/products/{product_id}/explanation"),
        ("post", "/review/decisions"),
        ("post", "/review/undo"),
        ("post", "/review/products"),
        ("post", "/review/export"),
        ("get", "/review/decisions.csv"),
        ("post", "/review/decisions.csv"),
        ("get", "/review/tasks.json"),
        ("get", "/review/tasks.xml"),
        ("post", "/review/annotations"),
    }


def test_every_reference_of_the_document_leads_to_a_schema(document: dict[str, Any]) -> None:
    found = set(references(document))
    assert {f"#/components/schemas/{name}" for name in ("ProductIn", "BatchIn", "PredictionOut")} <= found
    assert found <= {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}


@pytest.mark.parametrize(
    ("path", "media_types"),
    [
        ("/predict", {"application/json", "multipart/form-data"}),
        ("/explain", {"application/json", "multipart/form-data"}),
        ("/predict/batch", {"application/json"}),
    ],
)
def test_the_document_describes_bodies_and_problems(document: dict[str, Any], path: str, media_types: set[str]) -> None:
    route = document["paths"][path]["post"]
    assert set(route["requestBody"]["content"]) == media_types
    for status in ("401", "413", "415", "422", "429", "503"):
        assert "application/problem+json" in route["responses"][status]["content"]


@pytest.mark.parametrize(
    ("path", "kwargs", "model"),
    [
        ("/predict", {"json": POOL}, schemas.PredictionOut),
        ("/predict", {"data": POOL, "files": {"picture": jpeg()}}, schemas.PredictionOut),
        ("/explain", {"data": POOL, "files": {"picture": jpeg()}}, schemas.ExplanationOut),
        ("/predict/batch", {"json": {"products": [POOL, POOL]}}, schemas.BatchOut),
        ("/predict", {"json": {}}, schemas.ProblemOut),
        ("/model", None, schemas.ModelOut),
        ("/ready", None, schemas.Status),
    ],
)
def test_responses_have_the_documented_fields_and_no_others(
    api: Api, path: str, kwargs: dict[str, Any] | None, model: type[BaseModel]
) -> None:
    body = (get(api.url + path) if kwargs is None else post(api.url + path, **kwargs)).json()
    assert model.model_validate(body).model_dump() == body
