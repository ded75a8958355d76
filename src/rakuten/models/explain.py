"""Why a product got its code: what its words spoke for and against, what each view weighed, pictures alike."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from rakuten.data.tables import label
from rakuten.models import fusion
from rakuten.models.classifier import PICTURE, WORDS, ProductClassifier, Products

TERMS, PICTURES = 10, 5  # shown


class Explanation(NamedTuple):
    """Contributions are in log-odds of the code against the average code: what each part adds to its score."""

    prdtypecode: int
    label: str
    confidence: float
    views: pd.DataFrame  # view, contribution, share (of the absolute contributions)
    spoke_for: pd.DataFrame  # columns, analyzer, term, contribution; largest first
    spoke_against: pd.DataFrame  # likewise; most negative first
    pictures: pd.DataFrame  # productid, imageid, prdtypecode, similarity of the most alike training pictures


def explain(classifier: ProductClassifier, product: Products, code: int | None = None) -> Explanation:
    """Explain the likeliest code of a product, or another code.

    Args:
        product: one row.
        code: one of the classifier's classes.
    """
    likely = classifier.predict_proba(product)[0]
    place = int(likely.argmax()) if code is None else int(np.flatnonzero(classifier.classes == code)[0])
    chosen = int(classifier.classes[place])
    where = fusion.context(product.table)
    parts = classifier.fusion.parts(classifier.scores(product), where)
    views = pd.DataFrame({"view": list(parts), "contribution": [part[0, place] for part in parts.values()]})
    total = max(float(views["contribution"].abs().sum()), 1e-9)
    terms = _terms(classifier, product, place, float(parts[WORDS][0, place]) if WORDS in parts else 0.0)
    picture = product.pictures
    near = pd.DataFrame(columns=["productid", "imageid", "prdtypecode", "similarity"])
    if classifier.neighbours is not None and picture is not None and PICTURE in parts and not np.isnan(picture[0, 0]):
        near = classifier.neighbours.nearest(picture[0], PICTURES)
    return Explanation(
        chosen,
        label(chosen),
        float(likely[place]),
        views.assign(share=views["contribution"].abs() / total),
        terms[terms["contribution"] > 0].head(TERMS).reset_index(drop=True),
        terms[terms["contribution"] < 0].tail(TERMS)[::-1].reset_index(drop=True),
        near,
    )


def _terms(classifier: ProductClassifier, product: Products, place: int, contribution: float) -> pd.DataFrame:
    """Every n-gram of the product with its share of what the words add to the code's score, largest first.

    The share is by what the n-gram adds to the linear score of the words, which the fusion then bends.
    """
    columns = ["columns", "analyzer", "term", "contribution"]
    if WORDS not in classifier.linear or not product.has_text()[0]:
        return pd.DataFrame(columns=columns)
    row, linear = classifier.vectorizer.transform(product.table), classifier.linear[WORDS]
    coef = linear.coef[:, row.indices].astype(np.float64)
    added = (coef[place] - coef.mean(axis=0)) * row.data
    score = added.sum() + float(linear.intercept[place] - linear.intercept.mean())
    bend = contribution / score if score * contribution > 0 else 1.0
    table = pd.DataFrame(classifier.vectorizer.names(row.indices), columns=columns[:3])
    return table.assign(contribution=added * bend).sort_values("contribution", ascending=False, kind="stable")
