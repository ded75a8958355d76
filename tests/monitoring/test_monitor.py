"""One check of live traffic: what it reads, what it writes, what it says when something is missing."""

import json
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
from sklearn.metrics import f1_score

from rakuten.config import Params, load_params
from rakuten.data.taxonomy import current_taxonomy
from rakuten.errors import UserError
from rakuten.monitoring import monitor
from rakuten.monitoring.live_precision import wilson_interval
from rakuten.monitoring.monitor import (
    DriftCheck,
    Reference,
    check_drift,
    last_retraining,
    read_labels,
    record_retraining,
)
from rakuten.monitoring.status_files import AUDIT_FILE, DRIFT_FILE, LAST_CHECK_FILE, PRECISION_FILE
from rakuten.review.database import open_database
from rakuten.review.desk import NewDecision, ReviewDesk
from rakuten.review.tables import Answer
from rakuten.tracking import lineage
from tests.review.conftest import product as product_fixture
from tests.support.prediction_log import log_window
from tests.support.project import run_in

PARAMS = load_params()
product = product_fixture
N_REFERENCE = 2000

MakeFrame = Callable[..., pd.DataFrame]


@pytest.fixture(scope="module")
def reference(monitored_frame: MakeFrame) -> pd.DataFrame:
    return monitored_frame(N_REFERENCE, 0)


def review_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'review.db'}"


class Monitored:
    """A log folder that is checked against a reference of random products by the model "one"."""

    def __init__(self, folder: Path, params: Params) -> None:
        self.folder, self.params = folder, params

    def check(self) -> DriftCheck:
        return check_drift(self.params, self.folder, from_registry=False)

    def written(self) -> dict[str, object]:
        return dict(json.loads((self.folder / DRIFT_FILE).read_text(encoding="utf-8")))


