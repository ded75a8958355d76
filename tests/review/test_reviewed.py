"""Decisions as a table: one row a product, with what the model had said."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rakuten.errors import UserError
from rakuten.review.database import open_database
from rakuten.review.desk import NewDecision, ReviewDesk
from rakuten.review.reviewed import COLUMNS, existing_desk, reviewed_products
from rakuten.review.tables import Answer

MakeProduct = Callable[..., dict[str, Any]]


def test_each_decided_product_is_a_row(desk: ReviewDesk, product: MakeProduct) -> None:
    """Skipped products and decisions that were taken back do not count."""
    keys = ["1_1", "1_2", "1_3", "1_4", "1_5"]
    desk.add([product(key, is_audit=key == "1_2", model_version=f"version {key}") for key in keys])
    desk.add([product("1_1", model_version="version 1_1", prediction_id="p1")])  # live traffic, answered again
    desk.decide(NewDecision("ann", 1, Answer.CODE, 40))
    desk.decide(NewDecision("ann", 2, Answer.NO_CODE))
    desk.decide(NewDecision("ann", 3, Answer.SKIP))
    desk.decide(NewDecision("ann", 4, Answer.CODE, 10))
    desk.decide(NewDecision("ann", 4, Answer.UNDO))
    found = reviewed_products(desk)
    assert list(found.columns) == list(COLUMNS)
    assert found.values.tolist() == [
        ["1_1", "p1", "version 1_1", 10, 40, False],
        ["1_2", None, "version 1_2", 10, 0, True],
    ]


def test_two_people_count_once_and_only_if_they_agree(url: str, product: MakeProduct) -> None:
    desk = ReviewDesk(open_database(url), agreement=2)
    desk.add([product("1_1"), product("1_2"), product("1_3")])
    for person, code in (("ann", 40), ("ben", 40)):
        desk.decide(NewDecision(person, 1, Answer.CODE, code))
    for person, code in (("ann", 40), ("ben", 10)):
        desk.decide(NewDecision(person, 2, Answer.CODE, code))
    desk.decide(NewDecision("ann", 3, Answer.CODE, 40))
    assert reviewed_products(desk)[["key", "prdtypecode"]].values.tolist() == [["1_1", 40]]


def test_without_a_desk_there_are_no_rows() -> None:
    assert reviewed_products(None).empty
    assert list(reviewed_products(None).columns) == list(COLUMNS)


def test_a_desk_that_nobody_has_used_is_not_created(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "review.db"
    monkeypatch.setenv("REVIEW_DATABASE_URL", f"sqlite:///{path}")
    assert existing_desk(1) is None
    assert not path.exists()
    open_database(f"sqlite:///{path}")
    assert isinstance(existing_desk(1), ReviewDesk)


def test_a_wrong_url_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REVIEW_DATABASE_URL", "no url")
    with pytest.raises(UserError, match="REVIEW_DATABASE_URL"):
        existing_desk(1)
