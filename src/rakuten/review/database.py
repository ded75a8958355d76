"""The database of the review desk: SQLite in a file by default, PostgreSQL by its URL."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary

from alembic import command
from alembic.config import Config
from filelock import FileLock
from sqlalchemy import Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.orm import Session

from rakuten.config import PROJECT
from rakuten.errors import UserError

MIGRATIONS = Path(__file__).parent / "migrations"
DEFAULT_URL = f"sqlite:///{(PROJECT / 'data' / 'review' / 'review.db').as_posix()}"
BUSY_SECONDS = 30  # how long to wait while another process writes to an SQLite file
MAX_CONNECTIONS = 16  # kept open
MAPPED_BYTES = 256 * 2**20  # of an SQLite file, as far as it is that long
READING = {"review_reading": True}  # marks a connection that writes nothing
MIGRATION_LOCK = 0x72766577  # of PostgreSQL's advisory locks: any number that nothing else uses

_write_locks: WeakKeyDictionary[Engine, Lock] = WeakKeyDictionary()
_write_locks_lock = Lock()


def database_url() -> str:
    """What REVIEW_DATABASE_URL says, or the file data/review/review.db."""
    return os.environ.get("REVIEW_DATABASE_URL") or DEFAULT_URL


def open_database(url: str) -> Engine:
    """Open the database, and create its tables or bring them up to date.

    Args:
        url: as SQLAlchemy takes it, of SQLite or PostgreSQL.

    Raises:
        UserError: the URL is wrong, or the database cannot be opened.
    """
    try:
        address = make_url(url)
        if address.get_backend_name() == "sqlite":
            engine = _open_sqlite(address)
        else:
            if address.drivername == "postgresql":
                address = address.set(drivername="postgresql+psycopg2")  # the driver that MLflow uses too
            engine = create_engine(address, pool_pre_ping=True, pool_size=MAX_CONNECTIONS)
        _migrate(engine)
    except (ArgumentError, ModuleNotFoundError) as error:
        raise UserError(f"REVIEW_DATABASE_URL: {error}") from error
    except (SQLAlchemyError, OSError) as error:
        shown = address.render_as_string(hide_password=True)
        raise UserError(f"the review database {shown} cannot be opened: {_first_line(error)}") from error
    return engine


@contextmanager
def transaction(engine: Engine) -> Iterator[Session]:
    """A session whose changes are committed together when the block ends, or not at all if it raises.

    Threads that write to an SQLite file wait for each other here: SQLite itself looks again after ever longer pauses.
    """
    with _write_lock(engine), Session(engine, expire_on_commit=False) as session, session.begin():
        yield session


@contextmanager
def reading(engine: Engine) -> Iterator[Session]:
    """A session that changes nothing. It waits for no writer, and no writer waits for it."""
    with Session(engine.execution_options(**READING), expire_on_commit=False) as session:
        yield session


def _write_lock(engine: Engine) -> AbstractContextManager[Any]:
    with _write_locks_lock:
        return _write_locks.setdefault(engine, Lock()) if engine.dialect.name == "sqlite" else nullcontext()


def _open_sqlite(address: URL) -> Engine:
    if address.database:
        Path(address.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(address, connect_args={"timeout": BUSY_SECONDS}, pool_size=MAX_CONNECTIONS)

    # Python's sqlite3 begins a transaction at the first write only: a reader that then writes would fail, not wait.
    @event.listens_for(engine, "connect")
    def configure(connection: object, _: object) -> None:
        connection.isolation_level = None  # type: ignore[attr-defined]
        cursor = connection.cursor()  # type: ignore[attr-defined]
        cursor.execute("PRAGMA journal_mode = WAL")  # readers do not wait for the writer
        cursor.execute("PRAGMA synchronous = FULL")  # a decision that was answered survives a power cut
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.execute(f"PRAGMA mmap_size = {MAPPED_BYTES}")  # every connection reads the system's one copy
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        is_reading = READING.items() <= connection.get_execution_options().items()
        connection.exec_driver_sql("BEGIN" if is_reading else "BEGIN IMMEDIATE")

    return engine


def _migrate(engine: Engine) -> None:
    """Run the migrations that the database lacks; one process at a time."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    database = engine.url.database
    is_file = engine.dialect.name == "sqlite" and database
    with FileLock(f"{database}.lock") if is_file else nullcontext(), engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": MIGRATION_LOCK})
        try:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            connection.commit()
        finally:
            connection.rollback()
            if engine.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": MIGRATION_LOCK})
                connection.commit()


def _first_line(error: Exception) -> str:
    cause = error.__cause__ or getattr(error, "orig", None) or error
    return str(cause).strip().splitlines()[0] if str(cause).strip() else type(error).__name__
