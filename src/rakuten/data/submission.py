"""The file that the challenge takes: a code for each row of X_test.csv, in the form of its published Y_train.csv."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd

from rakuten.data.schema import INDEX
from rakuten.data.tables import read_table_chunks
from rakuten.errors import UserError
from rakuten.types import IntArray

CODE = "prdtypecode"


@contextmanager
def submission_writer(path: Path) -> Iterator[Callable[[pd.DataFrame, pd.DataFrame], None]]:
    """Yield a function that appends rows to a new submission.

    Its arguments are a chunk of the table of test products that ingest wrote, and the predictions of the same products
    (productid, predicted_prdtypecode). It raises UserError if they are of other products.
    """
    with path.open("w", encoding="utf-8", newline="") as stream:

        def write(products: pd.DataFrame, predictions: pd.DataFrame) -> None:
            if products["productid"].tolist() != predictions["productid"].tolist():
                raise UserError("the test features are not those of the rows that ingest wrote; run `dvc repro`")
            codes = predictions["predicted_prdtypecode"].to_numpy()
            rows = pd.DataFrame({CODE: codes}, index=pd.Index(products[INDEX]).rename(None))
            rows.to_csv(stream, header=stream.tell() == 0, lineterminator="\n")

        yield write


def read_index(path: Path) -> IntArray:
    """The index of each row of a table that ingest wrote."""
    return np.concatenate([chunk[INDEX].to_numpy() for chunk in read_table_chunks(path, integers=(INDEX,))])


def read_submission(path: Path) -> pd.DataFrame:
    """The column prdtypecode of a submission, with its index; both int64."""
    return pd.read_csv(path, index_col=0, dtype="int64")


def check_submission(submission: pd.DataFrame, index: IntArray, classes: IntArray) -> None:
    """Check that a submission is one that the challenge can score.

    Args:
        submission: see `read_submission`.
        index: the index of each row of X_test.csv.
        classes: the codes that the model knows.

    Raises:
        UserError: it has another column, other rows or another order than X_test.csv, an index twice, or another code.
    """
    faults = {
        f"its columns are {list(submission.columns)}, not {[CODE]}": list(submission.columns) != [CODE],
        "its index is not that of X_test.csv": not np.array_equal(submission.index, index),
        "an index occurs twice": not submission.index.is_unique,
        "a code is not one of the model's": not np.isin(submission.get(CODE, []), classes).all(),
    }
    if found := [fault for fault, present in faults.items() if present]:
        raise UserError(f"the submission is wrong ({'; '.join(found)}); run `dvc repro`")
