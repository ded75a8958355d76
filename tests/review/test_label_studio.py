"""Tasks for Label Studio, and what it exports: label_studio_json.json and label_studio_json_min.json are of 1.23.2.

The exports are of a project with seven made-up products. In its interface somebody chose "none of the codes" for the
first with a note, skipped the second and took the model's answer for the third. By its API the fifth was decided and
then changed, the sixth decided twice, and the last left without a choice.
"""

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from rakuten.errors import UserError
from rakuten.review import label_studio
from rakuten.review.desk import ReviewDesk
from tests.review.conftest import MERGED, MakeProduct

ANN = "label-studio:1"
EXPORTED = [
    ("900000013_900000003", "none", None, "un bon", "17:38:40.888839"),
    ("900000016_900000006", "skip", None, "", "17:38:46.516749"),
    ("900000017_900000007", "code", 1281, "", "17:38:49.708406"),
    ("900000011_900000001", "code", 2585, "", "17:39:19.050860"),
    ("900000012_900000002", "code", 10, "", "17:39:19.424249"),
    ("900000012_900000002", "code", 2705, "", "17:39:19.968878"),
]


def exported(kind: str) -> list[dict[str, Any]]:
    path = Path(__file__).with_name(f"label_studio_{kind}.json")
    content: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return content


def short(rows: list[dict[str, Any]]) -> list[tuple[str, str, int | None, str, str]]:
    return [
        (row["key"], row["answer"], row["prdtypecode"], row["note"], f"{row['decided_at']:%H:%M:%S.%f}") for row in rows
    ]


@pytest.fixture
def filled(desk: ReviewDesk, product: MakeProduct) -> ReviewDesk:
    """A desk with the products of the exports, in another order than where these were made."""
    desk.add([product(f"90000001{number}_90000000{number}") for number in range(7, 0, -1)])
    return desk


def test_an_export_as_json_is_decisions_the_oldest_first() -> None:
    rows = label_studio.decisions(exported("json"))
    assert short(rows) == EXPORTED
    assert {(row["source"], row["person"]) for row in rows} == {("file", ANN)}
    assert rows[0]["seconds"] == 4.831
    assert rows[0]["decided_at"].isoformat() == "2026-11-28T17:38:40.888839+00:00"


def test_an_export_as_json_min_is_the_same_decisions_but_those_to_skip() -> None:
    rows = label_studio.decisions(exported("json_min"))
    assert short(rows) == [row for row in EXPORTED if row[1] != "skip"]
    assert [row["seconds"] for row in rows] == [4.831, 2.58, 5.5, 2.0, 2.0]


def test_each_decision_is_taken_over_once_from_either_export(filled: ReviewDesk) -> None:
    new = [filled.import_decisions(label_studio.decisions(exported(kind))) for kind in ("json_min", "json", "json")]
    assert new == [5, 1, 0]
    decided = {product.key: answer for product, answer, _ in filled.decided()}
    assert decided == {
        "900000013_900000003": 0,
        "900000017_900000007": 1281,
        "900000011_900000001": 2585,
        "900000012_900000002": 2705,
    }
    _, made = filled.all_decisions()[0]
    assert (made.predicted, made.confidence, made.model_version) == (10, 0.4, "abc")


def test_an_annotation_that_was_changed_replaces_the_decision(filled: ReviewDesk) -> None:
    now = exported("json")
    (task,) = [task for task in now if task["data"]["key"] == "900000011_900000001"]
    (annotation,) = task["annotations"]
    before = json.loads(json.dumps(annotation)) | {"updated_at": "2026-11-28T17:39:18.274349Z"}
    before["result"][0]["value"]["choices"] = ["2583"]
    for annotations in ([before], [annotation], [before]):  # an old export once more changes nothing
        filled.import_decisions(label_studio.decisions([task | {"annotations": annotations}]))
    ((_, answer, _),) = filled.decided()
    assert answer == 2585


def test_a_person_is_named_by_mail_where_the_export_has_it() -> None:
    (task,) = exported("json")[:1]
    task["annotations"][0]["completed_by"] = {"id": 3, "email": "ann@example.com"}
    (row,) = label_studio.decisions([task])
    assert row["person"] == "ann@example.com"


