"""The pipeline flow's own steps, without Prefect's engine; the whole flow: tests/integration/test_flows.py."""

from pathlib import Path

import pandas as pd
import pytest

from flows import pipeline
from flows.common import RetryableError
from rakuten.review import files
from rakuten.review.database import open_database
from rakuten.review.desk import NewDecision, ReviewDesk
from rakuten.review.tables import Answer
from tests.review.conftest import product as product_fixture

product = product_fixture


@pytest.fixture
def corrections(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Corrections that another machine exported; the review desk of this one is review.db beside them."""
    monkeypatch.setattr(files, "EXPORTED", tmp_path / "corrections.csv")
    monkeypatch.setenv("REVIEW_DATABASE_URL", f"sqlite:///{tmp_path / 'review.db'}")
    (tmp_path / "corrections.csv").write_text("of another machine")
    return tmp_path / "corrections.csv"


def test_decisions_are_written_where_ingest_reads_them(corrections: Path, product: object) -> None:
    desk = ReviewDesk(open_database(f"sqlite:///{corrections.parent / 'review.db'}"), 1)
    desk.add([product("5_1"), product("5_2", prdtypecode=40), product("5_3")])  # type: ignore[operator]
    for number, code in ((1, 2583), (2, 40)):  # the second confirms the label that it has
        desk.decide(NewDecision("ann", number, Answer.CODE, code))
    assert pipeline.export_corrections.fn() == 1
    (row,) = pd.read_csv(corrections).to_dict("records")
    assert (row["productid"], row["imageid"], row["prdtypecode"], row["decisions"]) == (1, 5, 2583, 1)


def test_a_desk_without_decisions_leaves_the_corrections_as_they_are(corrections: Path) -> None:
    assert pipeline.export_corrections.fn() == 0
    assert not (corrections.parent / "review.db").exists()
    open_database(f"sqlite:///{corrections.parent / 'review.db'}")
    assert pipeline.export_corrections.fn() == 0
    assert corrections.read_text() == "of another machine"


def test_a_database_that_does_not_answer_is_tried_again(corrections: Path) -> None:
    (corrections.parent / "review.db").write_bytes(b"no database")
    with pytest.raises(RetryableError, match="the review desk: the review database"):
        pipeline.export_corrections.fn()
    assert corrections.read_text() == "of another machine"
