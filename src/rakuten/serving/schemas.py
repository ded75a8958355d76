"""The bodies of requests and responses, with examples, and the OpenAPI document that is made from them."""

from collections.abc import Collection
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from rakuten.serving.roles import required_role

TITLE = "Piscine gonflable ronde 360 cm"
DESCRIPTION = "<p>Avec pompe de filtration</p>"


class ProductIn(BaseModel):
    """One product as a seller gives it. An empty title without a description or a picture is valid too."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"designation": TITLE, "description": DESCRIPTION}]}
    )

    designation: str = Field(description="title")
    description: str | None = Field(None, description="may contain HTML")
    picture: str | None = Field(None, description="a picture file in base64: JPEG, PNG, GIF or WebP")
    top_k: Annotated[int, Field(ge=1, description="how many codes to rank; all if there are fewer")] = 3


class BatchIn(BaseModel):
    """Several products, at least one."""

    model_config = ConfigDict(extra="forbid")

    products: Annotated[list[ProductIn], Field(min_length=1, fail_fast=True)]


class Choice(BaseModel):
    """One code and its calibrated confidence."""

    prdtypecode: int
    label: str = Field(description="the code's name in the language of Accept-Language: fr (the default) or en")
    confidence: float


class ParentOut(BaseModel):
    """A parent of codes in the taxonomy."""

    key: str
    label: str = Field(description="its name in the language of Accept-Language; empty if the taxonomy has it no more")


class Prediction(Choice):
    """The most probable code of a product, and the next ones."""

    prediction_id: str = Field(description="its id in the prediction log; labels that arrive later refer to it")
    top: list[Choice] = Field(description="the most probable codes, the most probable first")
    needs_review: bool = Field(
        description="whether a person should review it: the confidence is below the threshold, or the product is novel"
    )
    is_novel: bool = Field(
        description="unlike the products that the model was trained on, or like those that people said no code fits"
    )
    novelty: float | None = Field(
        description="share of ordinary products that are less unusual than this one, 0 to 1; from 1 - "
        "`novelty_false_alarms` (see /model) on, `is_novel` is true; null: not known, as for a product without text "
        "and picture, or by a model of before"
    )
    parent: ParentOut | None = Field(description="of a product to review, if the model is sure of it; null otherwise")
    picture: str = Field(description="none, used, or `unusable: ` and the reason")


class PredictionOut(Prediction):
    """One prediction and the model that made it."""

    model_version: str
    run_id: str | None = Field(description="the MLflow run that made the model; null if it is unknown")


class BatchOut(BaseModel):
    """The predictions of a batch, in the order of its products, and the model that made them."""

    predictions: list[Prediction]
    model_version: str
    run_id: str | None


class ViewContribution(BaseModel):
    """How much one view of a product counts for its code."""

    view: str = Field(description="words, meaning, picture, fine-tuned text or fine-tuned picture")
    contribution: float = Field(description="log-odds of the code against the average code")
    share: float


class TermContribution(BaseModel):
    """How much one term of the texts counts for or against the code."""

    columns: str
    analyzer: str = Field(description="of the n-gram; or `left out`: what a fine-tuned network loses without the word")
    term: str
    contribution: float


class SimilarImage(BaseModel):
    """A training product whose picture is similar."""

    productid: int
    imageid: int
    prdtypecode: int
    label: str
    similarity: float
    has_picture: bool = Field(description="whether GET /training-pictures/{imageid}/{productid} has its picture")


class ExplanationOut(BaseModel):
    """A prediction and what it is based on."""

    prediction: PredictionOut
    views: list[ViewContribution]
    spoke_for: list[TermContribution]
    spoke_against: list[TermContribution]
    pictures: list[SimilarImage] = Field(description="training products with the most similar pictures")


class NamesOut(BaseModel):
    """What a code is called; empty where the taxonomy does not have it."""

    fr: str
    en: str


class ClassOut(BaseModel):
    """A code that the model knows."""

    prdtypecode: int
    label: str = Field(description="its name in the language of Accept-Language: fr (the default) or en")
    names: NamesOut
    parent: str | None = Field(description="key of its parent in the taxonomy, such as `books`; null if it has none")


class Limits(BaseModel):
    """The largest request that is accepted."""

    batch: int
    picture_bytes: int
    text_characters: int


class LivePrecision(BaseModel):
    """The precision of the model's automatic decisions by the review desk's audit sample, as of the last check."""

    precision: float
    low: float = Field(description="of the 95 % interval")
    high: float
    labels: int = Field(description="audited products")
    promised: float


class ModelOut(BaseModel):
    """The model that answers."""

    model_version: str
    run_id: str | None
    source: str
    registry_version: str | None
    trained_at: str | None
    git_commit: str | None
    data: dict[str, str] = Field(description="MD5 of each file it was trained on, as recorded by DVC")
    scores: dict[str, float] = Field(description="out of fold")
    synthetic: bool | None = Field(
        description="trained on the sample catalogue: its scores say nothing about real products; null: not known"
    )
    target_precision: float
    threshold: float
    novelty_false_alarms: float = Field(
        description="share of ordinary products that are taken for novel, by design; 0: no product is"
    )
    live_precision: LivePrecision | None = Field(description="null: too few automatic decisions were audited")
    classes: list[ClassOut]
    views: list[str]
    limits: Limits


class Status(BaseModel):
    """The state of the server."""

    status: str


class ProblemOut(BaseModel):
    """An error as of RFC 9457; `code` is stable."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str


