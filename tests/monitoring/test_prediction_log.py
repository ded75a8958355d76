"""The prediction log by itself: no row lost or written twice, no text unless asked for, no error for the caller."""

import multiprocessing
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from rakuten.features.feature_set import FeatureBatch
from rakuten.models.classifier import TopK
from rakuten.monitoring import prediction_log
from rakuten.monitoring.prediction_log import (
    COLUMNS,
    PredictionLog,
    append_rows,
    known_novel,
    prediction_record,
    read_window,
)
from tests.support.features import feature_table
from tests.support.prediction_log import append_each_day
from tests.support.servers import wait_for

TEXTS = [("Roman", "policier"), ("Piscine", "")]
NOVELTY = np.array([0.995, np.nan, 0.5])
TABLE_BEFORE = "live_43d63b4b"  # as servers named it before novel products were logged
Open = Callable[..., PredictionLog]


def record(n_products: int = 2, model_version: str = "one") -> prediction_log.PredictionRecord:
    """Products without embeddings, of which the first is predicted as class 10 and needs review."""
    texts = (TEXTS * n_products)[:n_products]
    batch = FeatureBatch(feature_table([title for title, _ in texts], [description for _, description in texts]))
    first = np.arange(n_products) == 0
    codes = np.where(first[:, None], [[10, 2583]], [[2583, 10]])
    confidence = np.where(first[:, None], [[0.4, 0.3]], [[0.9, 0.05]])
    ids = [f"p{number}" for number in range(n_products)]
    return prediction_record(model_version, ids, texts, batch, TopK(codes, confidence, first, first, confidence[:, 0]))


def row(**values: Any) -> tuple[Any, ...]:
    return tuple((dict.fromkeys(COLUMNS, 0) | {"model_version": "one", "language": "french"} | values).values())


@pytest.fixture
def dropped() -> list[int]:
    """Numbers of rows that were dropped."""
    return []


@pytest.fixture
def open_log(tmp_path: Path, dropped: list[int]) -> Iterator[Open]:
    """`open_log(keep_days=30, with_text=False)`: a log in tmp_path; stopped at the end."""
    logs: list[PredictionLog] = []

    def make(keep_days: int = 30, with_text: bool = False, folder: Path = tmp_path) -> PredictionLog:
        logs.append(PredictionLog(folder, keep_days, with_text, dropped.append))
        return logs[-1]

    yield make
    for log in logs:
        log.stop()


def test_a_record_becomes_a_row_for_each_product(open_log: Open, tmp_path: Path) -> None:
    before, log = time.time(), open_log()
    log.enqueue(record())
    log.stop()
    frame = read_window(tmp_path, 10)
    assert tuple(frame.columns) == COLUMNS
    assert frame["time"].between(before, time.time()).all()
    expected = {
        "prediction_id": ["p0", "p1"],
        "model_version": ["one", "one"],
        "predicted": [10, 2583],
        "confidence": [0.4, 0.9],
        "needs_review": [1, 0],
        "designation_len": [5, 7],
        "has_description": [1, 0],
        "has_image": [0, 0],
        "is_novel": [True, False],
    }
    assert frame[list(expected)].to_dict("list") == expected
    assert frame[["text_0", "picture_7"]].isna().all(axis=None), "no embedding, no projection"


def test_whether_a_product_is_novel_may_not_be_known(open_log: Open, tmp_path: Path) -> None:
    """One without text and image, or any by a model of before the novelty was measured."""
    top = TopK(np.array([[10]] * 3), np.full((3, 1), 0.9), *np.array([[True, False, False]] * 2), NOVELTY)
    assert known_novel(top) == [True, None, False]
    log = open_log()
    log.enqueue(replace(record(3), is_novel=known_novel(top)))
    log.stop()
    assert read_window(tmp_path, 10)["is_novel"].tolist() == [True, pd.NA, False]


def append_before(path: Path, rows: Sequence[tuple[Any, ...]]) -> None:
    """Write rows as servers did before novel products were logged."""
    columns = [name for name in COLUMNS if name != "is_novel"]
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(f"CREATE TABLE IF NOT EXISTS {TABLE_BEFORE} ({', '.join(columns)})")
        values = ", ".join("?" * len(columns))
        database.executemany(f"INSERT INTO {TABLE_BEFORE} VALUES ({values})", [row[: len(columns)] for row in rows])


