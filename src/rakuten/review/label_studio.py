"""Products as tasks for Label Studio, and the decisions in its export. Pure functions.

Tried with Label Studio 1.23, see docs/review.md.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from rakuten.data.taxonomy import Language, Taxonomy
from rakuten.errors import UserError
from rakuten.review.tables import Answer, ReviewProduct

NO_CODE_CHOICE = "none"  # the choice for "none of the codes"
CODE, NOTE = "prdtypecode", "note"  # names in the labelling configuration
LOCAL_FILES = "/data/local-files/?d="  # where Label Studio serves files of its machine
# A choice is shown by its value; its alias is what predictions and exports have.
LABEL_CONFIG = """\
<View>
  <Header value="$designation"/>
  <Header value="$likeliest"/>
  <Text name="text" value="$description"/>
  <Image name="image" value="$image" maxHeight="400px"/>
  <Choices name="prdtypecode" toName="text" choice="single" showInline="true">
{choices}
  </Choices>
  <TextArea name="note" toName="text" placeholder="why none of the codes fits" maxSubmissions="1"/>
</View>
"""


def label_config(taxonomy: Taxonomy, language: Language) -> str:
    """The labelling configuration of a Label Studio project for `tasks`: its codes have their names in a language."""
    shown = {str(code): f"{code} {taxonomy.label(code, language)}" for code in sorted(taxonomy.codes)}
    shown[NO_CODE_CHOICE] = "none of the codes"
    choices = [f"    <Choice value={quoteattr(text)} alias={quoteattr(alias)}/>" for alias, text in shown.items()]
    return LABEL_CONFIG.format(choices="\n".join(choices))


def tasks(products: Iterable[ReviewProduct], taxonomy: Taxonomy) -> list[dict[str, Any]]:
    """Products as Label Studio's tasks: the likeliest codes as a text, and the first of them as a prediction.

    Args:
        taxonomy: a merged code is no choice, so the answer is the code that it became part of.
    """
    return [
        {
            "data": {
                "source": product.source,
                "key": product.key,
                "designation": product.designation,
                "description": product.description,
                "likeliest": ", ".join(f"{code} ({confidence:.1%})" for code, confidence in product.shown_top),
                "image": _address(product.image),
            },
            "predictions": [
                {
                    "model_version": product.model_version,
                    "score": product.shown_confidence,
                    "result": [
                        {
                            "from_name": CODE,
                            "to_name": "text",
                            "type": "choices",
                            "value": {"choices": [str(taxonomy.follow_code(product.predicted))]},
                        }
                    ],
                }
            ],
        }
        for product in products
    ]


def decisions(exported: Any) -> list[dict[str, Any]]:
    """The decisions in an export as JSON or JSON-MIN, as `ReviewDesk.import_decisions` takes them, the oldest first.

    An annotation that was changed is another decision than before, at the time of the change. A task that was skipped
    is skipped here too; JSON-MIN leaves these out.

    Raises:
        UserError: it is no such export, or a task was not made by `tasks`.
    """
    if not isinstance(exported, list):
        raise UserError("no export of Label Studio: it is a list of tasks; export it as JSON or JSON-MIN")
    made = []
    for number, task in enumerate(exported, start=1):
        try:
            task = task if "annotations" in task or "data" in task else _from_min(task)
            product = {name: str(task["data"][name]) for name in ("source", "key")}
        except (KeyError, TypeError) as error:
            raise UserError(f"task {number} has no source and key: `rakuten review tasks` did not make it") from error
        try:
            made += [product | row for each in task.get("annotations", ()) if (row := _decision(each))]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            key = product["key"]
            raise UserError(f"the task of product {key} is not as Label Studio exports it: {error!r}") from error
    # Of two annotations of one person the later counts; JSON-MIN has the latest first.
    return sorted(made, key=lambda row: row["decided_at"])


def _address(image: str | None) -> str:
    """Where Label Studio finds the picture: its path, from the root of the machine."""
    if not image:
        return ""
    path = Path(image).absolute()
    return LOCAL_FILES + quote(path.relative_to(path.anchor).as_posix())


def _from_min(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of JSON-MIN, which is one annotation, as a task of JSON."""
    if row["annotation_id"] is None:
        return {"data": row, "annotations": []}
    choice, note = row.get(CODE), row.get(NOTE)
    result = [{"from_name": CODE, "value": {"choices": [choice]}}] if choice else []
    result += [{"from_name": NOTE, "value": {"text": [note]}}] if note else []
    names = {"completed_by": "annotator", "updated_at": "updated_at", "lead_time": "lead_time"}
    return {"data": row, "annotations": [{"result": result} | {name: row[of] for name, of in names.items()}]}


def _decision(annotation: Mapping[str, Any]) -> dict[str, Any] | None:
    """The decision in an annotation; None without a choice."""
    result = annotation["result"]
    choices = [part["value"]["choices"] for part in result if part["from_name"] == CODE]
    if annotation.get("was_cancelled"):  # its result is the prediction, or what was chosen before
        answer, code, note = Answer.SKIP, None, ""
    elif choices:
        ((choice,),) = choices
        answer, code = (Answer.NO_CODE, None) if choice == NO_CODE_CHOICE else (Answer.CODE, int(choice))
        note = " ".join(text for part in result if part["from_name"] == NOTE for text in part["value"]["text"])
    else:
        return None
    decided_at = datetime.fromisoformat(annotation["updated_at"])
    if decided_at.tzinfo is None:
        raise ValueError("updated_at has no time zone")
    return {
        "person": _person(annotation["completed_by"]),
        "answer": answer.value,
        "prdtypecode": code,
        "note": note,
        "decided_at": decided_at,
        "seconds": annotation.get("lead_time"),
    }


def _person(completed_by: Any) -> str:
    """Whoever annotated: a number, or a mapping with an e-mail address, depending on how the project was exported."""
    if isinstance(completed_by, Mapping):
        return str(completed_by.get("email") or completed_by.get("id"))
    return f"label-studio:{completed_by}"
