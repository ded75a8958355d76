"""Decisions as files: corrections.csv for the pipeline, all as CSV, Label Studio's tasks and annotations. Pure."""

import csv
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import pandas as pd

from rakuten.data import corrections as corrections_file
from rakuten.errors import UserError
from rakuten.review.decisions import NO_CODE
from rakuten.review.desk import NewDecision
from rakuten.review.tables import Answer, ReviewDecision, ReviewProduct

NO_CODE_CHOICE = "none"  # Label Studio's choice for "none of the codes"
DECISION_COLUMNS = (
    "source", "key", "productid", "imageid", "person", "answer", "prdtypecode", "note", "decided_at", "seconds",
    "predicted", "confidence", "model_version",
)  # fmt: skip
LABEL_CONFIG = """\
<View>
  <Image name="image" value="$image"/>
  <Header value="$designation"/>
  <Header value="$likeliest"/>
  <Text name="text" value="$description"/>
  <Choices name="prdtypecode" toName="text" choice="single" showInline="true">
{choices}
  </Choices>
  <TextArea name="note" toName="text" placeholder="why none of the codes fits" maxSubmissions="1"/>
</View>
"""


def ids_of(product: ReviewProduct) -> tuple[int, int]:
    """The productid and imageid of a product. One that came without, from live traffic, is given some.

    They follow from its source and key, so that they are the same in every export and in every database. They have 18
    digits and begin with 9, which no catalogue's own ids do.
    """
    if product.productid is not None and product.imageid is not None:
        return product.productid, product.imageid
    name = f"{product.source}\0{product.key}".encode()
    made_up = 9 * 10**17 + int.from_bytes(hashlib.sha256(name).digest()[:8], "big") % 10**17
    return made_up, made_up


def corrections(decided: Iterable[tuple[ReviewProduct, int, Sequence[ReviewDecision]]]) -> pd.DataFrame:
    """The decided products, as data/corrections/corrections.csv holds them, with the ids of `ids_of`.

    prdtypecode is empty where none of the codes fits. old_prdtypecode, the label that the product had, is empty for a
    product that is not among the train products; only such a product has its text here. Products whose label was
    confirmed are left out: there is nothing to correct.

    Args:
        decided: from `ReviewDesk.decided`.
    """
    rows = [
        {
            **dict(zip(("productid", "imageid"), ids_of(product), strict=True)),
            "old_prdtypecode": "" if product.prdtypecode is None else str(product.prdtypecode),
            "prdtypecode": "" if answer == NO_CODE else str(answer),
            "decisions": ";".join(str(decision.id) for decision in decisions),
            "decided_at": max(decision.decided_at for decision in decisions).isoformat(timespec="seconds"),
            "designation": product.designation if product.prdtypecode is None else "",
            "description": product.description if product.prdtypecode is None else "",
        }
        for product, answer, decisions in decided
        if answer != product.prdtypecode
    ]
    return pd.DataFrame(rows, columns=list(corrections_file.COLUMNS))


def decisions_csv(decisions: Iterable[tuple[ReviewProduct, ReviewDecision]]) -> str:
    """Every decision with what names its product, in the order in which they were made, as CSV.

    Args:
        decisions: from `ReviewDesk.all_decisions`.
    """
    rows = [
        {
            "source": product.source,
            "key": product.key,
            "productid": product.productid,
            "imageid": product.imageid,
            "person": made.person,
            "answer": made.answer,
            "prdtypecode": made.prdtypecode,
            "note": made.note,
            "decided_at": made.decided_at.isoformat(),
            "seconds": made.seconds,
            "predicted": made.predicted,
            "confidence": made.confidence,
            "model_version": made.model_version,
        }
        for product, made in decisions
    ]
    table = pd.DataFrame(rows, columns=list(DECISION_COLUMNS))
    table = table.astype(dict.fromkeys(["productid", "imageid", "prdtypecode", "predicted"], "Int64"))
    return table.to_csv(index=False, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)


