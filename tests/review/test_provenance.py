"""From a train row back to its decisions, through what ingest wrote."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pandas as pd

from rakuten.data.corrections import Corrections
from rakuten.data.taxonomy import current_taxonomy
from rakuten.review import exchange
from rakuten.review.desk import NewDecision, ReviewDesk
from rakuten.review.provenance import corrections_of
from rakuten.review.tables import Answer


def test_a_corrected_row_names_its_decisions(desk: ReviewDesk, product: Callable[..., dict[str, Any]]) -> None:
    at = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
    desk.add([product("5_1", prdtypecode=40), product("5_2"), product("5_3")])
    desk.decide(NewDecision("ann", 1, Answer.CODE, 2583, decided_at=at))
    desk.decide(NewDecision("ben", 2, Answer.CODE, 50, decided_at=at))
    corrections = Corrections(exchange.corrections(desk.decided(), current_taxonomy()).astype("str"))
    rows = pd.DataFrame({"index": ["7", "8"], "productid": ["1", "3"], "imageid": ["5", "5"], "prdtypecode": "40"})
    rows = rows.assign(designation="Table", description="")
    corrections.apply(rows)
    corrections.added_rows(9)
    outcomes = corrections.outcome_table()
    assert list(corrections_of("1", outcomes, desk.decided())) == [
        "train row 7: product 1, image 5: 40 -> 2583: label replaced",
        "  decision 1: ann, 2026-01-02 03:04 UTC; model abc had said 10 (0.40)",
    ]
    assert list(corrections_of("2", outcomes, [])) == [
        "train row 9: product 2, image 5: no label -> 50: row added",
        "  decision 2: does not stand in this review desk",
    ]
    assert list(corrections_of("3", outcomes, desk.decided())) == []
