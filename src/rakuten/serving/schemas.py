"""What goes in and comes out, with examples: the OpenAPI document is made of these."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

TITLE = "Piscine gonflable ronde 360 cm"
DESCRIPTION = "<p>Avec pompe de filtration</p>"


class ProductIn(BaseModel):
    """One product as a seller gives it. An empty title, an empty description and no picture is a product too."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"designation": TITLE, "description": DESCRIPTION}]}
    )

    designation: str = Field(description="title")
    description: str | None = Field(None, description="may hold HTML")
    picture: str | None = Field(None, description="a picture file in base64: JPEG, PNG, GIF, WebP, BMP or TIFF")
    top_k: Annotated[int, Field(ge=1, le=27, description="how many codes to rank")] = 3


class BatchIn(BaseModel):
    model_config = ConfigDict(extra="forbid")

    products: Annotated[list[ProductIn], Field(min_length=1)]


class Choice(BaseModel):
    prdtypecode: int
    label: str
    confidence: float


class Prediction(Choice):
    prediction_id: str = Field(description="what the live log knows it by: name it when the true code is known")
    top: list[Choice] = Field(description="the likeliest codes, the likeliest first")
    needs_review: bool = Field(description="whether a person should look: the confidence is below the threshold")
    picture: str = Field(description="none, used, or `unusable: ` and why")


class PredictionOut(Prediction):
    model_version: str
    run_id: str | None = Field(description="the MLflow run that made the model; null where it is not known here")


class BatchOut(BaseModel):
    predictions: list[Prediction]
    model_version: str
    run_id: str | None


class ViewContribution(BaseModel):
    view: str = Field(description="words, meaning or picture")
    contribution: float = Field(description="log-odds of the code against the average code")
    share: float


class TermContribution(BaseModel):
    columns: str
    analyzer: str
    term: str
    contribution: float


class SimilarImage(BaseModel):
    productid: int
    imageid: int
    prdtypecode: int
    label: str
    similarity: float


class ExplanationOut(BaseModel):
    prediction: PredictionOut
    views: list[ViewContribution]
    spoke_for: list[TermContribution]
    spoke_against: list[TermContribution]
    pictures: list[SimilarImage] = Field(description="training products whose pictures are most alike")


class Label(BaseModel):
    prdtypecode: int
    label: str


class Limits(BaseModel):
    batch: int
    picture_bytes: int
    text_characters: int


class ModelOut(BaseModel):
    model_version: str
    run_id: str | None
    source: str
    registry_version: str | None
    trained_at: str | None
    git_commit: str | None
    data: dict[str, str] = Field(description="MD5 of each file it was trained on, as DVC has it")
    scores: dict[str, float] = Field(description="out of fold")
    synthetic: bool = Field(description="trained on the sample catalogue: its scores say nothing of real products")
    target_precision: float
    threshold: float
    classes: list[Label]
    views: list[str]
    limits: Limits


class Status(BaseModel):
    status: str


class ProblemOut(BaseModel):
    """RFC 9457; `code` is stable."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str


PROBLEMS: dict[int | str, dict[str, Any]] = {
    code: {"model": ProblemOut, "content": {"application/problem+json": {}}, "description": text}
    for code, text in (
        (401, "an API key is asked for"),
        (413, "too large"),
        (415, "neither JSON nor a form"),
        (422, "not understood"),
        (429, "too many requests"),
        (503, "overloaded, or not ready"),
    )
}
