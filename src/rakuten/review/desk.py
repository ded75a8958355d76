"""The review desk: who gets which product, and what people decide."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Engine, case, func, or_, select
from sqlalchemy.orm import Session

from rakuten.errors import UserError
from rakuten.review.database import transaction
from rakuten.review.decisions import answers, cohen_kappa, outcome, standing_decisions
from rakuten.review.tables import Answer, ReviewDecision, ReviewProduct, State

ASSIGNED_FOR = timedelta(minutes=10)  # how long a product is kept for the person who has it open
WRITE_ROWS = 1000  # products that are added in one transaction
# What a product that comes again takes over from the model's last word on it.
UPDATED = ("predicted", "confidence", "top", "model_version", "priority", "group", "image")


@dataclass(frozen=True)
class QueueFilter:
    """Which products of the queue a person wants to see; None: all."""

    source: str | None = None
    predicted: int | None = None
    language: str | None = None
    max_confidence: float | None = None
    search: str | None = None  # in titles, whatever the case
    state: State = State.OPEN


@dataclass(frozen=True)
class NewDecision:
    """What a person decides about a product."""

    person: str
    product_id: int
    answer: Answer
    prdtypecode: int | None = None  # of Answer.CODE alone
    note: str = ""
    seconds: float | None = None  # from the product's first sight to the decision
    decided_at: datetime = field(default_factory=lambda: datetime.now(UTC))


@dataclass(frozen=True)
class Added:
    """The number of products that `ReviewDesk.add` was given, by what became of them."""

    new: int
    updated: int  # they were there, and have a new prediction now
    decided: int  # they were decided already, and stay as they were


class ReviewDesk:
    """The queue of products, and the decisions about them, in a database."""

    def __init__(self, engine: Engine, agreement: int) -> None:
        """
        Args:
            engine: from `open_database`.
            agreement: how many people must give the same answer.
        """
        self._engine, self._agreement = engine, agreement

    def add(self, products: Sequence[Mapping[str, Any]]) -> Added:
        """Put products into the queue. One that is there already gets the new prediction, unless it is decided.

        Args:
            products: the columns of ReviewProduct except id, state and added_at.
        """
        new = updated = decided = 0
        for start in range(0, len(products), WRITE_ROWS):
            chunk = products[start : start + WRITE_ROWS]
            with transaction(self._engine) as session:
                there = _by_key(session, chunk)
                for product in chunk:
                    found = there.get((product["source"], product["key"]))
                    if found is None:
                        session.add(ReviewProduct(**product, state=State.OPEN, added_at=_now()))
                        new += 1
                    elif found.state == State.DECIDED:
                        decided += 1
                    else:
                        for name in UPDATED:
                            setattr(found, name, product[name])
                        updated += 1
        return Added(new, updated, decided)

    def open_products(self) -> list[ReviewProduct]:
        """All products that wait for a decision, the most urgent first."""
        query = (
            select(ReviewProduct)
            .where(ReviewProduct.state == State.OPEN)
            .order_by(ReviewProduct.priority.desc(), ReviewProduct.id)
        )
        with transaction(self._engine) as session:
            return list(session.scalars(query))

    def take(self, person: str, number: int, wanted: QueueFilter | None = None) -> list[ReviewProduct]:
        """The next products for a person, the most urgent first. Nobody else gets them for the next ten minutes.

        Products that the person has open come first, then those of the highest priority that nobody else has open and
        that this person has neither decided nor skipped.
        """
        now = _now()
        is_mine = ReviewProduct.assigned_to == person
        is_free = or_(ReviewProduct.assigned_to.is_(None), is_mine, ReviewProduct.assigned_until <= now)
        query = (
            select(ReviewProduct)
            .where(*_conditions(wanted or QueueFilter()))
            .where(is_free, ReviewProduct.id.not_in(_answered_by(person)))
            .order_by(case((is_mine, 0), else_=1), ReviewProduct.priority.desc(), ReviewProduct.id)
            .limit(number)
            .with_for_update(skip_locked=True, of=ReviewProduct)  # SQLite has one writer at a time
        )
        with transaction(self._engine) as session:
            found = list(session.scalars(query))
            for product in found:
                product.assigned_to, product.assigned_until = person, now + ASSIGNED_FOR
        return found

    def decide(self, new: NewDecision) -> State:
        """Record a decision; returns the state of the product after it. The same decision again changes nothing.

        Raises:
            UserError: there is no such product, a code is missing or given where there must be none, or the person
                takes back a decision that was not made.
        """
        if (new.answer == Answer.CODE) != (new.prdtypecode is not None):
            needs = "needs a" if new.answer == Answer.CODE else "takes no"
            raise UserError(f"the answer {new.answer.value!r} {needs} prdtypecode")
        with transaction(self._engine) as session:
            product = session.get(ReviewProduct, new.product_id, with_for_update=True)
            if product is None:
                raise UserError(f"the review desk has no product {new.product_id}")
            made = _decisions(session, new.product_id)
            if any(each.person == new.person and each.decided_at == new.decided_at for each in made):
                return State(product.state)
            if new.answer == Answer.UNDO and new.person not in standing_decisions(made):
                raise UserError(f"{new.person} has decided nothing about product {new.product_id}")
            decision = ReviewDecision(
                **vars(new), predicted=product.predicted, confidence=product.confidence,
                model_version=product.model_version,
            )  # fmt: skip
            session.add(decision)
            product.state, _ = outcome(answers(standing_decisions([*made, decision])), self._agreement)
            if product.assigned_to == new.person and new.answer != Answer.UNDO:
                product.assigned_to = product.assigned_until = None
            return State(product.state)

    def undo(self, person: str) -> int | None:
        """Take back the person's last decision that stands; returns the id of its product, None if there is none.

        The product is open for this person again.
        """
        with transaction(self._engine) as session:
            made = session.scalars(
                select(ReviewDecision).where(ReviewDecision.person == person).order_by(ReviewDecision.id.desc())
            )
            undone = 0
            last = None
            for decision in made:
                if decision.answer == Answer.UNDO:
                    undone += 1
                elif undone:
                    undone -= 1
                else:
                    last = decision.product_id
                    break
        if last is None:
            return None
        self.decide(NewDecision(person, last, Answer.UNDO))
        with transaction(self._engine) as session:
            product = session.get_one(ReviewProduct, last, with_for_update=True)
            product.assigned_to, product.assigned_until = person, _now() + ASSIGNED_FOR
        return last

    def decided(self) -> list[tuple[ReviewProduct, int, list[ReviewDecision]]]:
        """Each decided product with its answer (a prdtypecode or NO_CODE) and the decisions that stand for it."""
        with transaction(self._engine) as session:
            query = select(ReviewProduct).where(ReviewProduct.state == State.DECIDED).order_by(ReviewProduct.id)
            products, made = list(session.scalars(query)), _decisions_by_product(session)
        results = []
        for product in products:
            standing = standing_decisions(made[product.id])
            given = answers(standing)
            _, answer = outcome(given, self._agreement)
            if answer is not None:  # None: more people must agree now than when it was decided
                results.append((product, answer, [standing[name] for name in given if given[name] == answer]))
        return results

    def agreement(self) -> tuple[float, int] | None:
        """Cohen's kappa between people and the number of pairs of answers; see `cohen_kappa`."""
        with transaction(self._engine) as session:
            by_product = _decisions_by_product(session)
        return cohen_kappa(answers(standing_decisions(made)) for made in by_product.values())

    def counts(self) -> dict[str, dict[str, int]]:
        """The number of products by state, source and predicted code of those open, and of decisions by person."""
        is_open = ReviewProduct.state == State.OPEN
        with transaction(self._engine) as session:
            return {
                "state": _count(session, ReviewProduct.state),
                "source": _count(session, ReviewProduct.source, is_open),
                "predicted": _count(session, ReviewProduct.predicted, is_open),
                "person": _count(session, ReviewDecision.person, ReviewDecision.answer != Answer.UNDO),
            }