@pytest.fixture
def monitored(reference: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Monitored:
    monkeypatch.setattr(monitor, "local_reference", lambda: Reference(reference, "one", None, True, 0.01))
    monkeypatch.setattr(monitor.monitoring_runs, "log_drift_report", lambda *_: "a run")
    monkeypatch.setenv("REVIEW_DATABASE_URL", review_url(tmp_path))
    bootstrap = PARAMS.train.model_copy(update={"bootstrap": 50})
    return Monitored(tmp_path / "live", PARAMS.model_copy(update={"train": bootstrap}))


def test_too_few_predictions_are_not_judged(monitored: Monitored, monitored_frame: MakeFrame) -> None:
    log_window(monitored.folder, monitored_frame(PARAMS.monitor.min_rows - 1, 1), "one")
    check = monitored.check()
    assert (check.report, check.html, check.run_id) == (None, None, None)
    assert check.summary == "499 predictions of model one: too few to judge (min_rows 500)"
    assert (monitored.folder / LAST_CHECK_FILE).is_file()
    assert not (monitored.folder / DRIFT_FILE).exists()


def test_min_rows_predictions_are_judged(monitored: Monitored, monitored_frame: MakeFrame) -> None:
    log_window(monitored.folder, monitored_frame(PARAMS.monitor.min_rows, 1), "one")
    assert monitored.check().report is not None


def test_predictions_of_another_model_are_ignored(monitored: Monitored, monitored_frame: MakeFrame) -> None:
    log_window(monitored.folder, monitored_frame(1000, 1), "another")
    assert monitored.check().summary.startswith("0 predictions of model one")


def test_a_window_like_the_reference_has_no_drift(monitored: Monitored, monitored_frame: MakeFrame) -> None:
    log_window(monitored.folder, monitored_frame(1000, 1), "one")
    check = monitored.check()
    assert check.summary == "no drift in 1,000 predictions"
    assert check.report is not None and not check.report.alarms
    assert check.run_id == "a run"
    assert monitored.written()["live"] == []


def test_only_the_latest_predictions_are_judged(monitored: Monitored, monitored_frame: MakeFrame) -> None:
    n_window = PARAMS.monitor.window
    log_window(monitored.folder, monitored_frame(600, 1).assign(predicted=2583), "one")
    log_window(monitored.folder, monitored_frame(n_window, 2), "one", first=600)
    assert monitored.check().summary == f"no drift in {n_window:,} predictions"


def test_a_shifted_window_is_reported(monitored: Monitored, monitored_frame: MakeFrame) -> None:
    log_window(monitored.folder, monitored_frame(1000, 1).assign(predicted=2583), "one")
    check = monitored.check()
    assert check.report is not None
    (alarm,) = check.report.alarms
    assert alarm.startswith("prediction: predicted has drifted, jensenshannon")
    assert check.summary == "1 alarms in 1,000 predictions"
    assert check.html == (monitored.folder / DRIFT_FILE).with_suffix(".html")


def test_the_report_is_written_as_page_figure_and_json(monitored: Monitored, monitored_frame: MakeFrame) -> None:
    log_window(monitored.folder, monitored_frame(1000, 1), "one")
    monitored.check()
    drift_json = monitored.folder / DRIFT_FILE
    assert "<html" in drift_json.with_suffix(".html").read_text(encoding="utf-8")[:2000].lower()
    assert drift_json.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    written = monitored.written()
    assert set(written) == {
        "alarms", "checked", "classes", "drift", "live", "live_precision", "model_version", "novelty",
        "promised_review", "registry_version", "review", "rows", "synthetic", "window",
    }  # fmt: skip
    assert (written["rows"], written["model_version"], written["registry_version"]) == (1000, "one", None)
    assert written["synthetic"] is True
    checked = json.loads((monitored.folder / LAST_CHECK_FILE).read_text(encoding="utf-8"))["checked"]
    assert written["checked"] == checked


def test_labels_of_logged_predictions_are_scored(monitored: Monitored, monitored_frame: MakeFrame) -> None:
    window = monitored_frame(1000, 1)
    ids = log_window(monitored.folder, window, "one")
    decided = (window["needs_review"] == 0).to_numpy()
    labels = pd.DataFrame({"prediction_id": ids, "prdtypecode": window["prdtypecode"]})[decided].head(300)
    labels.to_csv(monitored.folder / "labels.csv", index=False)
    check = monitored.check()
    assert check.report is not None
    (live,) = check.report.live
    assert (live.products, live.n_labels, live.weighted_f1) == ("decided", 300, 1.0)
    assert check.n_to_audit == 0


def decide(url: str, products: Sequence[dict[str, Any]], answers: Sequence[int]) -> None:
    """Put products into a review desk, and decide them."""
    desk = ReviewDesk(open_database(url), 1)
    desk.add(products)
    for number, answer in enumerate(answers, 1):
        desk.decide(NewDecision("ann", number, Answer.CODE, answer))


def test_decisions_about_live_traffic_are_labels(
    monitored: Monitored, monitored_frame: MakeFrame, tmp_path: Path, product: Callable[..., dict[str, Any]]
) -> None:
    """A label in a file counts more; a product of a scored file is no live traffic."""
    window = monitored_frame(1000, 1)
    ids = log_window(monitored.folder, window, "one")
    decided = window[window["needs_review"] == 0].head(PARAMS.monitor.min_labels)
    products = [product(f"1_{row}", source="api", model_version="one", prediction_id=ids[row]) for row in decided.index]
    products.append(product("7_7", source="file", model_version="one"))
    answers = [int(code) for code in decided["predicted"]]
    answers[0] = answers[1] = 50
    decide(review_url(tmp_path), products, [*answers, 50])
    labels = pd.DataFrame({"prediction_id": [ids[decided.index[0]]], "prdtypecode": [decided["predicted"].iloc[0]]})
    labels.to_csv(monitored.folder / "labels.csv", index=False)
    check = monitored.check()
    assert check.report is not None
    (live,) = check.report.live
    assert (live.products, live.n_labels) == ("decided", PARAMS.monitor.min_labels)
    y_true = [decided["predicted"].iloc[0], *answers[1:]]
    assert live.weighted_f1 == pytest.approx(f1_score(y_true, decided["predicted"], average="weighted"))
    assert check.n_to_audit == 0


def test_the_live_precision_needs_no_prediction_log(
    monitored: Monitored, tmp_path: Path, product: Callable[..., dict[str, Any]]
) -> None:
    products = [product(f"1_{number}", model_version="one", is_audit=True) for number in range(100)]
    decide(review_url(tmp_path), products, [10] * 80 + [40] * 20)
    check = monitored.check()
    low, high = wilson_interval(80, 100)
    assert check.report is None
    assert check.precision is not None
    assert json.loads((monitored.folder / PRECISION_FILE).read_text(encoding="utf-8")) == {
        "checked": json.loads((monitored.folder / LAST_CHECK_FILE).read_text(encoding="utf-8"))["checked"],
        "model_version": "one",
        "live_precision": {"precision": 0.8, "low": low, "high": high, "labels": 100, "promised": 0.95},
    }
    assert check.alarms == [f"audit: {check.precision}"]


@pytest.fixture
def merged(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model "one" was trained before 2705 was merged into 2583."""
    taxonomy = current_taxonomy()
    monkeypatch.setattr(monitor, "current_taxonomy", lambda: replace(taxonomy, merged_into={2705: 2583}))


@pytest.mark.usefixtures("merged")
def test_labels_and_predictions_of_a_code_that_was_merged_since_are_the_same(
    monitored: Monitored, monitored_frame: MakeFrame
) -> None:
    """Whoever labelled after the merger wrote 2583 where the model says 2705; some wrote 2705 before, or from habit."""
    window = monitored_frame(1000, 1)
    ids = log_window(monitored.folder, window, "one")
    decided = (window["needs_review"] == 0).to_numpy()
    other = {2583: 2705, 2705: 2583, 10: 10}
    given = [other[int(code)] if row % 2 else int(code) for row, code in enumerate(window["predicted"])]
    labels = pd.DataFrame({"prediction_id": ids, "prdtypecode": given})[decided].head(300)
    labels.to_csv(monitored.folder / "labels.csv", index=False)
    report = monitored.check().report
    assert report is not None
    (live,) = report.live
    assert (live.n_labels, live.weighted_f1, live.expected) == (300, 1.0, 1.0)


@pytest.mark.usefixtures("merged")
def test_the_live_precision_follows_codes_that_were_merged_since(
    monitored: Monitored, tmp_path: Path, product: Callable[..., dict[str, Any]]
) -> None:
    live = {"model_version": "one", "is_audit": True}
    predicted = [2705, 2583, 2705, 2705] * 15
    products = [product(f"1_{number}", predicted=code, **live) for number, code in enumerate(predicted)]
    decide(review_url(tmp_path), products, [2583, 2705, 2705, 40] * 15)
    precision = monitored.check().precision
    assert precision is not None
    assert precision.precision == 0.75


def test_a_live_precision_by_too_few_products_is_not_told(
    monitored: Monitored, tmp_path: Path, product: Callable[..., dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    products = [product(f"1_{number}", model_version="one", is_audit=True) for number in range(49)]
    decide(review_url(tmp_path), products, [40] * 49)
    with caplog.at_level(logging.INFO):
        check = monitored.check()
    assert (check.precision, check.alarms) == (None, [])
    assert json.loads((monitored.folder / PRECISION_FILE).read_text(encoding="utf-8"))["live_precision"] is None
    assert "49 audited products of model one: too few to tell its precision (min_audited 50)" in caplog.text


def test_the_live_precision_is_in_the_report(
    monitored: Monitored, monitored_frame: MakeFrame, tmp_path: Path, product: Callable[..., dict[str, Any]]
) -> None:
    log_window(monitored.folder, monitored_frame(600, 1), "one")
    products = [product(f"1_{number}", model_version="one", is_audit=True) for number in range(60)]
    decide(review_url(tmp_path), products, [10] * 30 + [40] * 30)
    check = monitored.check()
    written = monitored.written()
    assert written["live_precision"]["precision"] == 0.5  # type: ignore[index]
    assert check.alarms == written["alarms"] == [f"audit: {check.precision}"]


@pytest.mark.parametrize(
    ("n_novel", "line", "is_alarm"), [(60, "10.0% [7.7%, 12.7%]", True), (6, "1.0% [0.4%, 2.2%]", False)]
)
def test_the_share_of_novel_products_is_in_every_form_of_the_report_and_alarms_if_it_is_high(
    monitored: Monitored, monitored_frame: MakeFrame, caplog: pytest.LogCaptureFixture,
    n_novel: int, line: str, is_alarm: bool,
) -> None:  # fmt: skip
    window = monitored_frame(600, 1)
    log_window(monitored.folder, window.assign(is_novel=window.index < n_novel), "one")
    with caplog.at_level(logging.INFO):
        check = monitored.check()
    line += " of 600 products are novel, unlike all train products; 1.0% promised"
    assert check.alarms == ([f"novelty: {line}"] if is_alarm else [])
    assert line in caplog.messages
    novelty = dict(monitored.written()["novelty"])  # type: ignore[call-overload]
    assert (novelty["rows"], novelty["share"], novelty["promised"]) == (600, n_novel / 600, 0.01)
    assert (novelty["limit"] < novelty["interval"][0]) == is_alarm
    page = (monitored.folder / DRIFT_FILE).with_suffix(".html").read_text(encoding="utf-8")
    assert f">{line}</p>" in page.partition("<body>")[2][:500]


@pytest.mark.parametrize("false_alarms", [0.01, None])
def test_novel_products_are_not_told_by_an_old_log_or_model(
    monitored: Monitored, monitored_frame: MakeFrame, reference: pd.DataFrame, false_alarms: float | None,
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    old_model = Reference(reference, "one", None, True, false_alarms)
    monkeypatch.setattr(monitor, "local_reference", lambda: old_model)
    window = monitored_frame(600, 1)
    log_window(monitored.folder, window if false_alarms else window.assign(is_novel=True), "one")
    with caplog.at_level(logging.INFO):
        check = monitored.check()
    assert check.alarms == []
    assert monitored.written()["novelty"] is None
    page = (monitored.folder / DRIFT_FILE).with_suffix(".html").read_text(encoding="utf-8")
    assert "unlike all train products" not in caplog.text + page


def test_without_the_review_desk_drift_is_judged(
    monitored: Monitored, monitored_frame: MakeFrame, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log_window(monitored.folder, monitored_frame(600, 1), "one")
    (tmp_path / "review.db").write_bytes(b"no database")
    check = monitored.check()
    assert check.report is not None
    assert "without the decisions of the review desk: the review database" in caplog.text


def test_what_is_filled_in_is_a_label_and_is_kept(monitored: Monitored, monitored_frame: MakeFrame) -> None:
    """Half of the sample first, then the other half; the check in between must not undo the work."""
    log_window(monitored.folder, monitored_frame(1000, 1), "one")
    n_asked = monitored.check().n_to_audit
    path = monitored.folder / AUDIT_FILE
    sample = pd.read_csv(path, dtype="str", keep_default_na=False)
    sample["prdtypecode"] = [*sample["predicted"][: n_asked // 2], *[""] * (n_asked - n_asked // 2)]
    sample.to_csv(path, index=False)
    check = monitored.check()
    assert check.n_to_audit == n_asked - n_asked // 2
    assert check.report is not None and not check.report.live
    again = pd.read_csv(path, dtype="str", keep_default_na=False)
    assert again["prediction_id"].tolist() == sample["prediction_id"].tolist()
    again.assign(prdtypecode=again["predicted"]).to_csv(path, index=False)
    check = monitored.check()
    assert check.n_to_audit == 0
    assert check.report is not None
    (live,) = check.report.live
    assert (live.products, live.n_labels, live.weighted_f1) == ("decided", n_asked, 1.0)
    assert len(pd.read_csv(path)) == n_asked


def test_decided_products_to_label_are_written(monitored: Monitored, monitored_frame: MakeFrame) -> None:
    ids = log_window(monitored.folder, monitored_frame(1000, 1), "one")
    check = monitored.check()
    sample = pd.read_csv(monitored.folder / AUDIT_FILE, dtype="str", keep_default_na=False)
    assert check.n_to_audit == len(sample) == PARAMS.monitor.min_labels
    assert set(sample["prediction_id"]) <= set(ids)
    assert set(sample["prdtypecode"]) == {""}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ("prediction_id,label\na,10\n", "no column 'prdtypecode'; rename 'label' to 'prdtypecode'"),
        ("prediction_id,prdtypecode\na,10\nb,ten\n", "the prdtypecode 'ten' is not a number; correct it"),
        ("PK\3\4xl/", "not a CSV file but a workbook"),
    ],
)
def test_labels_that_cannot_be_read_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(UserError, match=rf"labels\.csv: .*{message}"):
        read_labels(tmp_path / "labels.csv")


@pytest.mark.parametrize(("encoding", "separator"), [("utf-8-sig", ";"), ("utf-16", "\t"), ("utf-8", ",")])
def test_labels_are_read_as_spreadsheets_and_pandas_write_them(tmp_path: Path, encoding: str, separator: str) -> None:
    rows = [("prediction_id", "prdtypecode"), ("a", "2583.0"), ("b", ""), ("", "10"), ("007", " 10 ")]
    text = "\r\n".join(map(separator.join, rows))
    (tmp_path / "labels.csv").write_text(text, encoding=encoding, newline="")
    assert read_labels(tmp_path / "labels.csv").values.tolist() == [["a", 2583], ["007", 10]]


def test_without_a_file_there_are_no_labels(tmp_path: Path) -> None:
    assert read_labels(tmp_path / "none.csv").empty


def test_a_retraining_is_remembered(tmp_path: Path) -> None:
    assert last_retraining(tmp_path) is None
    now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    record_retraining(tmp_path, now)
    assert last_retraining(tmp_path) == now
    (tmp_path / "retrained.json").write_text("{}")
    assert last_retraining(tmp_path) is None


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Settings of a log folder, and of an MLflow store of its own."""
    folder = tmp_path_factory.mktemp("monitor")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    return {"API_LIVE": str(folder / "live"), "API_MODEL": "local", "MLFLOW_TRACKING_URI": uri}


@pytest.fixture(scope="module")
def shifted_check(trained: Path, store: dict[str, str]) -> str:
    """Output of `rakuten monitor` in a trained project whose live products all get one class."""
    reference = pd.read_parquet(trained / "reports" / "reference.parquet")
    window = reference.sample(600, replace=True, random_state=0).assign(predicted=2583)
    window["is_novel"] = [True] * 3 + [False] * 597
    log_window(Path(store["API_LIVE"]), window, lineage.model_version(trained / "models"))
    return run_in(trained, sys.executable, "-m", "rakuten", "monitor", **store)


def test_the_report_is_recorded_in_mlflow(shifted_check: str, store: dict[str, str]) -> None:
    client = mlflow.MlflowClient(store["MLFLOW_TRACKING_URI"])
    experiment = client.get_experiment_by_name("rakuten-baseline-monitoring")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.data.metrics["alarms"], run.data.metrics["rows"]) == (1, 600)
    assert run.data.metrics["drift_predicted"] > PARAMS.monitor.js
    assert run.data.metrics["novel"] == 0.005
    artifacts = client.list_artifacts(run.info.run_id)
    assert {"drift.html", "drift.json", "drift.png"} == {artifact.path for artifact in artifacts}