def test_tasks_are_those_that_the_export_came_from(desk: ReviewDesk, product: MakeProduct) -> None:
    """Label Studio gives back what it was given: the exported data, and the prediction beside each annotation."""
    (task,) = exported("json")[:1]
    data, (annotation,) = task["data"], task["annotations"]
    texts = {name: data[name] for name in ("designation", "description")}
    desk.add([product(data["key"], predicted=40, confidence=0.31, **texts)])
    (made,) = label_studio.tasks(desk.open_products(), MERGED)
    assert {name: made["data"][name] for name in data} == data
    (prediction,) = made["predictions"]
    assert prediction == {name: annotation["prediction"][name] for name in prediction}


def test_a_task_has_the_likeliest_codes_as_the_desk_shows_them(desk: ReviewDesk, product: MakeProduct) -> None:
    top = [[10, 0.4], [2280, 0.3], [40, 0.2], [2705, 0.06], [2403, 0.004]]
    shown = [[code, confidence / 2] for code, confidence in top]  # as of the audit sample
    desk.add([product(top=top, shown_top=shown, shown_confidence=0.2)])
    (task,) = label_studio.tasks(desk.open_products(), MERGED)
    assert task["data"]["likeliest"] == "10 (20.0%), 2280 (15.0%), 40 (10.0%), 2705 (3.0%), 2403 (0.2%)"
    assert task["predictions"][0]["score"] == 0.2


def test_a_picture_is_where_label_studio_serves_files_of_its_machine(desk: ReviewDesk, product: MakeProduct) -> None:
    image = Path.cwd() / "data" / "été 1" / "image_1_product_2.jpg"
    desk.add([product(image=str(image))])
    (task,) = label_studio.tasks(desk.open_products(), MERGED)
    folder = Path.cwd().relative_to(Path.cwd().anchor).as_posix()
    address = f"/data/local-files/?d={folder}/data/%C3%A9t%C3%A9%201/image_1_product_2.jpg"
    assert task["data"]["image"] == address


def test_a_prediction_of_a_merged_code_is_the_choice_that_is_left(desk: ReviewDesk, product: MakeProduct) -> None:
    desk.add([product(predicted=30)])
    (task,) = label_studio.tasks(desk.open_products(), MERGED)
    assert task["predictions"][0]["result"][0]["value"] == {"choices": ["10"]}


def test_the_labelling_configuration_names_what_tasks_and_annotations_name(
    desk: ReviewDesk, product: MakeProduct
) -> None:
    desk.add([product()])
    view = ElementTree.fromstring(label_studio.label_config(MERGED, "fr"))
    choices = view.find("Choices")
    assert choices is not None
    (task,) = label_studio.tasks(desk.open_products(), MERGED)
    (result,) = task["predictions"][0]["result"]
    assert (choices.get("name"), choices.get("toName")) == (result["from_name"], result["to_name"])
    assert [choice.get("alias") for choice in choices] == ["10", "40", label_studio.NO_CODE_CHOICE]
    assert choices[0].get("value") == '10 livres "d\'occasion" & <neufs>'
    variables = {value[1:] for element in view for value in element.attrib.values() if value.startswith("$")}
    assert variables <= set(task["data"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"tasks": []}, "no export of Label Studio"),
        ([{"data": {}}], "task 1 has no source and key"),
        ([3], "task 1 has no source and key"),
        ([{"annotation_id": 1, "prdtypecode": "10"}], "task 1 has no source and key"),
        ([{"data": {"source": "file", "key": "1_2"}, "annotations": [3]}], "product 1_2 is not as Label Studio"),
    ],
)
def test_what_is_no_export_is_refused(content: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        label_studio.decisions(content)


@pytest.mark.parametrize("time", ["today", "2026-11-28T17:38:40", None])
def test_an_annotation_without_a_time_is_refused(time: str | None) -> None:
    (task,) = exported("json")[:1]
    task["annotations"][0]["updated_at"] = time
    with pytest.raises(UserError, match="the task of product 900000013_900000003 is not as Label Studio exports it"):
        label_studio.decisions([task])


def test_of_a_project_with_a_product_that_is_not_here_nothing_is_taken_over(filled: ReviewDesk) -> None:
    rows = label_studio.decisions(exported("json"))
    with pytest.raises(UserError, match="no product 1_1 of the source file: add its file first"):
        filled.import_decisions([*rows, rows[0] | {"key": "1_1"}])
    assert filled.all_decisions() == []
