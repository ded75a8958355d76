"""Labels that are probably wrong: confident learning on out-of-fold probabilities (Northcutt et al. 2021)."""

import warnings

import numpy as np
import pandas as pd
from cleanlab.filter import find_label_issues

from src.data.catalog import label
from src.models.evaluation import Floats, Ints


def label_issues(table: pd.DataFrame, classes: Ints, index: Ints, likely: Floats) -> pd.DataFrame:
    """Products whose label the out-of-fold model doubts, worst first.

    Args:
        table: productid, imageid, designation_clean of each row.
        classes: the codes, in the order of the columns of `likely`.
        index: column of each row's label.
        likely: out-of-fold probabilities.

    Returns:
        productid, imageid, prdtypecode, label, suggested_prdtypecode, suggested_label,
        probability (of the label given), suggested_probability, designation_clean.
    """
    with warnings.catch_warnings():
        # That a small class hides some of its issues; ingest has warned of small classes.
        warnings.filterwarnings("ignore", "May not flag all label issues", UserWarning)
        found = find_label_issues(index, likely, return_indices_ranked_by="self_confidence", n_jobs=1)
    doubted = np.asarray(found, dtype=np.int64)
    # Ties fall by row, not by how a platform sorts.
    doubted = doubted[np.lexsort((doubted, likely[doubted, index[doubted]].round(6)))]
    given, suggested = classes[index[doubted]], classes[likely[doubted].argmax(axis=1)]
    rows = table.iloc[doubted]
    return pd.DataFrame(
        {
            "productid": rows["productid"].to_numpy(),
            "imageid": rows["imageid"].to_numpy(),
            "prdtypecode": given,
            "label": [label(int(code)) for code in given],
            "suggested_prdtypecode": suggested,
            "suggested_label": [label(int(code)) for code in suggested],
            "probability": likely[doubted, index[doubted]].round(6),
            "suggested_probability": likely[doubted].max(axis=1).round(6),
            "designation_clean": rows["designation_clean"].to_numpy(),
        }
    )
