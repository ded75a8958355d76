"""From a train row back to the decisions that changed it. A pure function."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC

import pandas as pd

from rakuten.review.tables import ReviewDecision, ReviewProduct


def corrections_of(
    productid: str,
    outcomes: pd.DataFrame,
    decided: Iterable[tuple[ReviewProduct, int, Sequence[ReviewDecision]]],
) -> Iterator[str]:
    """A line for each correction of a product, and one for each decision behind it.

    Args:
        outcomes: data/interim/corrections.csv, see `Corrections.outcome_table`.
        decided: from `ReviewDesk.decided`.
    """
    decision_by_id = {str(decision.id): decision for _, _, decisions in decided for decision in decisions}
    for row in outcomes[outcomes["productid"] == productid].to_dict("records"):
        old, new = row["old_prdtypecode"] or "no label", row["prdtypecode"] or "none of the codes"
        name = f"train row {row['index']}" if row["index"] else "no train row"
        yield f"{name}: product {productid}, image {row['imageid']}: {old} -> {new}: {row['outcome']}"
        for number in row["decisions"].split(";"):
            yield f"  decision {number}: {_describe(decision_by_id.get(number))}"


def _describe(decision: ReviewDecision | None) -> str:
    if decision is None:
        return "does not stand in this review desk"
    return (
        f"{decision.person}, {decision.decided_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC; "
        f"model {decision.model_version} had said {decision.predicted} ({decision.confidence:.2f})"
    )
