from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import URL, inspect

from rakuten.errors import UserError
from rakuten.review.database import open_database, transaction
from rakuten.review.desk import ReviewDesk
from rakuten.review.tables import Base
from tests.review.conftest import MakeProduct
from tests.support.review import check_upgraded, fill_first_tables

NOBODY = URL.create("postgresql", "user", "secret", "127.0.0.1", 1, "name").render_as_string(hide_password=False)


def test_the_migrations_make_the_tables_of_the_models(url: str) -> None:
    with open_database(url).connect() as connection:
        options: dict[str, Any] = {"version_table": "review_alembic_version", "compare_type": True}
        # Alembic cannot compare an index with a descending column.
        options["include_object"] = lambda _, name, *__: name != "review_products_teaching"
        assert compare_metadata(MigrationContext.configure(connection, opts=options), Base.metadata) == []
        assert "review_products_teaching" in {
            each["name"] for each in inspect(connection).get_indexes("review_products")
        }


def test_a_database_that_exists_keeps_what_it_has(url: str, product: MakeProduct) -> None:
    ReviewDesk(open_database(url), 1).add([product()])
    assert ReviewDesk(open_database(url), 1).counts()["state"] == {"open": 1}


def test_a_database_of_the_first_tables_is_brought_up_to_date(url: str) -> None:
    check_upgraded(url, fill_first_tables(url))


def test_tables_of_others_are_left_alone(url: str) -> None:
    engine = open_database(url)
    with engine.connect() as connection:
        connection.exec_driver_sql("CREATE TABLE alembic_version (version_num VARCHAR)")  # of MLflow, say
        connection.exec_driver_sql("INSERT INTO alembic_version VALUES ('abc')")
        connection.commit()
    assert "alembic_version" in inspect(open_database(url)).get_table_names()


def test_a_transaction_that_fails_changes_nothing(url: str, product: MakeProduct) -> None:
    engine = open_database(url)
    desk = ReviewDesk(engine, 1)
    broken = product("1_2")
    del broken["predicted"]
    with pytest.raises(Exception, match="predicted"):
        desk.add([product("1_1"), broken])
    assert desk.counts()["state"] == {}
    with pytest.raises(ZeroDivisionError), transaction(engine):
        raise ZeroDivisionError


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("nonsense", "REVIEW_DATABASE_URL: Could not parse"),
        ("nosuch://host/name", "REVIEW_DATABASE_URL: .*nosuch"),
        (NOBODY, r"postgresql\+psycopg2://user:\*\*\*@127.0.0.1:1/name cannot be opened"),
    ],
)
def test_a_database_that_cannot_be_opened_is_named_without_its_password(address: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as refused:
        open_database(address)
    assert "secret" not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "review.db").write_text("not a database, but long enough to be taken for the header of one" * 20)
    with pytest.raises(UserError, match="review.db cannot be opened: file is not a database"):
        open_database(f"sqlite:///{tmp_path / 'review.db'}")
