"""A database of the review desk as an earlier version left it."""

import json
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine, inspect, text

from rakuten.review.database import MIGRATIONS, open_database
from rakuten.review.desk import ReviewDesk

FIRST = "0001"


def fill_first_tables(url: str) -> list[dict[str, Any]]:
    """Make the tables of the first version, with three products, one of the audit sample, and a decision."""
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg2:"))
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    same = {"source": "file", "imageid": 1, "designation": "é", "description": "", "language": "french", "group": ""}
    same |= {"predicted": 10, "model_version": "abc", "priority": 0.5, "added_at": "2026-01-02 03:04:05+00:00"}
    rows = [
        same
        | {"key": f"1_{number}", "productid": number, "confidence": confidence, "is_audit": audit, "state": state}
        | {"top": json.dumps([[10, confidence], [40, 0.01]])}
        for number, (confidence, audit, state) in enumerate(
            [(0.4, False, "open"), (0.98, True, "open"), (0.5, False, "decided")], start=1
        )
    ]
    names = [*rows[0]]
    columns, values = ", ".join(f'"{name}"' for name in names), ", ".join(f":{name}" for name in names)
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, FIRST)
        for row in rows:
            connection.execute(text(f"INSERT INTO review_products ({columns}) VALUES ({values})"), row)
        connection.execute(
            text(
                "INSERT INTO review_decisions (product_id, person, answer, prdtypecode, note, decided_at, predicted, "
                "confidence, model_version) "
                "VALUES (3, 'ann', 'code', 40, '', '2026-01-02 03:04:05+00:00', 10, 0.5, 'abc')"
            )
        )
        connection.commit()
    engine.dispose()
    return rows


def check_upgraded(url: str, rows: list[dict[str, Any]]) -> None:
    """Assert that the database is of this version, and has what it had."""
    engine = open_database(url)
    desk = ReviewDesk(engine, 1)
    assert desk.counts()["state"] == {"decided": 1, "open": 2}
    products = [desk.product(number) for number in (1, 2, 3)]
    assert [each.confidence for each in products if each] == [row["confidence"] for row in rows]
    assert [each.shown_confidence for each in products if each] == [0.4, 0.45, 0.5]
    assert [each.shown_top[0] for each in products if each] == [[10, 0.4], [10, 0.45], [10, 0.5]]
    assert not any(each.is_novel for each in products if each)
    ((product, answer, (decision,)),) = desk.decided()
    assert (product.id, answer, decision.person) == (3, 40, "ann")
    assert [each.id for each in desk.take("bob", 5)] == [1, 2]
    assert "review_decisions_once" in {each["name"] for each in inspect(engine).get_indexes("review_decisions")}
    engine.dispose()
