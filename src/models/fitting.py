"""How the classifier is fitted: each view out of fold, then the fusion on what came out, then all rows."""

import logging
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from joblib import Parallel, delayed
from threadpoolctl import threadpool_limits

from src.cli import progress
from src.config import Params
from src.features.ngrams import Block, Counts, NgramVectorizer, count
from src.models import evaluation, fusion, neighbours
from src.models.classifier import MEANING, PICTURE, WORDS, ProductClassifier, Products, Settings
from src.models.evaluation import Flags, Floats, Ints
from src.models.fusion import Fusion
from src.models.linear import ROWS, Linear, Moments, Numbers, fit_discriminant, fit_svm

log = logging.getLogger(__name__)

LEAST = 20  # rows that must have a view before it is learnt
# How the picture comes in: its trust learnt with that in the text, beside a fusion of the text that stays as it is,
# or for products without text alone, which leaves the others as text alone has them.
TEXT_ALONE, TOGETHER, BESIDE, LAST_RESORT = "left out", "weighed together", "beside", "as a last resort"
WAYS = (TOGETHER, BESIDE, LAST_RESORT)
FUSED_ROWS = 10_000  # enough for the few hundred coefficients of the fusion


class Held(NamedTuple):
    """Out-of-fold scores of one view (rows x classes, NaN where it is absent), and the view fitted on all rows."""

    scores: Floats
    linear: Linear


class Rival(NamedTuple):
    """Something that the fusion is compared with: out-of-fold probabilities, and the rows that it can judge."""

    likely: Floats
    rows: Flags


class Fit(NamedTuple):
    """A classifier, its out-of-fold probabilities (rows x classes), and what it was compared with."""

    classifier: ProductClassifier
    true_index: Ints  # the true class's column of each row
    fold: Ints
    likely: Floats
    compared: dict[str, Rival]


def fit(products: Products, params: Params, encoders: Mapping[str, str]) -> Fit:
    """Fit on all rows; what is learnt second (shrinkage, fusion, threshold) comes from out-of-fold scores.

    Args:
        products: their table has prdtypecode.
        encoders: view -> identity of the encoder behind its embeddings.
    """
    codes = products.table["prdtypecode"].to_numpy(dtype=np.int64)
    classes, index = np.unique(codes, return_inverse=True)
    fold = evaluation.assign_folds(products.table, codes, params.train.folds, params.seed)
    vectorizer, words = fit_words(products, codes, fold, params)
    held = {WORDS: words} if words else {}
    near = None
    with threadpool_limits(1):  # sums of floats depend on how they are cut
        for view in (MEANING, PICTURE):
            vectors = products.embeddings(view)
            if vectors is None or (there := ~np.isnan(vectors[:, 0])).sum() < LEAST:
                continue
            log.info("discriminant analysis of the %s of %s products", view, f"{there.sum():,}")
            moments = [
                Moments.of(vectors[there & (fold == f)], index[there & (fold == f)], len(classes))
                for f in np.unique(fold)
            ]
            held[view] = fit_embedding(vectors, there, classes, fold, moments)
            if view == PICTURE:
                near = neighbours.fit(vectors[there], Moments.total(moments), products.table[there])
        scores = {view: each.scores for view, each in held.items()}
        where = fusion.context(products.table)
        fused, likely, compared = fuse(scores, where, index, classes, fold, products.has_text(), params.seed)
    right, confidence = likely.argmax(axis=1) == index, likely.max(axis=1)
    settings = Settings(
        params.features,
        {view: encoders[view] for view in held if view in encoders},
        params.predict.target_precision,
        evaluation.threshold_for(confidence, right, params.predict.target_precision),
    )
    linear = {view: each.linear for view, each in held.items()}
    classifier = ProductClassifier(vectorizer, linear, fused, settings, near)
    return Fit(classifier, index, fold, likely, compared)


def blocks_of(params: Params) -> list[Block]:
    return [Block.of(block.model_dump()) for block in params.train.blocks]


def fit_words(products: Products, codes: Ints, fold: Ints, params: Params) -> tuple[NgramVectorizer, Held | None]:
    """The linear SVM on n-grams of the products that have text; None if fewer than two classes have."""
    table, blocks, there = products.table, blocks_of(params), products.has_text()
    classes, rows = np.unique(codes), np.flatnonzero(there)
    counts = [count(table, block) for block in progress(blocks, len(blocks), "counting n-grams")]
    vectorizer = NgramVectorizer.fit(blocks, counts, rows)
    if len(rows) < LEAST or len(np.unique(codes[rows])) < 2:
        return vectorizer, None
    scores = np.full((len(codes), len(classes)), np.nan)
    numbers = np.unique(fold)
    # Processes, not threads: the solver's random numbers are global to a process.
    jobs = (delayed(_held_out)(counts, codes, there, fold, number, params) for number in numbers)
    done = Parallel(n_jobs=-1, return_as="generator")(jobs)
    for number, found in zip(numbers, progress(done, len(numbers), "out-of-fold text models"), strict=True):
        scores[there & (fold == number)] = found
    log.info("fitting the text model on all %s products that have text", f"{len(rows):,}")
    linear = fit_svm(vectorizer.transform_counts(counts, rows), codes[rows], params.train.svm_c, params.seed)
    return vectorizer, Held(scores, linear.over(classes))


