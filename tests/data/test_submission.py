"""The challenge's submission."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rakuten.data.submission import check_submission, read_index, read_submission, submission_writer
from rakuten.data.tables import write_table
from rakuten.errors import UserError

PRODUCTS = pd.DataFrame({"index": ["7", "3", "9"], "designation": ["a", "b", "c"], "productid": ["70", "30", "90"]})
PREDICTIONS = pd.DataFrame({"productid": ["70", "30", "90"], "predicted_prdtypecode": [10, 2583, 10]}).astype(
    {"predicted_prdtypecode": "Int64"}
)
CLASSES = np.array([10, 50, 2583])


def test_a_submission_has_the_published_form(tmp_path: Path) -> None:
    path = tmp_path / "submission.csv"
    with submission_writer(path) as submit:
        submit(PRODUCTS[:2], PREDICTIONS[:2])
        submit(PRODUCTS[2:], PREDICTIONS[2:])
    assert path.read_bytes() == b",prdtypecode\n7,10\n3,2583\n9,10\n"
    write_table(PRODUCTS, tmp_path / "merged_test.csv")
    check_submission(read_submission(path), read_index(tmp_path / "merged_test.csv"), CLASSES)


def test_predictions_of_other_products_are_refused(tmp_path: Path) -> None:
    for predictions in (PREDICTIONS[::-1], PREDICTIONS[:2]):
        with (
            submission_writer(tmp_path / "s.csv") as submit,
            pytest.raises(UserError, match="are not those of the rows"),
        ):
            submit(PRODUCTS, predictions)


def submission(index: list[int], codes: list[int], column: str = "prdtypecode") -> pd.DataFrame:
    return pd.DataFrame({column: codes}, index=index)


FAULTS = {
    "its columns are": submission([7, 3, 9], [10, 10, 10], "code"),
    "its index is not that of X_test.csv": submission([3, 7, 9], [10, 10, 10]),
    "its index is not": submission([7, 3], [10, 10]),
    "an index occurs twice": submission([7, 7, 9], [10, 10, 10]),
    "a code is not one of the model's": submission([7, 3, 9], [10, 11, 10]),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_submission_is_refused(fault: str) -> None:
    check_submission(submission([7, 3, 9], [10, 50, 10]), np.array([7, 3, 9]), CLASSES)
    with pytest.raises(UserError, match=fault):
        check_submission(FAULTS[fault], np.array([7, 3, 9]), CLASSES)
