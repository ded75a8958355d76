"""The API's prediction log: every prediction, the features that training kept too, no text, whatever happens."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pytest
import requests

from rakuten.features.monitored_columns import MONITORED_COLUMNS, PROJECTION_COLUMNS
from rakuten.monitoring.prediction_log import read_window
from rakuten.types import IMAGE, TEXT
from tests.support.api import POOL, Api, get, post
from tests.support.servers import wait_for


def read_at_least(folder: Path, n_rows: int) -> pd.DataFrame:
    """The log, once it has this many rows."""
    wait_for(lambda: len(read_window(folder, 10_000)) >= n_rows, f"{n_rows} rows in the prediction log", 60)
    return read_window(folder, 10_000)


@pytest.fixture(scope="module")
def logging_api(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Api, Path]]:
    """An API and the folder of its log."""
    folder = tmp_path_factory.mktemp("logging")
    server = Api(trained, folder / "log", API_LIVE=str(folder / "live")).wait()
    yield server, folder / "live"
    server.stop()


def test_every_prediction_is_logged_without_its_text(logging_api: tuple[Api, Path]) -> None:
    server, log_folder = logging_api
    before = len(read_window(log_folder, 10_000))
    one = post(f"{server.url}/predict", json=POOL).json()
    batch = post(f"{server.url}/predict/batch", json={"products": [POOL, {"designation": ""}]}).json()
    explained = post(f"{server.url}/explain", json=POOL).json()
    ids = [answer["prediction_id"] for answer in (one, *batch["predictions"], explained["prediction"])]
    logged = read_at_least(log_folder, before + 4)
    assert len(set(ids)) == 4
    assert sorted(logged["prediction_id"][before:]) == sorted(ids)

    by_id = logged.set_index("prediction_id").loc[ids]
    row = by_id.loc[ids[0]]
    assert (row["predicted"], row["confidence"]) == (one["prdtypecode"], one["confidence"])
    assert row["model_version"] == one["model_version"]
    answers = [one, *batch["predictions"], explained["prediction"]]
    unknown = [answer["novelty"] is None for answer in answers]
    assert unknown == [False, False, True, False], "no text, no novelty"
    expected = [pd.NA if answer["novelty"] is None else answer["is_novel"] for answer in answers]
    assert by_id["is_novel"].tolist() == expected
    assert (row["designation_len"], row["has_description"], row["has_image"]) == (23, 1, 0)
    assert row["language"] in ("french", "unknown")
    assert by_id.loc[ids[0], list(PROJECTION_COLUMNS[TEXT])].notna().all()
    assert by_id.loc[ids[2], list(PROJECTION_COLUMNS[TEXT])].isna().all(), "no text, no embedding"
    assert by_id[list(PROJECTION_COLUMNS[IMAGE])].isna().all(axis=None)
    assert by_id[["designation", "description"]].isna().all(axis=None)
    assert b"gonflable" not in b"".join(path.read_bytes() for path in log_folder.iterdir())


def test_the_same_product_has_the_same_features_in_training_and_live(
    trained: Path, logging_api: tuple[Api, Path]
) -> None:
    server, log_folder = logging_api
    reference = pd.read_parquet(trained / "reports" / "reference.parquet").head(40)
    raw = pd.read_csv(trained / "data" / "raw" / "X_train.csv", dtype="str", keep_default_na=False).head(40)
    before = len(read_window(log_folder, 10_000))
    ids = []
    for row in raw.itertuples():
        answer = post(f"{server.url}/predict", json={"designation": row.designation, "description": row.description})
        ids.append(answer.json()["prediction_id"])
    logged = read_at_least(log_folder, before + len(ids)).set_index("prediction_id").loc[ids]
    equal = ["designation_len", "description_len", "has_description", "language"]
    assert logged[equal].to_numpy().tolist() == reference[equal].to_numpy().tolist()
    close = list(PROJECTION_COLUMNS[TEXT])
    assert logged[close].to_numpy(float) == pytest.approx(reference[close].to_numpy(float), abs=2e-4, nan_ok=True)
    assert set(MONITORED_COLUMNS) <= set(reference.columns)


def test_a_server_that_is_killed_leaves_a_sound_log(start: Callable[..., Api], tmp_path: Path) -> None:
    server = start(API_LIVE=str(tmp_path / "live"))

    def send_until_killed() -> None:
        for _ in range(400):
            try:
                requests.post(f"{server.url}/predict", json=POOL, timeout=10)
            except requests.RequestException:
                return

    sender = threading.Thread(target=send_until_killed)
    sender.start()
    read_at_least(tmp_path / "live", 20)
    os.killpg(server.process.pid, signal.SIGKILL)
    sender.join()
    before = len(read_window(tmp_path / "live", 10_000))
    assert before >= 20
    restarted = start(API_LIVE=str(tmp_path / "live"))
    post(f"{restarted.url}/predict", json=POOL)
    assert len(read_at_least(tmp_path / "live", before + 1)) == before + 1


def test_two_servers_write_one_log_and_a_stop_loses_nothing(start: Callable[..., Api], tmp_path: Path) -> None:
    servers = [start(API_LIVE=str(tmp_path / "live")) for _ in range(2)]
    urls = [f"{servers[number % 2].url}/predict" for number in range(60)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda url: post(url, json=POOL).json(), urls))
    for server in servers:
        assert server.stop() == 0
    logged = read_window(tmp_path / "live", 10_000)
    assert sorted(logged["prediction_id"]) == sorted(answer["prediction_id"] for answer in answers)


def test_a_log_that_cannot_be_written_costs_no_answer(start: Callable[..., Api], tmp_path: Path) -> None:
    (tmp_path / "live").write_text("a file where the folder should be")
    server = start(API_LIVE=str(tmp_path / "live"))
    for _ in range(3):
        assert post(f"{server.url}/predict", json=POOL).status_code == 200

    def rows_are_dropped() -> bool:
        return "rakuten_api_live_log_dropped_rows_total 3.0" in get(f"{server.url}/metrics").text

    wait_for(rows_are_dropped, "the dropped rows in the metrics", 60)
    assert server.log.read_text().count("the prediction log cannot be written") == 1
