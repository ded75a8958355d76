"""Queries of the queue: which products a person may be given, in which order, and how many there are."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, case, func, or_, select
from sqlalchemy.orm import Session, aliased

from rakuten.data.taxonomy import Taxonomy
from rakuten.review.decisions import answers, standing_decisions
from rakuten.review.tables import Answer, ReviewDecision, ReviewProduct, State


class Order(StrEnum):
    """In which order products are shown."""

    TEACHING = "teaching"  # what a decision teaches the model most first
    CONFIDENCE = "confidence"  # the least confident prediction first
    OLDEST = "oldest"


_ORDER_BY: dict[Order, list[Any]] = {
    Order.TEACHING: [ReviewProduct.priority.desc(), ReviewProduct.id],
    Order.CONFIDENCE: [ReviewProduct.shown_confidence, ReviewProduct.id],
    Order.OLDEST: [ReviewProduct.id],
}
_Other = aliased(ReviewProduct)


@dataclass(frozen=True)
class QueueFilter:
    """Which products of the queue a person wants to see; None: all."""

    source: str | None = None
    predicted: int | None = None  # or the label that is doubted
    language: str | None = None
    max_confidence: float | None = None  # of what is shown
    search: str | None = None  # in titles, whatever the case
    state: State = State.OPEN


def conditions(wanted: QueueFilter) -> list[ColumnElement[bool]]:
    """What a product must be like to match a filter."""
    found: list[ColumnElement[bool]] = [ReviewProduct.state == wanted.state]
    if wanted.source is not None:
        found.append(ReviewProduct.source == wanted.source)
    if wanted.predicted is not None:
        found.append(or_(ReviewProduct.predicted == wanted.predicted, ReviewProduct.prdtypecode == wanted.predicted))
    if wanted.language is not None:
        found.append(ReviewProduct.language == wanted.language)
    if wanted.max_confidence is not None:
        found.append(ReviewProduct.shown_confidence <= wanted.max_confidence)
    if wanted.search:
        found.append(ReviewProduct.designation.icontains(wanted.search, autoescape=True))
    return found


def opened_by(session: Session, person: str, wanted: QueueFilter, order: Order, now: datetime) -> list[int]:
    """The ids of the products that a person has open and is still to be asked about, in their order.

    They are sorted here: asked for an order, SQLite would walk through the whole queue in it.
    """
    columns = (ReviewProduct.id, ReviewProduct.priority, ReviewProduct.shown_confidence)
    is_mine = and_(ReviewProduct.assigned_to == person, ReviewProduct.assigned_until > now)
    rows = session.execute(select(*columns).where(is_mine, *conditions(wanted), is_to_ask(person, wanted.state))).all()
    sort_keys = {Order.TEACHING: lambda row: -row.priority, Order.CONFIDENCE: lambda row: row.shown_confidence}
    rows = sorted(sorted(rows, key=lambda row: row.id), key=sort_keys.get(order, lambda row: row.id))
    return [row.id for row in rows]


def free_for(person: str, wanted: QueueFilter, order: Order, now: datetime) -> Select[int]:
    """The ids of the products that nobody has open and about which the person is still to be asked."""
    # Looked up once, and not for each product, of which none but its entry in an index is then read.
    somebody_has_it = select(_Other.id).where(_Other.assigned_until > now)
    return (
        select(ReviewProduct.id)
        .where(*conditions(wanted), ReviewProduct.id.not_in(somebody_has_it), is_to_ask(person, wanted.state))
        .order_by(*_ORDER_BY[order])
    )


def is_free(now: datetime) -> ColumnElement[bool]:
    """Whether nobody has a product open."""
    return or_(ReviewProduct.assigned_to.is_(None), ReviewProduct.assigned_until <= now)


def is_to_ask(person: str, state: State) -> ColumnElement[bool]:
    """Whether a person is still to be asked about a product: has neither decided nor skipped it."""
    about_it = ReviewDecision.product_id == ReviewProduct.id
    if state == State.DISPUTED:
        # Who disagreed may think again, but not twice in a row.
        last = select(ReviewDecision.person).where(about_it).order_by(ReviewDecision.id.desc()).limit(1)
        return last.scalar_subquery() != person
    balance = func.sum(case((ReviewDecision.answer == Answer.UNDO, -1), else_=1))
    standing = select(balance).where(about_it, ReviewDecision.person == person).scalar_subquery()
    return func.coalesce(standing, 0) <= 0


def count_waiting(session: Session, wanted: QueueFilter) -> int:
    """The number of products that match a filter, whoever has them open."""
    return session.scalar(select(func.count()).select_from(ReviewProduct).where(*conditions(wanted))) or 0


def count_by(session: Session, column: Any, *where: ColumnElement[bool]) -> dict[str, int]:
    """The number of rows of each value of a column."""
    query = select(column, func.count()).where(*where).group_by(column).order_by(column)
    return {str(value): number for value, number in session.execute(query)}


def decisions_about(session: Session, product_id: int) -> list[ReviewDecision]:
    """All decisions about a product, in the order in which they were made."""
    query = select(ReviewDecision).where(ReviewDecision.product_id == product_id).order_by(ReviewDecision.id)
    return list(session.scalars(query))


def last_standing(session: Session, person: str) -> int | None:
    """The id of the product of a person's last decision that was not taken back."""
    query = select(ReviewDecision.product_id, ReviewDecision.answer).where(ReviewDecision.person == person)
    undone = 0
    for product_id, answer in session.execute(query.order_by(ReviewDecision.id.desc()).execution_options(yield_per=20)):
        if answer == Answer.UNDO:
            undone += 1
        elif undone:
            undone -= 1
        else:
            return int(product_id)
    return None


def answers_of_several(session: Session, taxonomy: Taxonomy) -> list[dict[str, int]]:
    """The answers to each product about which more than one person decided."""
    several = (
        select(ReviewDecision.product_id)
        .group_by(ReviewDecision.product_id)
        .having(func.count(ReviewDecision.person.distinct()) > 1)
    )
    columns = (ReviewDecision.product_id, ReviewDecision.person, ReviewDecision.answer, ReviewDecision.prdtypecode)
    query = select(*columns).where(ReviewDecision.product_id.in_(several)).order_by(ReviewDecision.id)
    by_product: dict[int, list[Any]] = {}
    for row in session.execute(query):
        by_product.setdefault(row.product_id, []).append(row)
    return [answers(standing_decisions(made), taxonomy) for made in by_product.values()]
