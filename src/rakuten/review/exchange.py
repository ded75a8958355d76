"""Decisions as files: corrections.csv for the pipeline, and all of them as CSV. Pure functions."""

import csv
import hashlib
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import pandas as pd

from rakuten.data import corrections as corrections_file
from rakuten.data.taxonomy import Taxonomy
from rakuten.errors import UserError
from rakuten.review.decisions import NO_CODE
from rakuten.review.tables import Answer, ReviewDecision, ReviewProduct

DECISION_COLUMNS = (
    "source", "key", "productid", "imageid", "person", "answer", "prdtypecode", "note", "decided_at", "seconds",
    "predicted", "confidence", "model_version",
)  # fmt: skip


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


def corrections(
    decided: Iterable[tuple[ReviewProduct, int, Sequence[ReviewDecision]]], taxonomy: Taxonomy
) -> pd.DataFrame:
    """The decided products, as data/corrections/corrections.csv holds them, with the ids of `ids_of`.

    prdtypecode is empty where none of the codes fits. old_prdtypecode, the label that the product had, is empty for a
    product that is not among the train products; only such a product has its text here. Products whose label was
    confirmed, or is of a code that was merged into the answer, are left out: there is nothing to correct.

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
        if product.prdtypecode is None or answer != taxonomy.follow_code(product.prdtypecode)
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
