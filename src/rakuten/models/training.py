"""How the classifier is fitted: each view out of fold, then the fusion on what came out, then all rows.

Scores of all rows by all classes lie on disk and are gone through a part at a time.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from rakuten.cli import progress
from rakuten.compute.parallel import each
from rakuten.config import Params
from rakuten.data.tables import ROWS
from rakuten.evaluation import metrics
from rakuten.evaluation.metrics import Flags, Floats, Ints
from rakuten.features.embedding import release
from rakuten.features.feature_set import Catalogue
from rakuten.features.ngrams import Block, NgramVectorizer
from rakuten.models import fusion, neighbours, text_model
from rakuten.models.classifier import MEANING, PICTURE, WORDS, ProductClassifier, Settings
from rakuten.models.fusion import Fusion
from rakuten.models.linear import ROWS as READ
from rakuten.models.linear import Linear, Moments, Numbers, fit_discriminant
from rakuten.models.text_model import Shards

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
    """Something that the fusion is compared with: the class it finds for each row, and the rows that it can judge."""

    predicted: Ints  # columns of the classes
    rows: Flags


class Fit(NamedTuple):
    """A classifier, its out-of-fold probabilities (rows x classes), and what it was compared with."""

    classifier: ProductClassifier
    true_index: Ints  # the true class's column of each row
    fold: Ints
    likely: Floats
    predicted: Ints  # the likeliest class's column of each row
    confidence: Floats  # its probability
    compared: dict[str, Rival]


def fit(catalogue: Catalogue, params: Params, encoders: Mapping[str, str], scratch: Path) -> Fit:
    """Fit on all rows; what is learnt second (shrinkage, fusion, threshold) comes from out-of-fold scores.

    Args:
        encoders: view -> identity of the encoder behind its embeddings.
        scratch: an empty folder that every worker sees; `likely` lies in it.
    """
    codes = catalogue.codes()
    classes, index = np.unique(codes, return_inverse=True)
    fold = metrics.assign_folds(catalogue.facts["group"].to_numpy(), codes, params.train.folds, params.seed)
    vectorizer, words = fit_words(catalogue, codes, fold, params, scratch)
    held = {WORDS: words} if words else {}
    near = None
    with threadpool_limits(1):  # sums of floats depend on how they are cut
        for view, vectors in ((MEANING, catalogue.texts), (PICTURE, catalogue.pictures)):
            if vectors is None or (there := present(vectors)).sum() < LEAST:
                continue
            log.info("discriminant analysis of the %s of %s products", view, f"{there.sum():,}")
            moments = moments_by_fold(vectors, there, index, classes, fold, scratch / view)
            room = _room(scratch / f"scores-{view}.npy", len(codes), len(classes))
            held[view] = fit_embedding(vectors, there, classes, fold, moments, room)
            if view == PICTURE:
                rows = np.flatnonzero(there)
                near = neighbours.fit(vectors, rows, Moments.total(moments), catalogue.facts, params.seed)
        scores = {view: each_view.scores for view, each_view in held.items()}
        where, likely = fusion.context(catalogue.facts), _room(scratch / "likely.npy", len(codes), len(classes))
        fused, predicted, confidence, compared = fuse(
            scores, where, index, classes, fold, catalogue.has_text(), params.seed, likely
        )
    settings = Settings(
        params.features,
        {view: encoders[view] for view in held if view in encoders},
        params.predict.target_precision,
        metrics.threshold_for(confidence, predicted == index, params.predict.target_precision),
    )
    linear = {view: each_view.linear for view, each_view in held.items()}
    classifier = ProductClassifier(vectorizer, linear, fused, settings, near)
    return Fit(classifier, index, fold, likely, predicted, confidence, compared)


def _room(path: Path, rows: int, classes: int) -> Floats:
    """A table of NaN on disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    room: Floats = np.lib.format.open_memmap(path, mode="w+", dtype=np.float64, shape=(rows, classes))
    for part in _parts(rows):
        room[part] = np.nan
    release(room)
    return room


