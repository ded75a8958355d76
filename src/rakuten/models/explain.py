"""Explanations: how much each view and each n-gram contributed to a code, and which training images are similar."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

from rakuten.data.taxonomy import label_of
from rakuten.disk_array import missing_rows
from rakuten.features.encoders.finetuned_text import ProductText, cased_texts
from rakuten.features.feature_set import FeatureBatch
from rakuten.models.classifier import ProductClassifier
from rakuten.models.fusion import gating_context
from rakuten.types import FINETUNED_TEXT, IMAGE, NGRAMS

MAX_TERMS, MAX_IMAGES = 10, 5  # shown
MAX_WORDS = 40  # left out one by one to explain a fine-tuned network, the first of title and description
LEFT_OUT = "left out"  # analyzer of a word whose contribution is what the score loses without it


class Explanation(NamedTuple):
    """Contributions are in log-odds of the code against the average code: what each part adds to its score."""

    prdtypecode: int
    label: str
    confidence: float
    views: pd.DataFrame  # view, contribution, share (of the absolute contributions)
    # Of the n-grams; or of the words that the fine-tuned network read, where that view contributes more.
    positive_terms: pd.DataFrame  # columns, analyzer, term, contribution; largest first
    negative_terms: pd.DataFrame  # likewise; most negative first
    similar_images: pd.DataFrame  # productid, imageid, prdtypecode, similarity of the most similar training images


def explain(
    classifier: ProductClassifier, product: FeatureBatch, code: int | None = None, text: ProductText = ("", "")
) -> Explanation:
    """Explain the most probable code of a product, or another code.

    Args:
        product: one row.
        code: one of the classifier's classes; None for the most probable one.
        text: raw designation and description of the product, which a fine-tuned network reads.
    """
    proba = classifier.predict_proba(product)[0]
    column = int(proba.argmax()) if code is None else int(np.flatnonzero(classifier.classes == code)[0])
    explained = int(classifier.classes[column])
    contributions = classifier.fusion.contributions(classifier.scores(product), gating_context(product.table))
    by_view = {view: float(added[0, column]) for view, added in contributions.items()}
    views = pd.DataFrame({"view": list(by_view), "contribution": list(by_view.values())})
    total = max(float(views["contribution"].abs().sum()), 1e-9)
    terms = _terms(classifier, product, column, by_view, text)
    return Explanation(
        explained,
        label_of(explained),
        float(proba[column]),
        views.assign(share=views["contribution"].abs() / total),
        terms[terms["contribution"] > 0].head(MAX_TERMS).reset_index(drop=True),
        terms[terms["contribution"] < 0].tail(MAX_TERMS)[::-1].reset_index(drop=True),
        _similar_images(classifier, product),
    )


def _terms(
    classifier: ProductClassifier,
    product: FeatureBatch,
    column: int,
    by_view: Mapping[str, float],
    text: ProductText,
) -> pd.DataFrame:
    """Contributions of n-grams, or of words where the fine-tuned network contributes more."""
    ngrams, finetuned = abs(by_view.get(NGRAMS, 0.0)), abs(by_view.get(FINETUNED_TEXT, 0.0))
    if FINETUNED_TEXT in classifier.networks and any(text) and finetuned > ngrams:
        return _word_contributions(classifier, product, column, cased_texts(*text))
    return _term_contributions(classifier, product, column, by_view.get(NGRAMS, 0.0))


def _word_contributions(
    classifier: ProductClassifier, product: FeatureBatch, column: int, text: ProductText
) -> pd.DataFrame:
    """What the code's fused score loses when the fine-tuned network reads the text without a word, largest first.

    Words are left out rather than weighed by gradients: that is what the network does, not an approximation of it, and
    needs no torch.
    """
    words = [(part, position) for part in (0, 1) for position in range(len(text[part].split()))][:MAX_WORDS]
    texts = [text, *(_without_word(text, *word) for word in words)]
    scores = classifier.networks[FINETUNED_TEXT].text(all_cores=True).scores(texts).astype(np.float64)
    context = np.repeat(gating_context(product.table), len(texts), axis=0)
    added = classifier.fusion.contribution(FINETUNED_TEXT, scores, context)[:, column]
    table = pd.DataFrame(
        {
            "columns": [("designation_clean", "description_clean")[part] for part, _ in words],
            "analyzer": LEFT_OUT,
            "term": [text[part].split()[position] for part, position in words],
            "contribution": added[0] - added[1:],
        }
    )
    return table.sort_values("contribution", ascending=False, kind="stable")


def _without_word(text: ProductText, part: int, position: int) -> ProductText:
    words = text[part].split()
    shorter = " ".join(words[:position] + words[position + 1 :])
    return (shorter, text[1]) if part == 0 else (text[0], shorter)


def _similar_images(classifier: ProductClassifier, product: FeatureBatch) -> pd.DataFrame:
    embeddings = product.image_embeddings if IMAGE in classifier.fusion.views else None
    if classifier.neighbours is None or embeddings is None or missing_rows(embeddings)[0]:
        return pd.DataFrame(columns=["productid", "imageid", "prdtypecode", "similarity"])
    return classifier.neighbours.kneighbors(embeddings[0], MAX_IMAGES)


def _term_contributions(
    classifier: ProductClassifier, product: FeatureBatch, column: int, view_contribution: float
) -> pd.DataFrame:
    """Every n-gram of the product with its share of what the n-gram view adds to the code's score, largest first.

    The fusion is not linear in the view's score. Each n-gram gets the share that it has of the linear score.

    Args:
        column: class column of the code.
        view_contribution: what the n-gram view adds to the code's fused score.
    """
    names = ["columns", "analyzer", "term", "contribution"]
    if NGRAMS not in classifier.linear or not product.has_text()[0]:
        return pd.DataFrame(columns=names)
    features, linear = classifier.vectorizer.transform(product.table), classifier.linear[NGRAMS]
    coef = linear.coef[:, features.indices].astype(np.float64)
    added = (coef[column] - coef.mean(axis=0)) * features.data
    score = added.sum() + float(linear.intercept[column] - linear.intercept.mean())
    scale = view_contribution / score if score * view_contribution > 0 else 1.0
    table = pd.DataFrame(classifier.vectorizer.get_feature_names(features.indices), columns=names[:3])
    return table.assign(contribution=added * scale).sort_values("contribution", ascending=False, kind="stable")
