from datetime import UTC, datetime

import pytest

from rakuten.review.decisions import NO_CODE, answers, cohen_kappa, outcome, standing_decisions
from rakuten.review.tables import Answer, ReviewDecision, State
from tests.review.conftest import MERGED


def made(*decisions: tuple[str, Answer, int | None]) -> list[ReviewDecision]:
    return [
        ReviewDecision(
            product_id=1, person=person, answer=answer, prdtypecode=code, note="", decided_at=datetime.now(UTC),
            seconds=None, predicted=10, confidence=0.5, model_version="abc",
        )
        for person, answer, code in decisions
    ]  # fmt: skip


def test_the_last_decision_of_each_person_stands() -> None:
    decisions = made(("ann", Answer.CODE, 10), ("bob", Answer.NO_CODE, None), ("ann", Answer.CODE, 40))
    assert answers(standing_decisions(decisions), MERGED) == {"ann": 40, "bob": NO_CODE}


def test_a_decision_that_is_taken_back_brings_the_one_before_it_back() -> None:
    decisions = made(("ann", Answer.CODE, 10), ("ann", Answer.CODE, 40), ("ann", Answer.UNDO, None))
    assert answers(standing_decisions(decisions), MERGED) == {"ann": 10}
    assert standing_decisions([*decisions, *made(("ann", Answer.UNDO, None), ("ann", Answer.UNDO, None))]) == {}


def test_who_skips_gives_no_answer() -> None:
    decisions = made(("ann", Answer.SKIP, None))
    assert list(standing_decisions(decisions)) == ["ann"]
    assert answers(standing_decisions(decisions), MERGED) == {}


@pytest.mark.parametrize(
    ("given", "agreement", "expected"),
    [
        ([], 1, (State.OPEN, None)),
        ([10], 1, (State.DECIDED, 10)),
        ([NO_CODE], 1, (State.DECIDED, NO_CODE)),
        ([10], 2, (State.OPEN, None)),
        ([10, 10], 2, (State.DECIDED, 10)),
        ([10, 40], 2, (State.DISPUTED, None)),
        ([10, 40, 10], 2, (State.DECIDED, 10)),
        ([10, 40, 10, 40], 2, (State.DISPUTED, None)),
        ([10, 40], 1, (State.DISPUTED, None)),
    ],
)
def test_a_product_is_decided_when_enough_people_agree(
    given: list[int], agreement: int, expected: tuple[State, int | None]
) -> None:
    assert outcome({str(number): code for number, code in enumerate(given)}, agreement) == expected


def test_kappa_is_that_of_scikit_learn_on_shared_products() -> None:
    from sklearn.metrics import cohen_kappa_score

    ann, bob = [10, 10, 40, 40, 50], [10, 40, 40, 40, 50]
    shared = [{"ann": one, "bob": other} for one, other in zip(ann, bob, strict=True)]
    kappa = cohen_kappa([*shared, {"ann": 10}, {}])
    assert kappa == (pytest.approx(cohen_kappa_score(ann, bob)), 5)


def test_kappa_of_several_pairs_is_weighed_by_their_products() -> None:
    kappa = cohen_kappa([{"ann": 10, "bob": 10}, {"ann": 10, "cid": 40}, {"ann": 40, "cid": 10}])
    assert kappa == (pytest.approx((1 * 1 + 2 * -1) / 3), 3)


def test_without_shared_products_there_is_no_kappa() -> None:
    assert cohen_kappa([{"ann": 10}, {"bob": 10}]) is None


def test_answers_of_before_and_after_a_merger_agree() -> None:
    decisions = made(("ann", Answer.CODE, 30), ("bob", Answer.CODE, 10))
    given = answers(standing_decisions(decisions), MERGED)
    assert given == {"ann": 10, "bob": 10}
    assert outcome(given, 2) == (State.DECIDED, 10)
