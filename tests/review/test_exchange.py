from datetime import UTC, datetime

from rakuten.data.corrections import COLUMNS
from rakuten.review import exchange
from rakuten.review.desk import NewDecision, ReviewDesk
from rakuten.review.tables import Answer
from tests.review.conftest import MERGED, MakeProduct

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
LIVE_ID = 979_130_423_889_143_529  # of the product 9_9 of live traffic, which has no ids of its own


def test_corrections_are_the_labels_that_people_changed_or_gave(desk: ReviewDesk, product: MakeProduct) -> None:
    labels = [None, 40, 40, 40]
    products = [product(f"1_{number}", prdtypecode=label) for number, label in enumerate(labels)]
    desk.add([*products, product("9_9", source="api", productid=None, imageid=None)])
    for number, code in enumerate([2583, 10, None, 40, 10], start=1):
        answer = Answer.NO_CODE if code is None else Answer.CODE
        desk.decide(NewDecision("ann", number, answer, code, decided_at=AT))
    table = exchange.corrections(desk.decided(), MERGED)
    assert list(table.columns) == list(COLUMNS)
    at = "2026-01-02T03:04:05+00:00"
    assert table.to_numpy().tolist() == [
        [0, 1, "", "2583", "1", at, "Titre 1_0", ""],  # its first label, so its text is needed
        [1, 1, "40", "10", "2", at, "", ""],
        [2, 1, "40", "", "3", at, "", ""],  # none of the codes
        [LIVE_ID, LIVE_ID, "", "10", "5", at, "Titre 9_9", ""],
    ]  # the label of 1_3 was confirmed


def test_a_label_that_was_merged_into_the_answer_needs_no_correction(
    merging_desk: ReviewDesk, product: MakeProduct
) -> None:
    """30 is 10 today, in a decision from before the merger and in the label that was doubted."""
    merging_desk.add([product(f"1_{number}", prdtypecode=label) for number, label in enumerate([30, 10, 40, 30])])
    for number, code in enumerate([10, 30, 30, 40], start=1):
        merging_desk.decide(NewDecision("ann", number, Answer.CODE, code, decided_at=AT))
    table = exchange.corrections(merging_desk.decided(), MERGED)
    assert table[["productid", "old_prdtypecode", "prdtypecode"]].values.tolist() == [[2, "40", "10"], [3, "30", "40"]]
