"""The review desk: who gets which product, and what people decide."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Engine, insert, or_, select, update
from sqlalchemy.orm import Session

from rakuten.config import load_params
from rakuten.data.taxonomy import current_taxonomy
from rakuten.errors import UserError
from rakuten.review import queue
from rakuten.review.database import database_url, open_database, reading, transaction
from rakuten.review.decisions import answers, cohen_kappa, outcome, standing_decisions
from rakuten.review.queue import Order, QueueFilter
from rakuten.review.tables import Answer, ReviewDecision, ReviewProduct, State

ASSIGNED_FOR = timedelta(minutes=10)  # how long a product is kept for the person who has it open
WRITE_ROWS = 200  # products that are added in one transaction, for which people wait
SPARE = 40  # products looked for beyond those asked for, since others may take some at the same moment
MAX_TRIES = 5  # if others took all of these
# What a product that comes again takes over from the model's last word on it.
UPDATED = (
    "predicted", "confidence", "top", "shown_confidence", "shown_top", "model_version", "prediction_id", "is_audit",
    "is_novel", "priority", "group", "image",
)  # fmt: skip


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


def open_desk() -> "ReviewDesk":
    """The desk whose database REVIEW_DATABASE_URL names, or data/review/review.db."""
    return ReviewDesk(open_database(database_url()), load_params().review.agreement)


class ReviewDesk:
    """The queue of products, and the decisions about them, in a database."""

    def __init__(self, engine: Engine, agreement: int) -> None:
        """
        Args:
            engine: from `open_database`.
            agreement: how many people must give the same answer.
        """
        self._engine, self._agreement, self._taxonomy = engine, agreement, current_taxonomy()

    @property
    def required_agreement(self) -> int:
        """How many people must give the same answer."""
        return self._agreement

    def add(self, products: Sequence[Mapping[str, Any]]) -> Added:
        """Put products into the queue. One that is there already gets the new prediction, unless it is decided.

        Args:
            products: the columns of ReviewProduct except id, state and added_at. Without shown_top and
                shown_confidence people see what the model said.
        """
        new = updated = decided = 0
        for start in range(0, len(products), WRITE_ROWS):
            chunk = [_with_shown(product) for product in products[start : start + WRITE_ROWS]]
            with transaction(self._engine) as session:
                there = _by_key(session, chunk)
                rows: dict[tuple[str, str], dict[str, Any]] = {}  # a product that comes twice counts once
                for product in chunk:
                    key = (product["source"], product["key"])
                    found = there.get(key)
                    if found is None:
                        new += key not in rows
                        # The second time it is a near-duplicate of itself, which would put it far behind.
                        priority = max(product["priority"], rows.get(key, product)["priority"])
                        rows[key] = product | {"priority": priority, "state": State.OPEN, "added_at": _now()}
                    elif found.state == State.DECIDED:
                        decided += 1
                    else:
                        for name in UPDATED:
                            setattr(found, name, product[name])
                        updated += 1
                if rows:
                    session.execute(insert(ReviewProduct), list(rows.values()))
        return Added(new, updated, decided)

    def open_products(self) -> list[ReviewProduct]:
        """All products that wait for a decision, the most urgent first."""
        query = (
            select(ReviewProduct)
            .where(ReviewProduct.state == State.OPEN)
            .order_by(ReviewProduct.priority.desc(), ReviewProduct.id)
        )
        with reading(self._engine) as session:
            return list(session.scalars(query))

    def take(
        self, person: str, number: int, wanted: QueueFilter | None = None, order: Order = Order.TEACHING
    ) -> list[ReviewProduct]:
        """The next products for a person. Nobody else gets them for the next ten minutes.

        Products that the person has open come first, then those that nobody else has open and that this person has
        neither decided nor skipped. They are looked for before the transaction that assigns them, in which everybody
        else would wait.
        """
        wanted, now = wanted or QueueFilter(), _now()
        found: list[ReviewProduct] = []
        for _ in range(MAX_TRIES):
            with reading(self._engine) as session:
                mine = queue.opened_by(session, person, wanted, order, now)[:number]
                n_free = number - len(mine) + SPARE if len(mine) < number else 0
                free = list(session.scalars(queue.free_for(person, wanted, order, now).limit(n_free))) if n_free else []
            found = self._assign(person, mine, free, number, wanted.state, now)
            if len(found) == number or len(free) < n_free:  # else others were faster
                break
        return found

    def _assign(
        self, person: str, mine: list[int], free: list[int], number: int, state: State, now: datetime
    ) -> list[ReviewProduct]:
        """Of some products, those that the person may still have, the first `number`, kept for this person."""
        candidates = [*mine, *free]
        is_available = or_(ReviewProduct.assigned_to == person, queue.is_free(now))
        to_ask = queue.is_to_ask(person, state)  # still: the person may have answered since they were looked for
        found: list[ReviewProduct] = []
        with transaction(self._engine) as session:
            # As few as are needed at a time: PostgreSQL locks what is read here, and others pass over it.
            while candidates and len(found) < number:
                missing = number - len(found)
                some, candidates = candidates[:missing], candidates[missing:]
                query = (
                    select(ReviewProduct)
                    .where(ReviewProduct.id.in_(some), ReviewProduct.state == state, is_available, to_ask)
                    .with_for_update(skip_locked=True)  # SQLite has one writer at a time
                )
                found += sorted(session.scalars(query), key=lambda product: some.index(product.id))
            until = now + ASSIGNED_FOR
            session.execute(
                update(ReviewProduct)
                .where(ReviewProduct.id.in_([product.id for product in found]))
                .values(assigned_to=person, assigned_until=until)
                .execution_options(synchronize_session=False)
            )
        return found

    def product(self, product_id: int) -> ReviewProduct | None:
        """One product of the queue, whatever its state; None if there is none of this id."""
        with reading(self._engine) as session:
            return session.get(ReviewProduct, product_id)

    def decisions(self, product_ids: Sequence[int]) -> dict[int, list[ReviewDecision]]:
        """All decisions about some products, in the order in which they were made."""
        query = select(ReviewDecision).where(ReviewDecision.product_id.in_(product_ids)).order_by(ReviewDecision.id)
        with reading(self._engine) as session:
            return _by_product(session.scalars(query))

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
            return self._decide(session, new)

    def _decide(self, session: Session, new: NewDecision) -> State:
        product = session.get(ReviewProduct, new.product_id, with_for_update=True)
        if product is None:
            raise UserError(f"the review desk has no product {new.product_id}")
        made = queue.decisions_about(session, new.product_id)
        if any(each.person == new.person and each.decided_at == new.decided_at for each in made):
            return State(product.state)
        if new.answer == Answer.UNDO and new.person not in standing_decisions(made):
            raise UserError(f"{new.person} has decided nothing about product {new.product_id}")
        decision = ReviewDecision(
            **vars(new), predicted=product.predicted, confidence=product.confidence,
            model_version=product.model_version,
        )  # fmt: skip
        session.add(decision)
        product.state, _ = outcome(answers(standing_decisions([*made, decision]), self._taxonomy), self._agreement)
        if new.answer == Answer.UNDO:
            product.assigned_to, product.assigned_until = new.person, _now() + ASSIGNED_FOR
        elif product.assigned_to == new.person:
            product.assigned_to = product.assigned_until = None
        return State(product.state)

    def undo(self, person: str) -> int | None:
        """Take back the person's last decision that stands; returns the id of its product, None if there is none.

        The product is open for this person again.
        """
        with transaction(self._engine) as session:
            last = queue.last_standing(session, person)
            if last is not None:
                self._decide(session, NewDecision(person, last, Answer.UNDO))
        return last

    def decided(self) -> list[tuple[ReviewProduct, int, list[ReviewDecision]]]:
        """Each decided product with its answer (a prdtypecode or NO_CODE) and the decisions that stand for it."""
        with reading(self._engine) as session:
            query = select(ReviewProduct).where(ReviewProduct.state == State.DECIDED).order_by(ReviewProduct.id)
            products = list(session.scalars(query))
            made = _by_product(session.scalars(select(ReviewDecision).order_by(ReviewDecision.id)))
        results = []
        for product in products:
            standing = standing_decisions(made[product.id])
            given = answers(standing, self._taxonomy)
            _, answer = outcome(given, self._agreement)
            if answer is not None:  # None: more people must agree now than when it was decided
                results.append((product, answer, [standing[name] for name in given if given[name] == answer]))
        return results

    def all_decisions(self) -> list[tuple[ReviewProduct, ReviewDecision]]:
        """Every decision, those taken back and the taking back included, in the order in which they were made."""
        query = select(ReviewProduct, ReviewDecision).join(ReviewProduct).order_by(ReviewDecision.id)
        with reading(self._engine) as session:
            return [(product, made) for product, made in session.execute(query)]

    def import_decisions(self, rows: Sequence[Mapping[str, Any]]) -> int:
        """Take over decisions that were made elsewhere, all or none; returns how many of them are new here.

        Args:
            rows: source and key of the product, and the columns of ReviewDecision but id and product_id, in the order
                in which they were made. Without predicted, confidence and model_version it is what the model says now.

        Raises:
            UserError: a product is not in the queue.
        """
        new = 0
        with transaction(self._engine) as session:
            products = _by_key(session, rows)
            for row in rows:
                product = products.get((row["source"], row["key"]))
                if product is None:
                    raise UserError(
                        f"the review desk has no product {row['key']} of the source {row['source']}: add its file first"
                    )
                made = queue.decisions_about(session, product.id)
                if any((each.person, each.decided_at) == (row["person"], row["decided_at"]) for each in made):
                    continue
                fields = {name: value for name, value in row.items() if name not in ("source", "key")}
                now = {name: getattr(product, name) for name in ("predicted", "confidence", "model_version")}
                decision = ReviewDecision(product_id=product.id, **(now | fields))
                session.add(decision)
                product.state, _ = outcome(
                    answers(standing_decisions([*made, decision]), self._taxonomy), self._agreement
                )
                new += 1
        return new

    def agreement(self) -> tuple[float, int] | None:
        """Cohen's kappa between people and the number of pairs of answers; see `cohen_kappa`."""
        with reading(self._engine) as session:
            several = queue.answers_of_several(session, self._taxonomy)
        return cohen_kappa(several)

    def waiting(self, wanted: QueueFilter) -> int:
        """The number of products that match a filter, whoever has them open."""
        with reading(self._engine) as session:
            return queue.count_waiting(session, wanted)

    def counts(self, wanted: QueueFilter | None = None) -> dict[str, dict[str, int]]:
        """The number of products by state, and by source, predicted code and language of those that match a filter.

        Also that of decisions by person, those taken back included.
        """
        where = queue.conditions(wanted or QueueFilter())
        with reading(self._engine) as session:
            return {
                "state": queue.count_by(session, ReviewProduct.state, *where[1:]),
                "source": queue.count_by(session, ReviewProduct.source, *where),
                "predicted": queue.count_by(session, ReviewProduct.predicted, *where),
                "language": queue.count_by(session, ReviewProduct.language, *where),
                "person": queue.count_by(session, ReviewDecision.person, ReviewDecision.answer != Answer.UNDO),
            }


def _with_shown(product: Mapping[str, Any]) -> dict[str, Any]:
    shown = {"shown_top": product["top"], "shown_confidence": product["confidence"]}
    return {"is_novel": False, "prediction_id": None, **shown, **product}


def _by_key(session: Session, products: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], ReviewProduct]:
    keys: dict[str, list[str]] = {}
    for product in products:
        keys.setdefault(product["source"], []).append(product["key"])
    found = [
        row
        for source, named in keys.items()
        for start in range(0, len(named), WRITE_ROWS)
        for row in session.scalars(
            select(ReviewProduct).where(
                ReviewProduct.source == source, ReviewProduct.key.in_(named[start : start + WRITE_ROWS])
            )
        )
    ]
    return {(row.source, row.key): row for row in found}


def _by_product(decisions: Iterable[ReviewDecision]) -> dict[int, list[ReviewDecision]]:
    by_product: dict[int, list[ReviewDecision]] = {}
    for decision in decisions:
        by_product.setdefault(decision.product_id, []).append(decision)
    return by_product


def _now() -> datetime:
    return datetime.now(UTC)
