from datetime import UTC, datetime
from typing import Any
from xml.etree import ElementTree

import pytest

from rakuten.data.corrections import COLUMNS
from rakuten.errors import UserError
from rakuten.review import exchange
from rakuten.review.desk import NewDecision, ReviewDesk
from rakuten.review.tables import Answer
from tests.review.conftest import MakeProduct

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
LIVE_ID = 979_130_423_889_143_529  # of the product 9_9 of live traffic, which has no ids of its own


def annotated(review_id: object, choice: str, **more: Any) -> dict[str, Any]:
    """A task as Label Studio exports it."""
    result = [{"from_name": "prdtypecode", "to_name": "text", "type": "choices", "value": {"choices": [choice]}}]
    result += [{"from_name": "note", "to_name": "text", "type": "textarea", "value": {"text": ["a voucher"]}}]
    annotation = {"completed_by": 3, "created_at": "2026-01-02T03:04:05Z", "lead_time": 2.5, "result": result, **more}
    return {"id": 9, "data": {"review_id": review_id}, "annotations": [annotation]}


def test_corrections_are_the_labels_that_people_changed_or_gave(desk: ReviewDesk, product: MakeProduct) -> None:
    labels = [None, 40, 40, 40]
    products = [product(f"1_{number}", prdtypecode=label) for number, label in enumerate(labels)]
    desk.add([*products, product("9_9", source="api", productid=None, imageid=None)])
    for number, code in enumerate([2583, 10, None, 40, 10], start=1):
        answer = Answer.NO_CODE if code is None else Answer.CODE
        desk.decide(NewDecision("ann", number, answer, code, decided_at=AT))
    table = exchange.corrections(desk.decided())
    assert list(table.columns) == list(COLUMNS)
    at = "2026-01-02T03:04:05+00:00"
    assert table.to_numpy().tolist() == [
        [0, 1, "", "2583", "1", at, "Titre 1_0", ""],  # its first label, so its text is needed
        [1, 1, "40", "10", "2", at, "", ""],
        [2, 1, "40", "", "3", at, "", ""],  # none of the codes
        [LIVE_ID, LIVE_ID, "", "10", "5", at, "Titre 9_9", ""],
    ]  # the label of 1_3 was confirmed


def test_tasks_have_the_product_and_the_models_answer(desk: ReviewDesk, product: MakeProduct) -> None:
    top = [[10, 0.4], [2280, 0.3], [40, 0.2], [2705, 0.06], [2403, 0.004]]
    shown = [[code, confidence / 2] for code, confidence in top]  # as of the audit sample
    desk.add([product(image="/data/a.jpg", description="<b>Bois</b>", top=top, shown_top=shown, shown_confidence=0.2)])
    (task,) = exchange.tasks(desk.open_products())
    assert task["data"] == {
        "review_id": 1, "designation": "Titre 1_2", "description": "<b>Bois</b>", "image": "/data/a.jpg",
        "likeliest": "10 (20.0%), 2280 (15.0%), 40 (10.0%), 2705 (3.0%), 2403 (0.2%)",
    }  # fmt: skip
    (prediction,) = task["predictions"]
    assert (prediction["model_version"], prediction["score"]) == ("abc", 0.2)
    assert prediction["result"][0]["value"] == {"choices": ["10"]}


def test_the_labelling_configuration_names_what_tasks_and_annotations_name(
    desk: ReviewDesk, product: MakeProduct
) -> None:
    desk.add([product()])
    view = ElementTree.fromstring(exchange.label_config({10: 'livres "d\'occasion" & <neufs>'}))
    choices = view.find("Choices")
    assert choices is not None
    (task,) = exchange.tasks(desk.open_products())
    (result,) = task["predictions"][0]["result"]
    assert (choices.get("name"), choices.get("toName")) == (result["from_name"], result["to_name"])
    assert [choice.get("value") for choice in choices] == ["10", exchange.NO_CODE_CHOICE]
    assert choices[0].get("hint") == 'livres "d\'occasion" & <neufs>'
    variables = {value[1:] for element in view for value in element.attrib.values() if value.startswith("$")}
    assert variables <= set(task["data"])


def test_annotations_are_decisions() -> None:
    (decision,) = exchange.annotations([annotated(7, "40")])
    assert decision == NewDecision("label-studio:3", 7, Answer.CODE, 40, "a voucher", 2.5, AT)
    (none,) = exchange.annotations([annotated("7", "none", completed_by={"id": 3, "email": "ann@example.com"})])
    assert (none.answer, none.prdtypecode, none.person) == (Answer.NO_CODE, None, "ann@example.com")


def test_cancelled_and_empty_annotations_are_no_decisions() -> None:
    assert list(exchange.annotations([annotated(7, "40", was_cancelled=True)])) == []
    assert list(exchange.annotations([annotated(7, "40", result=[])])) == []
    assert list(exchange.annotations([{"data": {"review_id": 7}}])) == []


@pytest.mark.parametrize(
    ("exported", "message"),
    [
        ({"tasks": []}, "no export of Label Studio"),
        ([{"data": {}}], "no review_id"),
        ([annotated("x", "1")], "no review_id"),
    ],
)
def test_what_is_no_export_is_refused(exported: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        list(exchange.annotations(exported))
