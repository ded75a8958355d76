"""What people decided, as a table for those who judge a model by it: the monitoring."""

from pathlib import Path

import pandas as pd
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from rakuten.review.database import database_url, open_database
from rakuten.review.desk import ReviewDesk

# prediction_id is None but for live traffic; prdtypecode is the answer, NO_CODE if none of the codes fits.
COLUMNS = ("key", "prediction_id", "model_version", "predicted", "prdtypecode", "is_audit")


def existing_desk(agreement: int) -> ReviewDesk | None:
    """The desk of REVIEW_DATABASE_URL, or data/review/review.db; None where no product was ever put into one.

    Args:
        agreement: how many people must give the same answer.

    Raises:
        UserError: the database cannot be opened.
    """
    url = database_url()
    return None if _is_missing_file(url) else ReviewDesk(open_database(url), agreement)


def reviewed_products(desk: ReviewDesk | None) -> pd.DataFrame:
    """The decided products in COLUMNS, each once, with what the model had said when it was decided.

    However many people decided about a product, it is one row; it is none as long as they disagree, nobody has decided
    or the decision was taken back.
    """
    rows = [
        (product.key, product.prediction_id, product.model_version, product.predicted, answer, product.is_audit)
        for product, answer, _ in (desk.decided() if desk is not None else ())
    ]
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    return frame.astype({"predicted": "int64", "prdtypecode": "int64", "is_audit": "bool"})


def _is_missing_file(url: str) -> bool:
    try:
        address = make_url(url)
    except ArgumentError:
        return False  # which `open_database` says better
    return address.get_backend_name() == "sqlite" and not Path(address.database or "").is_file()