def _by_key(session: Session, products: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], ReviewProduct]:
    keys: dict[str, list[str]] = {}
    for product in products:
        keys.setdefault(product["source"], []).append(product["key"])
    found = [
        row
        for source, named in keys.items()
        for row in session.scalars(
            select(ReviewProduct).where(ReviewProduct.source == source, ReviewProduct.key.in_(named))
        )
    ]
    return {(row.source, row.key): row for row in found}


def _answered_by(person: str) -> Any:
    """A query of the ids of the products about which a person has a decision that stands."""
    balance = func.sum(case((ReviewDecision.answer == Answer.UNDO, -1), else_=1))
    return (
        select(ReviewDecision.product_id)
        .where(ReviewDecision.person == person)
        .group_by(ReviewDecision.product_id)
        .having(balance > 0)
    )


def _conditions(wanted: QueueFilter) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = [ReviewProduct.state == wanted.state]
    if wanted.source is not None:
        conditions.append(ReviewProduct.source == wanted.source)
    if wanted.predicted is not None:
        conditions.append(
            or_(ReviewProduct.predicted == wanted.predicted, ReviewProduct.prdtypecode == wanted.predicted)
        )
    if wanted.language is not None:
        conditions.append(ReviewProduct.language == wanted.language)
    if wanted.max_confidence is not None:
        conditions.append(ReviewProduct.confidence <= wanted.max_confidence)
    if wanted.search:
        conditions.append(ReviewProduct.designation.icontains(wanted.search, autoescape=True))
    return conditions


def _decisions(session: Session, product_id: int) -> list[ReviewDecision]:
    query = select(ReviewDecision).where(ReviewDecision.product_id == product_id).order_by(ReviewDecision.id)
    return list(session.scalars(query))


def _decisions_by_product(session: Session) -> dict[int, list[ReviewDecision]]:
    """All decisions by product, in the order in which they were made."""
    by_product: dict[int, list[ReviewDecision]] = {}
    for decision in session.scalars(select(ReviewDecision).order_by(ReviewDecision.id)):
        by_product.setdefault(decision.product_id, []).append(decision)
    return by_product


def _count(session: Session, column: Any, *conditions: ColumnElement[bool]) -> dict[str, int]:
    query = select(column, func.count()).where(*conditions).group_by(column).order_by(column)
    return {str(value): number for value, number in session.execute(query)}


def _now() -> datetime:
    return datetime.now(UTC)
