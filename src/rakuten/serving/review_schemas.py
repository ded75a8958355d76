"""The bodies and query parameters of the review desk's routes."""

from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field

from rakuten.review.queue import Order, QueueFilter
from rakuten.review.tables import Answer, Source, State
from rakuten.serving.schemas import SCHEMA_REF, Choice, SimilarImage, TermContribution, ViewContribution

MAX_PRODUCTS = 50  # taken at once
MAX_CODE = 2**31 - 1  # of the database's column


def _none_if_empty(value: Any) -> Any:
    return None if value == "" else value


Empty = BeforeValidator(_none_if_empty)  # a form sends a field that is not filled in as an empty text
Code = Annotated[int, Field(gt=0, le=MAX_CODE)]


class FilterQuery(BaseModel):
    """Which products are meant; without a parameter all that are open."""

    model_config = ConfigDict(extra="forbid")

    source: Annotated[Source | None, Empty] = None
    code: Annotated[Code | None, Empty] = Field(None, description="predicted, or the label that is doubted")
    language: Annotated[Annotated[str, Field(max_length=40)] | None, Empty] = None
    max_confidence: Annotated[Annotated[float, Field(ge=0, le=1)] | None, Empty] = None
    search: Annotated[Annotated[str, Field(max_length=200)] | None, Empty] = Field(
        None, description="in titles, whatever the case"
    )
    state: Literal["open", "disputed"] = "open"

    def wanted(self) -> QueueFilter:
        """The filter as the desk takes it."""
        return QueueFilter(
            source=self.source,
            predicted=self.code,
            language=self.language,
            max_confidence=self.max_confidence,
            search=self.search,
            state=State(self.state),
        )


class QueueQuery(FilterQuery):
    """Which products are taken, how many, and in which order."""

    number: Annotated[int, Field(ge=1, le=MAX_PRODUCTS)] = 3
    order: Order = Order.TEACHING


class DecisionIn(BaseModel):
    """What a person decides about a product. The same again, with the same time, changes nothing."""

    model_config = ConfigDict(extra="forbid")

    product_id: Annotated[int, Field(gt=0, le=MAX_CODE)]
    answer: Literal["code", "none", "skip"] = Field(description="none: none of the codes fits; skip: left to others")
    prdtypecode: Code | None = Field(
        None, description="with the answer `code`; may be one that the model does not know"
    )
    note: Annotated[str, Field(max_length=1000)] = ""
    seconds: Annotated[float | None, Field(ge=0, le=86_400, allow_inf_nan=False)] = None
    decided_at: AwareDatetime

    def given(self) -> Answer:
        """The answer as the desk takes it."""
        return Answer(self.answer)


class Me(BaseModel):
    """Who asks, and what they may do."""

    person: str | None = Field(description="the key's owner, or who the header X-Reviewer names; null: nobody yet")
    role: Literal["classify", "review", "administer"]
    keys_required: bool
    agreement: int = Field(description="how many people must give the same answer")


class DecisionOut(BaseModel):
    """A decision about a disputed product."""

    person: str
    answer: str
    prdtypecode: int | None
    note: str
    decided_at: AwareDatetime


class ReviewProductOut(BaseModel):
    """A product of the queue. Nothing in it tells whether the model is unsure of it or it is there as a check."""

    id: int
    source: Source
    designation: str
    description: str
    has_picture: bool
    language: str
    prdtypecode: int | None = Field(description="the label that it has")
    top: list[Choice] = Field(description="up to five likeliest codes")
    model_version: str
    added_at: AwareDatetime
    decisions: list[DecisionOut] = Field([], description="of disputed products alone")


class QueueOut(BaseModel):
    """Products that nobody else gets for ten minutes."""

    products: list[ReviewProductOut]
    waiting: int = Field(description="the number of products that match the filter, whoever has them open")


class DecidedOut(BaseModel):
    """The state of the product after a decision."""

    state: State


class UndoneOut(BaseModel):
    """The product whose decision was taken back; null: there was none."""

    product: ReviewProductOut | None


class Agreement(BaseModel):
    """How far people agree."""

    kappa: float = Field(description="Cohen's kappa, from -1 to 1")
    pairs: int = Field(description="of answers of two people to the same product")


class CountsOut(BaseModel):
    """The number of products that match the filter, and of decisions by person."""

    state: dict[str, int]
    source: dict[str, int]
    predicted: dict[str, int]
    language: dict[str, int]
    person: dict[str, int]
    agreement: Agreement | None


class ReviewExplanation(BaseModel):
    """What the prediction of the model that serves now is based on."""

    prediction: dict[str, Any] = Field(description="prdtypecode and label of the code that is explained")
    views: list[ViewContribution]
    spoke_for: list[TermContribution]
    spoke_against: list[TermContribution]
    pictures: list[SimilarImage]


class PipelineFile(BaseModel):
    """Which of the pipeline's own files is meant."""

    model_config = ConfigDict(extra="forbid")

    file: Literal["predictions", "label-issues"] = Field(alias="from")


class AddedOut(BaseModel):
    """How many products a file had, by what became of them."""

    new: int
    updated: int = Field(description="were in the queue, and have a new prediction now")
    decided: int = Field(description="were decided already, and stay as they were")


class ExportedOut(BaseModel):
    """The corrections that were written."""

    corrections: int
    path: str


class ImportedOut(BaseModel):
    """How many decisions a file had."""

    decisions: int
    new: int


PRODUCTS_BODY = {  # for `openapi_extra`
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": {"$ref": SCHEMA_REF.format(model="PipelineFile")}},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {
                        "file": {"type": "string", "format": "binary"},
                        "source": {"type": "string", "enum": list(Source)},
                    },
                }
            },
        },
    }
}
REQUEST_MODELS = (DecisionIn, PipelineFile)  # that FastAPI does not list, since `parsing` reads them