def _held_out(counts: Sequence[Counts], codes: Ints, there: Flags, fold: Ints, number: int, params: Params) -> Floats:
    """Scores of a fold's products by a model that saw neither them nor their titles."""
    seen, held_out = np.flatnonzero(there & (fold != number)), np.flatnonzero(there & (fold == number))
    classes = np.unique(codes)
    if len(np.unique(codes[seen])) < 2:  # all other rows are of one class: nothing to tell apart
        return np.zeros((len(held_out), len(classes)))
    vectorizer = NgramVectorizer.fit(blocks_of(params), counts, seen)
    linear = fit_svm(vectorizer.transform_counts(counts, seen), codes[seen], params.train.svm_c, params.seed)
    return linear.over(classes).decision(vectorizer.transform_counts(counts, held_out))


def fit_embedding(vectors: Numbers, there: Flags, classes: Ints, fold: Ints, moments: Sequence[Moments]) -> Held:
    """Discriminant analysis; a fold's model comes from the moments of all rows less those of the fold."""
    total = Moments.total(moments)
    scores = np.full((len(fold), len(classes)), np.nan)
    for number, part in zip(np.unique(fold), moments, strict=True):
        rows = np.flatnonzero(there & (fold == number))
        model = fit_discriminant(total - part, classes)
        for some in np.array_split(rows, len(rows) // ROWS + 1):
            scores[some] = model.decision(np.asarray(vectors[some], dtype=np.float32))
    return Held(scores, fit_discriminant(total, classes))


def fuse(
    scores: Mapping[str, Floats], where: Floats, index: Ints, classes: Ints, fold: Ints, has_text: Flags, seed: int
) -> tuple[Fusion, Floats, dict[str, Rival]]:
    """The fusion, its cross-fitted probabilities, and those of what it was compared with.

    The picture comes in by the first of WAYS that is no worse than text alone on the products that have text.
    """
    drawn = np.random.default_rng(seed).permutation(len(index))[:FUSED_ROWS]
    text = tuple(name for name in scores if name != PICTURE)

    def fitted(way: str, rows: Ints) -> Fusion:
        def fit_on(views: Sequence[str], base: Fusion | None = None, last_resort: bool = False) -> Fusion:
            part = {view: scores[view][rows] for view in views}
            return fusion.fit(part, where[rows], index[rows], classes, base, last_resort)

        if way == TOGETHER:
            return fit_on(tuple(scores))
        by_text = fit_on(text)
        return by_text if way == TEXT_ALONE else fit_on(tuple(scores), by_text, way == LAST_RESORT)

    def cross_fitted(way: str) -> Floats:
        likely = np.empty((len(index), len(classes)))
        for number in np.unique(fold):
            out = fold == number
            part = fitted(way, drawn[fold[drawn] != number])
            likely[out] = part.predict_proba({view: scores[view][out] for view in part.views}, where[out])
        return likely

    def f1(likely: Floats) -> float:
        return (
            evaluation.scores(index[has_text], likely[has_text].argmax(axis=1))["weighted_f1"]
            if has_text.any()
            else 0.0
        )

    by_text = cross_fitted(TEXT_ALONE)
    there = {name: ~np.isnan(view[:, 0]) for name, view in scores.items()}
    alone = {name: evaluation.alone(view, index) for name, view in scores.items()}
    compared = {name: Rival(alone[name], there[name]) for name in scores}
    everything = np.ones(len(index), dtype=bool)
    if scores:
        compared["equal average"] = Rival(evaluation.equal_average(alone, there), everything)
    compared["text alone"] = Rival(by_text, everything)
    if PICTURE not in scores:
        return fitted(TEXT_ALONE, drawn), by_text, compared
    for way in WAYS:
        likely = cross_fitted(way)
        if f1(likely) >= f1(by_text):
            break
        log.info("with the pictures %s the score is below text alone out of fold", way)
    if way == LAST_RESORT:
        log.warning("pictures do not help out of fold: they are used only for products without text")
    return fitted(way, drawn), likely, compared