def _parts(rows: int) -> Iterator[slice]:
    return (slice(at, min(at + ROWS, rows)) for at in range(0, rows, ROWS))


def blocks_of(params: Params) -> list[Block]:
    return [Block.of(block.model_dump()) for block in params.train.blocks]


def fit_words(
    catalogue: Catalogue, codes: Ints, fold: Ints, params: Params, scratch: Path
) -> tuple[NgramVectorizer, Held | None]:
    """The linear SVM on n-grams of the products that have text; None if fewer than two classes have."""
    there, blocks, classes = catalogue.has_text(), blocks_of(params), np.unique(codes)
    if there.sum() < LEAST or len(np.unique(codes[there])) < 2:
        nothing: list[list[str]] = [[] for _ in blocks]
        return NgramVectorizer(blocks, nothing, [np.array([]) for _ in blocks]), None
    folder = scratch / WORDS
    folder.mkdir(parents=True)
    count, known = -(-len(codes) // params.train.shard_rows), tuple(classes.tolist())
    how = Shards(folder, count, params.train.folds, tuple(blocks), known, params.train.svm_c, params.seed)
    scores = _room(scratch / f"scores-{WORDS}.npy", len(codes), len(classes))
    vectorizer, linear = text_model.out_of_fold(catalogue.parts, codes, fold, there, how, scores)
    release(scores)
    return vectorizer, Held(scores, linear)


def present(vectors: Numbers) -> Flags:
    """Which rows have an embedding."""
    found = np.empty(len(vectors), dtype=bool)
    for part in _parts(len(vectors)):
        found[part] = ~np.isnan(vectors[part, 0])
        release(vectors)
    return found


def moments_by_fold(
    vectors: Numbers, there: Flags, index: Ints, classes: Ints, fold: Ints, folder: Path
) -> list[Moments]:
    """Moments of the embeddings of each fold's rows."""
    folder.mkdir(parents=True)
    source = folder / "vectors.npy"
    if isinstance(vectors, np.memmap) and vectors.filename is not None:
        source = Path(vectors.filename)
    else:
        np.save(source, vectors)
    np.save(folder / "index.npy", index)
    np.save(folder / "fold.npy", np.where(there, fold, text_model.NO_FOLD))
    numbers = np.unique(fold).tolist()
    task = partial(_moments, source, folder, len(classes))
    return list(progress(each(task, numbers, 1, _named), len(numbers), f"moments of the {folder.name} of the folds"))


def _moments(source: Path, folder: Path, classes: int, number: int) -> Moments:
    vectors, index, fold = (
        np.load(path, mmap_mode="r", allow_pickle=False) for path in (source, folder / "index.npy", folder / "fold.npy")
    )
    rows = np.flatnonzero(fold == number)
    return Moments.of(vectors, rows, np.array(index[rows]), classes)


def _named(number: int) -> str:
    return f"the embeddings of fold {number}"


def fit_embedding(
    vectors: Numbers, there: Flags, classes: Ints, fold: Ints, moments: Sequence[Moments], scores: Floats
) -> Held:
    """Discriminant analysis; a fold's model comes from the moments of all rows less those of the fold.

    Args:
        scores: rows x classes of NaN, where the scores go.
    """
    total = Moments.total(moments)
    for number, part in zip(np.unique(fold), moments, strict=True):
        rows = np.flatnonzero(there & (fold == number))
        model = fit_discriminant(total - part, classes)
        for some in np.array_split(rows, len(rows) // READ + 1):
            scores[some] = model.decision(np.asarray(vectors[some], dtype=np.float32))
            release(vectors)
    release(scores)
    return Held(scores, fit_discriminant(total, classes))


def fuse(
    scores: Mapping[str, Floats],
    where: Floats,
    index: Ints,
    classes: Ints,
    fold: Ints,
    has_text: Flags,
    seed: int,
    likely: Floats,
) -> tuple[Fusion, Ints, Floats, dict[str, Rival]]:
    """The fusion, what it finds cross-fitted (class column and confidence), and what it was compared with.

    The picture comes in by the first of WAYS that is no worse than text alone on the products that have text.

    Args:
        likely: rows x classes, where the cross-fitted probabilities go.
    """
    drawn = np.random.default_rng(seed).permutation(len(index))[:FUSED_ROWS]
    numbers = np.unique(fold)
    text = tuple(name for name in scores if name != PICTURE)

    def fitted(way: str, rows: Ints) -> Fusion:
        def fit_on(views: Sequence[str], base: Fusion | None = None, last_resort: bool = False) -> Fusion:
            part = {view: scores[view][rows] for view in views}
            return fusion.fit(part, where[rows], index[rows], classes, base, last_resort)

        if way == TOGETHER:
            return fit_on(tuple(scores))
        by_text = fit_on(text)
        return by_text if way == TEXT_ALONE else fit_on(tuple(scores), by_text, way == LAST_RESORT)

    def cross_fitted(way: str) -> Ints:
        """Fills `likely`; the likeliest class of each row."""
        models = {number: fitted(way, drawn[fold[drawn] != number]) for number in numbers}
        found = np.empty(len(index), dtype=np.int64)
        for part in _parts(len(index)):
            seen, own = {view: scores[view][part] for view in scores}, fold[part]
            here = np.empty((len(own), len(classes)))
            for number, model in models.items():
                out = own == number
                here[out] = model.predict_proba({view: seen[view][out] for view in model.views}, where[part][out])
            likely[part], found[part] = here, here.argmax(axis=1)
            for each_array in (likely, *scores.values()):
                release(each_array)
        return found

    def f1(predicted: Ints) -> float:
        return metrics.scores(index[has_text], predicted[has_text])["weighted_f1"] if has_text.any() else 0.0

    predicted = by_text = cross_fitted(TEXT_ALONE)
    compared = compare(scores, index, len(classes), drawn)
    compared["text alone"] = Rival(by_text, np.ones(len(index), dtype=bool))
    way = TEXT_ALONE
    for way in WAYS if PICTURE in scores else ():
        predicted = cross_fitted(way)
        if f1(predicted) >= f1(by_text):
            break
        log.info("with the pictures %s the score is below text alone out of fold", way)
    if way == LAST_RESORT:
        log.warning("pictures do not help out of fold: they are used only for products without text")
    confidence = np.concatenate([likely[part].max(axis=1) for part in _parts(len(index))])
    release(likely)
    return fitted(way, drawn), predicted, confidence, compared


def compare(scores: Mapping[str, Floats], index: Ints, classes: int, drawn: Ints) -> dict[str, Rival]:
    """What each view finds alone, and the plain average of those that a product has."""
    if not scores:
        return {}
    shares, temperature = np.bincount(index, minlength=classes) / len(index), {}
    for view in scores:
        part, true = scores[view][np.sort(drawn)], index[np.sort(drawn)]
        there = ~np.isnan(part[:, 0])
        temperature[view] = metrics.fit_temperature(part[there], true[there])[0] if there.any() else 1.0
    found: dict[str, list[Ints]] = {view: [] for view in (*scores, "equal average")}
    rows: dict[str, list[Flags]] = {view: [] for view in scores}
    for piece in _parts(len(index)):
        here = {view: np.array(scores[view][piece]) for view in scores}
        there_of = {view: ~np.isnan(here[view][:, 0]) for view in scores}
        alone = {view: metrics.alone(here[view], temperature[view], shares) for view in scores}
        for view in scores:
            found[view].append(alone[view].argmax(axis=1))
            rows[view].append(there_of[view])
            release(scores[view])
        found["equal average"].append(metrics.equal_average(alone, there_of).argmax(axis=1))
    everything = np.ones(len(index), dtype=bool)
    return {
        name: Rival(np.concatenate(parts), np.concatenate(rows[name]) if name in rows else everything)
        for name, parts in found.items()
    }
