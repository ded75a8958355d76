"""Labels that are probably wrong: confident learning on out-of-fold probabilities (Northcutt et al. 2021)."""

import warnings

import numpy as np
import pandas as pd
from cleanlab.filter import find_label_issues

from rakuten.data.tables import label
from rakuten.evaluation.metrics import Floats, Ints, deal
from rakuten.features.feature_set import Catalogue


def label_issues(
    catalogue: Catalogue, classes: Ints, index: Ints, predicted: Ints, likely: Floats, rows: int, seed: int
) -> pd.DataFrame:
    """Products whose label the out-of-fold model doubts, worst first.

    Args:
        classes: the codes, in the order of the columns of `likely`.
        index: column of each row's label.
        predicted: column of each row's likeliest class.
        likely: out-of-fold probabilities.
        rows: how many are judged together; more are dealt out, by the seed.

    Returns:
        productid, imageid, prdtypecode, label, suggested_prdtypecode, suggested_label,
        probability (of the label given), suggested_probability, designation_clean.
    """
    shares = -(-len(index) // rows)
    dealt = deal(len(index), shares, seed)
    parts = [np.flatnonzero(dealt == share) for share in range(shares)]
    doubted = np.sort(np.concatenate([part[_doubted(index[part], likely[part])] for part in parts]))
    given, suggested = (np.array(likely[doubted, which[doubted]]) for which in (index, predicted))
    # Ties fall by row, not by how a platform sorts.
    order = np.lexsort((doubted, given.round(6)))
    titles = catalogue.rows(doubted, ["designation_clean"])["designation_clean"].to_numpy()
    worst = doubted[order]
    told = catalogue.facts.iloc[worst]
    given_code, suggested_code = classes[index[worst]], classes[predicted[worst]]
    return pd.DataFrame(
        {
            "productid": told["productid"].to_numpy(),
            "imageid": told["imageid"].to_numpy(),
            "prdtypecode": given_code,
            "label": [label(int(code)) for code in given_code],
            "suggested_prdtypecode": suggested_code,
            "suggested_label": [label(int(code)) for code in suggested_code],
            "probability": given[order].round(6),
            "suggested_probability": suggested[order].round(6),
            "designation_clean": titles[order],
        }
    )


def _doubted(index: Ints, likely: Floats) -> Ints:
    if len(np.unique(index)) < 2:  # nothing that a label could be instead
        return np.array([], dtype=np.int64)
    with warnings.catch_warnings():
        # That a small class hides some of its issues; ingest has warned of small classes.
        warnings.filterwarnings("ignore", "May not flag all label issues", UserWarning)
        found = find_label_issues(index, likely, return_indices_ranked_by="self_confidence", n_jobs=1)
    return np.asarray(found, dtype=np.int64)
