import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from rakuten.commands import review
from rakuten.review import files
from rakuten.review.desk import NewDecision
from rakuten.review.tables import Answer

SCORED = """\
productid,imageid,designation,description,predicted_prdtypecode,confidence,second_prdtypecode,second_confidence,needs_review,model_version
11,21,Piscine gonflable,,2583,0.4,2705,0.3,True,abc
12,22,Roman policier,,2705,0.99,10,0.01,False,abc
"""
Run = Callable[..., str]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `rakuten review` with a database of its own; returns what it printed."""
    monkeypatch.setattr("rakuten.cli.load_env", lambda: None)
    monkeypatch.setenv("REVIEW_DATABASE_URL", f"sqlite:///{tmp_path / 'review.db'}")
    for folder in ("INTERIM", "RAW", "MODELS"):
        monkeypatch.setattr(files, folder, tmp_path)

    def call(*argv: str, code: int = 0) -> str:
        assert review.main(list(argv)) == code
        return capsys.readouterr().err

    return call


def test_from_a_scored_file_to_corrections(run: Run, tmp_path: Path) -> None:
    (tmp_path / "scored.csv").write_text(SCORED, encoding="utf-8")
    assert "the queue is empty" in run("status")
    assert "1 products added, 0 updated, 0 already decided" in run("add", str(tmp_path / "scored.csv"))
    assert "0 products added, 1 updated" in run("add", str(tmp_path / "scored.csv"))
    review.open_desk().decide(NewDecision("ann", 1, Answer.CODE, 40))
    said = run("status")
    assert "decisions, ann: 1" in said and "1 products decided" in said
    output = tmp_path / "corrections.csv"
    assert f"1 corrections in {output}" in run("export", "--output", str(output))
    assert pd.read_csv(output)[["productid", "imageid", "prdtypecode"]].to_numpy().tolist() == [[11, 21, 40]]


def test_the_texts_of_predictions_are_those_that_ingest_wrote(run: Run, tmp_path: Path) -> None:
    lines = [",".join([*line.split(",")[:2], *line.split(",")[4:]]) for line in SCORED.splitlines()]
    (tmp_path / "predictions.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    said = run("add", str(tmp_path / "predictions.csv"), code=1)
    assert "merged_test.csv: cannot be read" in said
    merged = "productid,imageid,designation,description\n11,21,Piscine,ronde\n12,22,Roman,\n"
    (tmp_path / "merged_test.csv").write_text(merged, encoding="utf-8")
    run("add", str(tmp_path / "predictions.csv"))
    (product,) = review.open_desk().open_products()
    assert (product.designation, product.description) == ("Piscine", "ronde")
    (tmp_path / "merged_test.csv").write_text(merged.replace("11,21", "11,29"), encoding="utf-8")
    assert "has not all of these products: run `dvc repro`" in run("add", str(tmp_path / "predictions.csv"), code=1)


def test_decisions_come_back_from_label_studio(run: Run, tmp_path: Path) -> None:
    (tmp_path / "scored.csv").write_text(SCORED, encoding="utf-8")
    run("add", str(tmp_path / "scored.csv"))
    tasks = tmp_path / "tasks.json"
    assert f"1 tasks in {tasks}" in run("tasks", "--output", str(tasks))
    assert '<Choice value="2583 piscine et spa" alias="2583"/>' in tasks.with_suffix(".xml").read_text(encoding="utf-8")
    run("tasks", "--output", str(tasks), "--language", "en")
    assert '<Choice value="2583 pools and spas" alias="2583"/>' in tasks.with_suffix(".xml").read_text(encoding="utf-8")
    (task,) = json.loads(tasks.read_text(encoding="utf-8"))
    result = [{"from_name": "prdtypecode", "value": {"choices": ["40"]}}]
    annotation = {"completed_by": 1, "updated_at": "2026-01-02T03:04:05.678Z", "lead_time": 3.2, "result": result}
    exported = tmp_path / "exported.json"
    exported.write_text(json.dumps([{**task, "annotations": [annotation]}]), encoding="utf-8")
    for new in (1, 0):
        assert f"{new} of 1 decisions were new" in run("annotations", str(exported))
    assert review.open_desk().counts()["person"] == {"label-studio:1": 1}


def test_decisions_are_written_and_taken_over_once(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "scored.csv").write_text(SCORED, encoding="utf-8")
    run("add", str(tmp_path / "scored.csv"))
    desk = review.open_desk()
    desk.decide(NewDecision("Ann É", 1, Answer.CODE, 40, note='a, "b"\nc', seconds=1.25))
    desk.undo("Ann É")
    desk.decide(NewDecision("bob", 1, Answer.NO_CODE))
    file, again = tmp_path / "decisions.csv", tmp_path / "again.csv"
    assert f"3 decisions in {file}" in run("decisions", "--output", str(file))
    assert "0 of 3 decisions were new" in run("decisions", "--input", str(file))
    monkeypatch.setenv("REVIEW_DATABASE_URL", f"sqlite:///{tmp_path / 'other.db'}")
    assert "has no product 21_11 of the source file" in run("decisions", "--input", str(file), code=1)
    run("add", str(tmp_path / "scored.csv"))
    assert "3 of 3 decisions were new" in run("decisions", "--input", str(file))
    assert "0 of 3 decisions were new" in run("decisions", "--input", str(file))
    assert "1 products decided" in run("status")
    run("decisions", "--output", str(again))
    assert again.read_bytes() == file.read_bytes()
    file.write_text(file.read_text(encoding="utf-8").replace("none", "maybe"), encoding="utf-8")
    assert "line 4 of the decisions: 'maybe' is not a valid Answer" in run("decisions", "--input", str(file), code=1)
    assert "it has no column source" in run("decisions", "--input", str(tmp_path / "scored.csv"), code=1)


def test_a_file_of_another_kind_is_refused(run: Run, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    assert "x.csv: neither a scored file nor label_issues.csv" in run("add", str(tmp_path / "x.csv"), code=1)
    assert "y.csv: cannot be read" in run("add", str(tmp_path / "y.csv"), code=1)
    (tmp_path / "x.json").write_text("{", encoding="utf-8")
    assert "x.json: cannot be read as JSON" in run("annotations", str(tmp_path / "x.json"), code=1)