def decisions_of(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table that `decisions_csv` wrote, as `ReviewDesk.import_decisions` takes them.

    Raises:
        UserError: it is no such table, or a row is not valid.
    """
    if missing := [name for name in DECISION_COLUMNS if name not in table]:
        raise UserError(f"no file of decisions: it has no column {missing[0]}; `rakuten review decisions` writes one")
    rows = []
    for number, row in enumerate(table.astype(str).to_dict("records"), start=2):
        try:
            decided_at = datetime.fromisoformat(row["decided_at"])
            if decided_at.tzinfo is None:
                raise ValueError("decided_at has no time zone")
            answer = Answer(row["answer"])
            code = int(float(row["prdtypecode"])) if answer == Answer.CODE else None
            rows.append(
                {
                    "source": row["source"], "key": row["key"], "person": row["person"], "answer": answer.value,
                    "prdtypecode": code, "note": row["note"], "decided_at": decided_at,
                    "seconds": float(row["seconds"]) if row["seconds"] else None, "predicted": int(row["predicted"]),
                    "confidence": float(row["confidence"]), "model_version": row["model_version"],
                }
            )  # fmt: skip
        except ValueError as error:
            raise UserError(f"line {number} of the decisions: {error}") from error
    return rows


def label_config(names: Mapping[int, str]) -> str:
    """The labelling configuration of a Label Studio project for `tasks`.

    Args:
        names: prdtypecode -> name.
    """
    choices = [f'    <Choice value="{code}" hint="{_xml(name)}"/>' for code, name in names.items()]
    choices.append(f'    <Choice value="{NO_CODE_CHOICE}" hint="none of the codes"/>')
    return LABEL_CONFIG.format(choices="\n".join(choices))


def tasks(products: Iterable[ReviewProduct]) -> list[dict[str, Any]]:
    """Products as Label Studio's tasks: the likeliest codes as a text, and the first of them as a prediction."""
    return [
        {
            "data": {
                "review_id": product.id,
                "designation": product.designation,
                "description": product.description,
                "likeliest": ", ".join(f"{code} ({share:.1%})" for code, share in product.shown_top),
                "image": product.image or "",
            },
            "predictions": [
                {
                    "model_version": product.model_version,
                    "score": product.shown_confidence,
                    "result": [_choice(str(product.predicted))],
                }
            ],
        }
        for product in products
    ]


def annotations(exported: Any) -> Iterator[NewDecision]:
    """The decisions in Label Studio's JSON export.

    Raises:
        UserError: it is no such export, or a task was not made by `tasks`.
    """
    if not isinstance(exported, list):
        raise UserError("no export of Label Studio: it is a list of tasks; export it as JSON")
    for task in exported:
        try:
            product_id = int(task["data"]["review_id"])
        except (KeyError, TypeError, ValueError) as error:
            raise UserError("a task has no review_id: it was not made by `rakuten review tasks`") from error
        try:
            for annotation in task.get("annotations", ()):
                answer, code = _answer(annotation.get("result", ()))
                if answer is not None and not annotation.get("was_cancelled"):
                    yield NewDecision(
                        person=_person(annotation.get("completed_by")),
                        product_id=product_id,
                        answer=answer,
                        prdtypecode=code,
                        note=_note(annotation["result"]),
                        seconds=annotation.get("lead_time"),
                        decided_at=datetime.fromisoformat(annotation["created_at"]),
                    )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise UserError(f"the task of product {product_id} is not as Label Studio exports it: {error!r}") from error


def _choice(value: str) -> dict[str, Any]:
    return {"from_name": "prdtypecode", "to_name": "text", "type": "choices", "value": {"choices": [value]}}


def _answer(result: Iterable[Mapping[str, Any]]) -> tuple[Answer | None, int | None]:
    for part in result:
        if part.get("from_name") == "prdtypecode":
            (value,) = part["value"]["choices"]
            return (Answer.NO_CODE, None) if value == NO_CODE_CHOICE else (Answer.CODE, int(value))
    return None, None


def _note(result: Iterable[Mapping[str, Any]]) -> str:
    return " ".join(text for part in result if part.get("from_name") == "note" for text in part["value"]["text"])


def _person(completed_by: Any) -> str:
    """Whoever annotated: a number, or a mapping with an e-mail address, depending on how the project was exported."""
    if isinstance(completed_by, Mapping):
        return str(completed_by.get("email") or completed_by.get("id"))
    return f"label-studio:{completed_by}"


def _xml(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
