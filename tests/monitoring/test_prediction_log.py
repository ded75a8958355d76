"""What the API keeps of its predictions: every one, the right features, no text unless asked, come what may."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest
import requests

from rakuten.features.monitored_columns import MONITORED_COLUMNS, NUMERIC_COLUMNS, PROJECTION_COLUMNS
from rakuten.models.classifier import ProductClassifier
from rakuten.models.pyfunc_model import PyfuncModel
from rakuten.monitoring.prediction_log import COLUMNS, PredictionLog, append, prediction_record, read_window
from tests.support.project import ROOT
from tests.serving.conftest import Api
from tests.serving.test_app import POOL as PRODUCT
from tests.serving.test_app import get, post
from tests.support.servers import wait_for


def rows(folder: Path, count: int) -> pd.DataFrame:
    """The log, once it has this many rows."""
    wait_for(lambda: len(read_window(folder, 10_000)) >= count, f"{count} rows in the live log", 30)
    return read_window(folder, 10_000)


@pytest.fixture(scope="module")
def watched_api(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Api, Path]]:
    folder = tmp_path_factory.mktemp("watched")
    server = Api(trained, folder / "log", API_LIVE=str(folder / "live")).wait()
    yield server, folder / "live"
    server.stop()


def test_every_prediction_is_kept_without_its_text(watched_api: tuple[Api, Path]) -> None:
    server, live = watched_api
    one = post(f"{server.url}/predict", json=PRODUCT).json()
    many = post(f"{server.url}/predict/batch", json={"products": [PRODUCT, {"designation": ""}]}).json()
    why = post(f"{server.url}/explain", json=PRODUCT).json()
    ids = [one["prediction_id"], *(each["prediction_id"] for each in many["predictions"])]
    ids.append(why["prediction"]["prediction_id"])
    found = rows(live, 4)
    assert sorted(found["prediction_id"]) == sorted(ids)
    assert len(set(ids)) == 4
    by_id = found.set_index("prediction_id")
    row = by_id.loc[ids[0]]
    assert (row["predicted"], row["confidence"]) == (one["prdtypecode"], one["confidence"])
    assert row["model_version"] == one["model_version"]
    assert (row["designation_len"], row["has_description"], row["has_image"]) == (23, 1, 0)
    assert row["language"] in ("french", "unknown")
    assert by_id.loc[ids[0], list(PROJECTION_COLUMNS["meaning"])].notna().all()
    assert by_id[list(PROJECTION_COLUMNS["picture"])].isna().all(axis=None)
    assert by_id.loc[ids[2], list(PROJECTION_COLUMNS["meaning"])].isna().all(), "no text, no embedding"
    assert found[["designation", "description"]].isna().all(axis=None)
    assert b"gonflable" not in b"".join(path.read_bytes() for path in live.iterdir())


def test_what_is_watched_live_is_what_training_kept(trained: Path, watched_api: tuple[Api, Path]) -> None:
    """The same product has the same features in the reference and in the log."""
    reference = pd.read_parquet(trained / "reports" / "reference.parquet")
    raw = pd.read_csv(trained / "data" / "raw" / "X_train.csv", dtype="str", keep_default_na=False)
    server, live = watched_api
    before, asked = len(read_window(live, 10_000)), raw.head(40)
    ids = []
    for row in asked.itertuples():
        answer = post(f"{server.url}/predict", json={"designation": row.designation, "description": row.description})
        ids.append(answer.json()["prediction_id"])
    found = rows(live, before + len(ids)).set_index("prediction_id").loc[ids]
    kept = reference.head(len(ids))
    same = ["designation_len", "description_len", "has_description", "language"]
    assert found[same].to_numpy().tolist() == kept[same].to_numpy().tolist()
    names = list(PROJECTION_COLUMNS["meaning"])
    assert found[names].to_numpy(float) == pytest.approx(kept[names].to_numpy(float), abs=2e-4, nan_ok=True)
    assert set(MONITORED_COLUMNS) <= set(reference.columns) and set(NUMERIC_COLUMNS) <= set(MONITORED_COLUMNS)


def test_a_server_that_is_killed_leaves_a_sound_log(start: Callable[..., Api], tmp_path: Path) -> None:
    server = start(API_LIVE=str(tmp_path / "live"))
    asking = threading.Thread(target=lambda: [_quietly(server) for _ in range(400)])
    asking.start()
    rows(tmp_path / "live", 20)
    os.killpg(server.process.pid, signal.SIGKILL)
    asking.join()
    before = len(read_window(tmp_path / "live", 10_000))
    assert before >= 20
    again = start(API_LIVE=str(tmp_path / "live"))
    post(f"{again.url}/predict", json=PRODUCT)
    assert len(rows(tmp_path / "live", before + 1)) == before + 1


def _quietly(server: Api) -> None:
    try:
        requests.post(f"{server.url}/predict", json=PRODUCT, timeout=10)
    except requests.RequestException:
        return


def test_two_servers_write_one_log_and_a_stop_loses_nothing(start: Callable[..., Api], tmp_path: Path) -> None:
    servers = [start(API_LIVE=str(tmp_path / "live")) for _ in range(2)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda at: post(f"{servers[at % 2].url}/predict", json=PRODUCT).json(), range(60)))
    for server in servers:
        assert server.stop() == 0
    found = read_window(tmp_path / "live", 10_000)
    assert sorted(found["prediction_id"]) == sorted(answer["prediction_id"] for answer in answers)


def test_a_log_that_cannot_be_written_costs_no_answer(start: Callable[..., Api], tmp_path: Path) -> None:
    (tmp_path / "live").write_text("a file where the folder should be")
    server = start(API_LIVE=str(tmp_path / "live"))
    for _ in range(3):
        assert post(f"{server.url}/predict", json=PRODUCT).status_code == 200

    def dropped() -> bool:
        return "rakuten_api_live_log_dropped_rows_total 3.0" in get(f"{server.url}/metrics").text

    wait_for(dropped, "the lost rows in the metrics", 30)
    assert server.log.read_text().count("the live log cannot be written") == 1


def test_a_new_day_begun_by_several_servers_at_once_loses_no_row(tmp_path: Path) -> None:
    """SQLite refuses at once, and does not wait, where two make a file's journal at the same moment."""
    row = tuple((dict.fromkeys(COLUMNS, 0) | {"model_version": "one", "language": "french"}).values())
    script = f"import sys, time; from pathlib import Path; from rakuten.serving import live_log\nrow = {row!r}\n"
    script += "for day in range(1, 29):\n"
    script += "    time.sleep(max(0, float(sys.argv[1]) + 0.1 * day - time.time()))\n"  # all at the same moment
    script += "    live_log._append_patiently(Path(sys.argv[2]) / f'2026-01-{day:02}.sqlite', [row])\n"
    command = [sys.executable, "-c", script, str(time.time() + 6), str(tmp_path)]
    servers = [subprocess.Popen(command, cwd=ROOT) for _ in range(3)]
    assert [server.wait(120) for server in servers] == [0, 0, 0]
    assert len(read_window(tmp_path, 1000)) == 3 * 28


