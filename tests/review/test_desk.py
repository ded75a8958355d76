from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from rakuten.errors import UserError
from rakuten.review import desk as module
from rakuten.review.database import open_database
from rakuten.review.desk import Added, NewDecision, QueueFilter, ReviewDesk
from rakuten.review.queue import Order
from rakuten.review.tables import Answer, State
from tests.review.conftest import MakeProduct


def code(person: str, product_id: int, prdtypecode: int, **more: Any) -> NewDecision:
    return NewDecision(person, product_id, Answer.CODE, prdtypecode, **more)


def keys(desk: ReviewDesk, person: str, number: int = 10, **wanted: Any) -> list[str]:
    return [product.key for product in desk.take(person, number, QueueFilter(**wanted))]


def test_products_come_by_their_priority(desk: ReviewDesk, product: MakeProduct) -> None:
    desk.add([product("1_1", priority=0.1), product("1_2", priority=0.9), product("1_3", priority=0.5)])
    assert keys(desk, "ann") == ["1_2", "1_3", "1_1"]


def test_a_product_that_somebody_has_open_is_not_given_to_another(
    desk: ReviewDesk, product: MakeProduct, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.add([product("1_1", priority=0.9), product("1_2", priority=0.1)])
    assert keys(desk, "ann", 1) == ["1_1"]
    assert keys(desk, "bob", 1) == ["1_2"]
    assert keys(desk, "ann", 1) == ["1_1"]  # the same again
    assert keys(desk, "cid") == []
    later = datetime.now(UTC) + timedelta(minutes=11)
    monkeypatch.setattr(module, "_now", lambda: later)
    assert keys(desk, "cid") == ["1_1", "1_2"]


def test_who_comes_last_gets_what_is_left_however_many_others_have_open(desk: ReviewDesk, product: MakeProduct) -> None:
    n_open = 2 * module.SPARE
    desk.add([product(f"1_{number}", priority=-number) for number in range(n_open + 2)])
    assert len(keys(desk, "ann", n_open)) == n_open
    assert keys(desk, "bob", 5) == [f"1_{n_open}", f"1_{n_open + 1}"]


def test_a_decided_product_leaves_the_queue(desk: ReviewDesk, product: MakeProduct) -> None:
    desk.add([product("1_1"), product("1_2")])
    (first,) = desk.take("ann", 1)
    assert desk.decide(code("ann", first.id, 40, seconds=1.5)) == State.DECIDED
    assert keys(desk, "ann") == ["1_2"]
    ((decided, answer, (decision,)),) = desk.decided()
    assert (decided.key, answer) == ("1_1", 40)
    assert (decision.person, decision.seconds, decision.predicted, decision.model_version) == ("ann", 1.5, 10, "abc")


def test_a_skipped_product_is_left_to_others(desk: ReviewDesk, product: MakeProduct) -> None:
    desk.add([product("1_1")])
    (first,) = desk.take("ann", 1)
    assert desk.decide(NewDecision("ann", first.id, Answer.SKIP)) == State.OPEN
    assert keys(desk, "ann") == []
    assert keys(desk, "bob") == ["1_1"]


def test_undo_is_a_new_decision_and_gives_the_product_back(desk: ReviewDesk, product: MakeProduct) -> None:
    desk.add([product("1_1", priority=0.9), product("1_2", priority=0.1)])
    first, second = desk.take("ann", 2)
    desk.decide(code("ann", first.id, 40))
    desk.decide(NewDecision("ann", second.id, Answer.NO_CODE, note="a voucher"))
    assert desk.undo("ann") == second.id
    assert desk.undo("ann") == first.id
    assert desk.undo("ann") is None
    assert desk.decided() == []
    assert keys(desk, "bob") == []  # ann has both open again
    assert keys(desk, "ann") == ["1_1", "1_2"]
    assert desk.counts()["person"] == {"ann": 2}


def test_two_must_agree_where_the_parameter_says_so(url: str, product: MakeProduct) -> None:
    desk = ReviewDesk(open_database(url), agreement=2)
    desk.add([product("1_1")])
    (first,) = desk.take("ann", 1)
    assert desk.decide(code("ann", first.id, 40)) == State.OPEN
    assert keys(desk, "ann") == []
    assert keys(desk, "bob") == ["1_1"]
    assert desk.decide(code("bob", first.id, 10)) == State.DISPUTED
    assert keys(desk, "cid") == []
    assert keys(desk, "cid", state=State.DISPUTED) == ["1_1"]
    assert desk.decide(code("cid", first.id, 10)) == State.DECIDED
    assert [decision.person for _, _, made in desk.decided() for decision in made] == ["bob", "cid"]
    assert desk.agreement() == (pytest.approx((0 + 0 + 1) / 3), 3)


def test_who_disagreed_may_think_again_but_not_twice_in_a_row(url: str, product: MakeProduct) -> None:
    desk = ReviewDesk(open_database(url), agreement=1)
    desk.add([product("1_1")])
    for person, given in (("ann", 40), ("bob", 10)):
        desk.decide(code(person, 1, given))
    assert keys(desk, "bob", state=State.DISPUTED) == []
    assert keys(desk, "ann", state=State.DISPUTED) == ["1_1"]
    assert desk.decide(code("ann", 1, 10)) == State.DECIDED


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        (Order.TEACHING, ["1_3", "1_2", "1_1"]),
        (Order.CONFIDENCE, ["1_2", "1_3", "1_1"]),
        (Order.OLDEST, ["1_1", "1_2", "1_3"]),
    ],
)
def test_the_order_is_the_same_for_what_is_free_and_what_a_person_has_open(
    desk: ReviewDesk, product: MakeProduct, order: Order, expected: list[str]
) -> None:
    values = (("1_1", 0.1, 0.5), ("1_2", 0.2, 0.3), ("1_3", 0.3, 0.4))
    desk.add([product(key, priority=priority, confidence=confidence) for key, priority, confidence in values])
    for _ in range(2):
        assert [each.key for each in desk.take("ann", 3, order=order)] == expected


