"""The tables of the review desk: products that wait for a person, and every decision.

Nothing is overwritten or deleted: a person who takes a decision back makes a new one.
"""

from datetime import UTC, datetime
from enum import StrEnum

from sqlalchemy import JSON, BigInteger, DateTime, Dialect, ForeignKey, Index, UniqueConstraint, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

FILTERED = ("source", "predicted", "prdtypecode", "language")


class Utc(TypeDecorator[datetime]):
    """A time with its zone. SQLite stores none, so what it returns is given UTC."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.replace(tzinfo=value.tzinfo or UTC)


class Source(StrEnum):
    """Where a product in the queue comes from."""

    FILE = "file"  # a scored file
    LABEL_ISSUES = "label-issues"  # reports/label_issues.csv: a train product whose label is doubted
    API = "api"  # what the API has answered with needs_review


class State(StrEnum):
    """How far a product in the queue is."""

    OPEN = "open"
    DECIDED = "decided"
    DISPUTED = "disputed"  # as many people as must agree have decided, and they disagree


class Answer(StrEnum):
    """What a person did with a product."""

    CODE = "code"  # it has this prdtypecode
    NO_CODE = "none"  # none of the codes fits
    SKIP = "skip"  # left to others
    UNDO = "undo"  # takes the person's last decision about the product back


class Base(DeclarativeBase):
    """The base class of the tables."""


class ReviewProduct(Base):
    """A product in the queue, with the model's last word on it."""

    __tablename__ = "review_products"
    __table_args__ = (
        UniqueConstraint("source", "key"),
        # Each order of the queue, so that the next products are the first entries of an index. With all columns that
        # products are filtered and counted by: their texts are not read for that.
        Index("review_products_teaching", "state", text("priority DESC"), "id", *FILTERED, "shown_confidence"),
        Index("review_products_confidence", "state", "shown_confidence", "id", *FILTERED),
        Index("review_products_oldest", "state", "id", *FILTERED, "shown_confidence"),
        Index("review_products_assigned", "assigned_to", "state"),
        Index("review_products_assigned_until", "assigned_until"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    source: Mapped[str]
    key: Mapped[str]  # names the product within its source: a product that comes again is the same row
    productid: Mapped[int | None] = mapped_column(BigInteger)
    imageid: Mapped[int | None] = mapped_column(BigInteger)
    designation: Mapped[str]
    description: Mapped[str]
    image: Mapped[str | None]  # path of the picture
    language: Mapped[str]
    prdtypecode: Mapped[int | None]  # the label that it has; None: it has none yet
    predicted: Mapped[int]
    confidence: Mapped[float]
    top: Mapped[list[list[float]]] = mapped_column(JSON)  # [prdtypecode, probability] of the likeliest codes
    model_version: Mapped[str]
    prediction_id: Mapped[str | None]  # of live traffic: names that word in the prediction log
    is_audit: Mapped[bool]  # decided by the model, and drawn at random to check it
    is_novel: Mapped[bool] = mapped_column(default=False)  # unlike all that the model was trained on
    # What people see in place of confidence and top: see `audit.with_shown_confidences`.
    shown_confidence: Mapped[float]
    shown_top: Mapped[list[list[float]]] = mapped_column(JSON)
    group: Mapped[str]  # near-duplicates have the same; "": of none
    priority: Mapped[float]  # the highest comes first
    state: Mapped[str] = mapped_column(default=State.OPEN)
    added_at: Mapped[datetime] = mapped_column(Utc)
    # The person who has it open, so that nobody else gets it until then. In this row and not in a table of its own:
    # PostgreSQL looks again at a row that was changed since it began to search, at nothing else.
    assigned_to: Mapped[str | None]
    assigned_until: Mapped[datetime | None] = mapped_column(Utc)


class ReviewDecision(Base):
    """What a person did with a product, and what the model had said."""

    __tablename__ = "review_decisions"
    __table_args__ = (
        Index("review_decisions_once", "product_id", "person", "decided_at", unique=True),
        Index("review_decisions_person", "person", "id"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    product_id: Mapped[int] = mapped_column(ForeignKey("review_products.id"))
    person: Mapped[str]
    answer: Mapped[str]
    prdtypecode: Mapped[int | None]
    note: Mapped[str] = mapped_column(default="")
    decided_at: Mapped[datetime] = mapped_column(Utc)
    seconds: Mapped[float | None]  # from the product's first sight to the decision
    predicted: Mapped[int]
    confidence: Mapped[float]
    model_version: Mapped[str]