@pytest.mark.parametrize("with_text", [True, False])
def test_texts_are_kept_where_asked_for(trained: Path, tmp_path: Path, with_text: bool) -> None:
    model = PyfuncModel(ProductClassifier.load(trained / "models"))
    texts = [("Roman", "policier")]
    products, _ = model.describe_all(texts, [None])
    live = PredictionLog(tmp_path, 30, with_text, lambda _: None)
    live.put(prediction_record("one", ["a"], texts, products, model.classifier.rank(products, 27)))
    live.stop()
    assert live.lag() == 0
    kept = read_window(tmp_path, 1)[["designation", "description"]].to_numpy().tolist()
    assert kept == ([["Roman", "policier"]] if with_text else [[None, None]])


def test_old_days_are_forgotten_and_windows_span_days(
    trained: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    row = dict.fromkeys(COLUMNS, 0) | {"model_version": "one", "language": "french"}
    for day, many in (("2020-01-01", 5), ("2020-01-02", 3)):
        lines = [tuple((row | {"time": at, "prediction_id": f"{day}-{at}"}).values()) for at in range(many)]
        append(tmp_path / f"{day}.sqlite", lines)
    found = read_window(tmp_path, 4)
    assert found["prediction_id"].tolist() == ["2020-01-01-4", "2020-01-02-0", "2020-01-02-1", "2020-01-02-2"]
    assert read_window(tmp_path, 4, "another").empty
    # A day's file that is none is left out, and said.
    (tmp_path / "2020-01-03.sqlite").write_bytes(b"")
    (tmp_path / "2020-01-04.sqlite").write_text("no database")
    assert len(read_window(Path(os.path.relpath(tmp_path)), 4)) == 4
    assert [record.message for record in caplog.records if "left out, not a log of this code" in record.message]
    model = PyfuncModel(ProductClassifier.load(trained / "models"))
    products, _ = model.describe_all([("Roman", "")], [None])
    live = PredictionLog(tmp_path, 30, False, lambda _: None)
    live.put(prediction_record("one", ["a"], [("Roman", "")], products, model.classifier.rank(products, 27)))
    live.stop()
    assert [path.name for path in tmp_path.glob("*.sqlite")] == [f"{datetime.now(UTC).date()}.sqlite"]