def test_a_log_of_before_novel_products_were_logged_is_read(tmp_path: Path) -> None:
    append_before(tmp_path / "2026-01-01.sqlite", [row(time=1, prediction_id="old")])
    append_before(tmp_path / "2026-01-02.sqlite", [row(time=number, prediction_id=f"p{number}") for number in (2, 4)])
    append_rows(
        tmp_path / "2026-01-02.sqlite",
        [row(time=3, prediction_id="p3", is_novel=1), row(time=5, prediction_id="p5", model_version="two")],
    )
    window = read_window(tmp_path, 10)
    assert window["prediction_id"].tolist() == ["old", "p2", "p3", "p4", "p5"]
    assert window["is_novel"].tolist() == [pd.NA, pd.NA, True, pd.NA, False]
    assert read_window(tmp_path, 3)["prediction_id"].tolist() == ["p3", "p4", "p5"]
    assert read_window(tmp_path, 3, "one")["prediction_id"].tolist() == ["p2", "p3", "p4"]
    assert read_window(tmp_path, 10, "two")["is_novel"].tolist() == [False]


@pytest.mark.parametrize(("with_text", "expected"), [(True, TEXTS), (False, [(None, None)] * 2)])
def test_texts_are_logged_only_where_asked_for(
    open_log: Open, tmp_path: Path, with_text: bool, expected: list[tuple[str, str]]
) -> None:
    log = open_log(with_text=with_text)
    log.enqueue(record())
    log.stop()
    logged = read_window(tmp_path, 10)[["designation", "description"]]
    assert list(logged.itertuples(index=False, name=None)) == expected


def test_the_lag_is_the_wait_of_the_oldest_pending_row(
    open_log: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prediction_log, "FLUSH_SECONDS", 3600)
    log = open_log()
    assert log.lag() == 0
    monkeypatch.setattr(time, "time", lambda: 1000.0)
    log.enqueue(record())
    monkeypatch.setattr(time, "time", lambda: 1007.0)
    log.enqueue(record())
    assert log.lag() == 7
    log.stop()
    assert log.lag() == 0


def test_rows_beyond_the_limit_are_dropped_whole_records_at_a_time(
    open_log: Open, dropped: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prediction_log, "FLUSH_SECONDS", 3600)
    monkeypatch.setattr(prediction_log, "MAX_PENDING_ROWS", 5)
    log = open_log()
    for n_products in (3, 3, 2):
        log.enqueue(record(n_products))
    log.stop()
    assert dropped == [3]
    assert len(read_window(tmp_path, 10)) == 5