PROBLEM_RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"model": ProblemOut, "content": {"application/problem+json": {}}, "description": description}
    for status, description in (
        (401, "an API key is required"),
        (403, "the key's role does not allow this"),
        (413, "too large"),
        (415, "neither JSON nor a form"),
        (422, "not valid"),
        (429, "too many requests"),
        (503, "overloaded, or not ready"),
    )
}

NOT_FOUND_RESPONSE = {
    "model": ProblemOut,
    "content": {"application/problem+json": {}},
    "description": "there is no such thing",
}
SCHEMA_REF = "#/components/schemas/{model}"
PRODUCT_BODY = {  # of a route that takes one product, for `openapi_extra`
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": {"$ref": SCHEMA_REF.format(model="ProductIn")}},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["designation"],
                    "properties": {
                        "designation": {"type": "string"},
                        "description": {"type": "string"},
                        "picture": {"type": "string", "format": "binary"},
                        "top_k": {"type": "integer", "minimum": 1, "default": 3},
                    },
                }
            },
        },
    }
}


def json_body(model: str) -> dict[str, Any]:
    """What a route that takes a model as JSON says of its body, for `openapi_extra`."""
    schema = {"$ref": SCHEMA_REF.format(model=model)}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


BATCH_BODY = json_body("BatchIn")


def add_request_schemas(document: dict[str, Any], *models: type[BaseModel]) -> dict[str, Any]:
    """Add ProductIn, BatchIn and other models to an OpenAPI document, and return it.

    FastAPI lists only the models of bodies that it parses itself; here `parsing` does.
    """
    schemas = document["components"]["schemas"]
    request_models: tuple[type[BaseModel], ...] = (ProductIn, BatchIn, *models)
    for model in request_models:
        schema = model.model_json_schema(ref_template=SCHEMA_REF)
        schemas |= schema.pop("$defs", {})
        schemas[model.__name__] = schema
    return document


def add_security(document: dict[str, Any], public_paths: Collection[str]) -> dict[str, Any]:
    """Say in an OpenAPI document that all but the public paths need a key, and return it.

    Swagger UI then has a button to enter one.
    """
    document["components"]["securitySchemes"] = {
        "X-API-Key": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "from `rakuten keys NAME`"},
        "Bearer": {"type": "http", "scheme": "bearer", "description": "the same key, as `Authorization: Bearer KEY`"},
    }
    for path, operations in document["paths"].items():
        if path not in public_paths:
            for operation in operations.values():
                operation["security"] = [{"X-API-Key": []}, {"Bearer": []}]
                operation["description"] = f"Needs a key of the role {required_role(path).word} or above."
    return document