def test_a_product_twice_in_a_file_counts_once(desk: ReviewDesk, product: MakeProduct) -> None:
    assert desk.add([product("1_1"), product("1_1", predicted=40)]) == Added(new=1, updated=0, decided=0)
    assert [each.predicted for each in desk.open_products()] == [40]


def test_a_product_that_comes_again_has_the_new_prediction_unless_it_is_decided(
    desk: ReviewDesk, product: MakeProduct
) -> None:
    assert desk.add([product("1_1"), product("1_2")]) == Added(new=2, updated=0, decided=0)
    first = desk.take("ann", 1)[0]
    desk.decide(code("ann", first.id, 40))
    again = [product(key, predicted=50, model_version="def") for key in ("1_1", "1_2", "1_3")]
    assert desk.add(again) == Added(new=1, updated=1, decided=1)
    assert {each.key: each.model_version for each in desk.take("ann", 9)} == {"1_2": "def", "1_3": "def"}
    ((decided, _, _),) = desk.decided()
    assert decided.model_version == "abc"


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"source": "label-issues"}, ["1_2"]),
        ({"predicted": 40}, ["1_2"]),
        ({"predicted": 2583}, ["1_3"]),  # a label that is doubted
        ({"language": "english"}, ["1_1"]),
        ({"max_confidence": 0.3}, ["1_3"]),
        ({"search": "CHAISE"}, ["1_1"]),
        ({"search": "100%"}, []),
    ],
)
def test_the_queue_is_filtered(
    wanted: dict[str, Any], expected: list[str], desk: ReviewDesk, product: MakeProduct
) -> None:
    desk.add(
        [
            product("1_1", language="english", designation="Une chaise 100 kg"),
            product("1_2", source="label-issues", predicted=40),
            product("1_3", confidence=0.2, prdtypecode=2583),
        ]
    )
    assert keys(desk, "ann", **wanted) == expected


def test_the_same_decision_twice_counts_once(desk: ReviewDesk, product: MakeProduct) -> None:
    desk.add([product()])
    decision = code("ann", 1, 40)
    assert desk.decide(decision) == desk.decide(decision) == State.DECIDED
    assert desk.counts()["person"] == {"ann": 1}


def test_wrong_decisions_are_refused(desk: ReviewDesk, product: MakeProduct) -> None:
    desk.add([product()])
    with pytest.raises(UserError, match="has no product 7"):
        desk.decide(code("ann", 7, 40))
    with pytest.raises(UserError, match="'code' needs a prdtypecode"):
        desk.decide(NewDecision("ann", 1, Answer.CODE))
    with pytest.raises(UserError, match="'skip' takes no prdtypecode"):
        desk.decide(NewDecision("ann", 1, Answer.SKIP, 40))
    with pytest.raises(UserError, match="ann has decided nothing"):
        desk.decide(NewDecision("ann", 1, Answer.UNDO))
    assert desk.counts()["person"] == {}


def test_counts_are_those_of_open_products(desk: ReviewDesk, product: MakeProduct) -> None:
    desk.add([product("1_1"), product("1_2", source="label-issues", predicted=40), product("1_3")])
    desk.decide(code("ann", 1, 40))
    assert desk.counts() == {
        "state": {"decided": 1, "open": 2},
        "source": {"file": 1, "label-issues": 1},
        "predicted": {"10": 1, "40": 1},
        "language": {"french": 2},
        "person": {"ann": 1},
    }


def test_a_product_that_was_skipped_while_it_was_looked_for_is_not_given(
    desk: ReviewDesk, product: MakeProduct
) -> None:
    """As when a page asks for the next products while its last decision is on its way."""
    desk.add([product("1_1")])
    desk.decide(NewDecision("ann", 1, Answer.SKIP))
    now = datetime.now(UTC)
    assert desk._assign("ann", [], [1], 1, State.OPEN, now) == []
    assert [each.id for each in desk.take("bob", 1)] == [1]