def test_a_log_that_cannot_be_written_drops_rows_and_warns_once(
    open_log: Open, dropped: list[int], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "log"
    folder.write_text("a file where the folder should be")
    log = open_log(folder=folder)
    for _ in range(2):
        n_failures = len(dropped)
        log.enqueue(record())
        wait_for(lambda before=n_failures: len(dropped) > before, "the dropped rows", 30)  # type: ignore[misc]
    assert dropped == [2, 2]
    assert [message for message in caplog.messages if "the prediction log cannot be written" in message] == [
        caplog.messages[0]
    ]


def test_a_record_that_cannot_be_built_is_dropped(
    open_log: Open, dropped: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ValueError("cannot be built")

    monkeypatch.setattr(prediction_log, "monitored_values", fail)
    open_log().enqueue(record())
    assert dropped == [2]


def test_days_beyond_the_limit_are_deleted(open_log: Open, tmp_path: Path) -> None:
    for day in ("2020-01-05", "2020-01-01", "2020-03-01", "2020-03-02"):
        append_rows(tmp_path / f"{day}.sqlite", [row()])
    (tmp_path / "notes.sqlite").touch()
    log = open_log(keep_days=2)
    log.enqueue(record())
    log.stop()
    today = str(datetime.now(UTC).date())
    assert sorted(path.stem for path in tmp_path.glob("*.sqlite")) == ["2020-03-01", "2020-03-02", today, "notes"]


def test_a_clock_that_jumps_ahead_deletes_no_day(
    open_log: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Later(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> "Later":
            return cls(2099, 1, 1, tzinfo=tz)

    days = ["2020-01-01", "2020-01-02"]
    for day in days:
        append_rows(tmp_path / f"{day}.sqlite", [row()])
    monkeypatch.setattr(prediction_log, "datetime", Later)
    log = open_log(keep_days=30)
    log.enqueue(record())
    log.stop()
    assert sorted(path.stem for path in tmp_path.glob("*.sqlite")) == [*days, "2099-01-01"]


@pytest.mark.parametrize("value", ["\ud800", 2**64, object()])
def test_a_row_that_cannot_be_written_loses_no_other(tmp_path: Path, value: object) -> None:
    rows = [row(prediction_id=name) for name in "abc"]
    rows[1:1] = [row(language=value), row()[1:]]
    assert len(append_rows(tmp_path / "2026-01-01.sqlite", rows)) == 2
    assert read_window(tmp_path, 10)["prediction_id"].tolist() == ["a", "b", "c"]


def test_a_row_that_cannot_be_written_is_counted(open_log: Open, dropped: list[int], tmp_path: Path) -> None:
    log = open_log(with_text=True)
    log.enqueue(replace(record(), texts=[("\ud800", ""), ("Piscine", "")]))
    log.stop()
    assert dropped == [1]
    assert read_window(tmp_path, 10)["designation"].tolist() == ["Piscine"]


@pytest.mark.heavy
def test_a_new_day_begun_by_several_processes_at_once_loses_no_row(tmp_path: Path) -> None:
    n_processes, n_days = 3, 28
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(n_processes)
    processes = [context.Process(target=append_each_day, args=(tmp_path, n_days, barrier)) for _ in range(n_processes)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * n_processes
    assert len(read_window(tmp_path, 1000)) == n_processes * n_days


@pytest.fixture
def two_days(tmp_path: Path) -> Path:
    """Five predictions on one day, three on the next."""
    for day, n_rows in (("2020-01-01", 5), ("2020-01-02", 3)):
        rows = [row(time=number, prediction_id=f"{day}-{number}") for number in range(n_rows)]
        append_rows(tmp_path / f"{day}.sqlite", rows)
    return tmp_path


def test_a_window_is_the_latest_rows_across_days_oldest_first(two_days: Path) -> None:
    expected = ["2020-01-01-4", "2020-01-02-0", "2020-01-02-1", "2020-01-02-2"]
    assert read_window(two_days, 4)["prediction_id"].tolist() == expected
    assert read_window(two_days, 2)["prediction_id"].tolist() == expected[2:]
    assert len(read_window(two_days, 100)) == 8
    assert len(read_window(Path(os.path.relpath(two_days)), 4)) == 4


def test_the_latest_rows_are_the_latest_by_time(two_days: Path) -> None:
    """Servers may write later what they predicted earlier."""
    append_rows(two_days / "2020-01-02.sqlite", [row(time=-1, prediction_id="written late")])
    assert read_window(two_days, 3)["prediction_id"].tolist() == ["2020-01-02-0", "2020-01-02-1", "2020-01-02-2"]
    assert "written late" in read_window(two_days, 4)["prediction_id"].tolist()


def test_a_window_may_be_of_one_model(two_days: Path) -> None:
    append_rows(two_days / "2020-01-02.sqlite", [row(model_version="another", time=9)])
    assert read_window(two_days, 4, "another")["model_version"].tolist() == ["another"]
    assert read_window(two_days, 100, "one")["model_version"].tolist() == ["one"] * 8
    empty = read_window(two_days, 4, "none")
    assert empty.empty and tuple(empty.columns) == COLUMNS


def test_a_file_that_is_no_log_is_left_out_with_a_warning(two_days: Path, caplog: pytest.LogCaptureFixture) -> None:
    (two_days / "2020-01-03.sqlite").write_bytes(b"")
    (two_days / "2020-01-04.sqlite").write_text("no database")
    with closing(sqlite3.connect(two_days / "2020-01-05.sqlite")) as database:
        database.execute("CREATE TABLE live_of_another_version (time REAL)")
    assert len(read_window(two_days, 4)) == 4
    warnings = [
        message for message in caplog.messages if "skipped, not a prediction log of this version of the code" in message
    ]
    assert len(warnings) == 3


def test_there_may_be_no_log_yet(tmp_path: Path) -> None:
    assert read_window(tmp_path / "none", 4).empty
