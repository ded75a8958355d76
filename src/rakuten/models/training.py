"""Training of the classifier: each view, out of fold and on all rows; then the fusion of the out-of-fold scores."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from rakuten.cli import progress
from rakuten.compute import parallel_map
from rakuten.config import Params
from rakuten.disk_array import MAPPED_ROWS, Array2D, DiskArray, missing_rows
from rakuten.errors import UserError
from rakuten.evaluation import calibration, folds
from rakuten.evaluation.novelty_flag import is_novel
from rakuten.evaluation.out_of_fold import OutOfFold
from rakuten.features.encoders.finetuned import NetworkFolder
from rakuten.features.feature_set import FeatureBatch, FeatureSet
from rakuten.features.ngrams import NgramBlock, NgramVectorizer
from rakuten.models import fusion, text_model
from rakuten.models.classifier import ModelConfig, ProductClassifier, evidence
from rakuten.models.fusion_selection import CrossFitter, TrainingRows, select_fusion
from rakuten.models.linear import LinearModel, Moments, fit_lda
from rakuten.models.neighbours import fit_neighbours
from rakuten.models.none_class import fit_none_class
from rakuten.models.novelty import cross_fit_novelty, fit_novelty
from rakuten.models.text_model import ShardFolder
from rakuten.types import IMAGE, NGRAMS, TEXT, BoolArray, IntArray

log = logging.getLogger(__name__)

MIN_VIEW_ROWS = 20  # products that must have a view; with fewer, no model of it is trained


class ViewModel(NamedTuple):
    """The model of one view."""

    scores: Array2D  # out of fold, rows x classes; a row of NaN where a product lacks the view
    linear: LinearModel  # trained on all rows


def fit(
    features: FeatureSet,
    params: Params,
    encoder_fingerprints: Mapping[str, str],
    scratch: Path,
    networks: Mapping[str, NetworkFolder] | None = None,
    none: FeatureBatch | None = None,
) -> tuple[ProductClassifier, OutOfFold]:
    """Train the classifier on the train features.

    What comes after the views (fusion, threshold) is learnt from their out-of-fold scores.

    Args:
        encoder_fingerprints: for each view that has an encoder, the fingerprint of the encoder.
        scratch: an empty folder that every worker can read and write. The out-of-fold probabilities stay in it.
        networks: the fine-tuned network of each fine-tuned view of the features.
        none: products that people said none of the codes fits, if there are any.

    Returns:
        The classifier, and its out-of-fold predictions.
    """
    rows = training_rows(features, params)
    vectorizer, ngrams = fit_ngrams(features, rows, params, scratch)
    views = {NGRAMS: ngrams} if ngrams else {}
    neighbours, none_class = None, None
    with threadpool_limits(1):  # sums of floats depend on how many threads share them
        for view in (TEXT, IMAGE):
            embeddings = features.embeddings(view)
            if embeddings is None or (present := ~missing_rows(embeddings)).sum() < MIN_VIEW_ROWS:
                continue
            log.info("discriminant analysis of the %s of %s products", view, f"{present.sum():,}")
            moments = moments_by_fold(embeddings, present, rows, view)
            views[view] = fit_embedding(embeddings, present, rows, moments, scratch / f"scores-{view}.npy")
            if view == TEXT and none is not None:
                none_class = fit_none_class(embeddings, present, rows.fold, moments, none)
            if view == IMAGE:
                total, with_image = Moments.total(moments), np.flatnonzero(present)
                neighbours = fit_neighbours(embeddings, with_image, total, features.metadata, params.seed)
        views |= {view: finetuned_view(scores, rows) for view, scores in features.finetuned.items()}
        scores = {view: model.scores for view, model in views.items()}
        context = fusion.gating_context(features.metadata)
        fitter = CrossFitter(scores, context, rows)
        proba = DiskArray.full(scratch / "proba.npy", (len(rows), len(rows.classes)), np.nan)
        fused, out_of_fold = select_fusion(fitter, proba)
        novelty = fit_novelty(out_of_fold.evidence, context, none_class)
        out_of_fold_novelty = cross_fit_novelty(out_of_fold.evidence, context, rows.fold, none_class)
    target, false_alarms = params.predict.target_precision, params.predict.novelty_false_alarms
    ordinary = ~is_novel(out_of_fold_novelty, false_alarms)  # the others are reviewed whatever their confidence
    config = ModelConfig(
        params.features,
        {view: encoder_fingerprints[view] for view in views if view in encoder_fingerprints},
        target,
        calibration.threshold_at_precision(out_of_fold.confidence[ordinary], out_of_fold.correct[ordinary], target),
        false_alarms,
    )
    linear = {view: views[view].linear for view in fused.views}
    used = {view: network for view, network in (networks or {}).items() if view in fused.views}
    classifier = ProductClassifier(vectorizer, linear, fused, config, neighbours, used)
    classifier.novelty = novelty
    out_of_fold = replace(out_of_fold, novelty=out_of_fold_novelty)
    if none is not None:
        none_evidence = evidence(*classifier.decision_function(none))
        none_scores = none_class.none_scores if none_class else None
        none_novelty = novelty.novelty(none_evidence, fusion.gating_context(none.table), none_scores)
        out_of_fold = replace(out_of_fold, none_novelty=none_novelty)
    return classifier, out_of_fold


def training_rows(features: FeatureSet, params: Params) -> TrainingRows:
    """The label and the fold of each train row; the folds share no near-duplicates.

    Raises:
        UserError: there are fewer distinct titles than folds.
    """
    codes = features.y()
    classes, y = np.unique(codes, return_inverse=True)
    fold = folds.assign_folds(features.metadata, codes, params.train.folds, params.seed)
    return TrainingRows(classes, y, fold, features.has_text(), params.seed)


def ngram_blocks(params: Params) -> list[NgramBlock]:
    """The n-gram blocks that params.yaml asks for."""
    return [NgramBlock.from_dict(block.model_dump()) for block in params.train.blocks]


def fit_ngrams(
    features: FeatureSet, rows: TrainingRows, params: Params, scratch: Path
) -> tuple[NgramVectorizer, ViewModel | None]:
    """The vectorizer, and the linear SVM on n-grams; None where fewer than two classes have text."""
    blocks, mask = ngram_blocks(params), rows.has_text
    if mask.sum() < MIN_VIEW_ROWS or len(np.unique(rows.y[mask])) < 2:
        return NgramVectorizer(blocks, [[] for _ in blocks], [np.array([]) for _ in blocks]), None
    folder = scratch / NGRAMS
    folder.mkdir(parents=True)
    shards = ShardFolder(
        folder=folder,
        n_shards=-(-len(rows) // params.train.shard_rows),
        n_folds=params.train.folds,
        blocks=tuple(blocks),
        classes=tuple(rows.classes.tolist()),
        svm_c=params.train.svm_c,
        seed=params.seed,
    )
    scores = DiskArray.full(scratch / f"scores-{NGRAMS}.npy", (len(rows), len(rows.classes)), np.nan)
    vectorizer, linear = text_model.fit_out_of_fold(features.table_chunks(), rows, shards, scores)
    return vectorizer, ViewModel(scores, linear)


def finetuned_view(scores: Array2D, rows: TrainingRows) -> ViewModel:
    """The view of a fine-tuned network, whose out-of-fold scores the finetune stage has computed: used as they are.

    Raises:
        UserError: the network has other classes than the products.
    """
    n_classes = len(rows.classes)
    if scores.shape[1] != n_classes:
        raise UserError(
            f"the fine-tuned network has {scores.shape[1]} classes, the train products {n_classes}; run `dvc repro`"
        )
    identity = np.eye(n_classes, dtype=np.float32, order="F")
    return ViewModel(scores, LinearModel(rows.classes, identity, np.zeros(n_classes, dtype=np.float32)))


def moments_by_fold(embeddings: Array2D, present: BoolArray, rows: TrainingRows, view: str) -> list[Moments]:
    """Moments of the embeddings of each fold's rows."""
    numbers = np.unique(rows.fold).tolist()
    tasks = [_fold_rows(number, present, rows) for number in numbers]
    task = partial(_fold_moments, embeddings, len(rows.classes))
    return list(progress(parallel_map(task, tasks, 1, _fold_label), len(tasks), f"moments of the {view} of each fold"))


class _FoldRows(NamedTuple):
    number: int
    rows: IntArray
    y: IntArray  # class column of each of these rows


def _fold_rows(number: int, present: BoolArray, rows: TrainingRows) -> _FoldRows:
    fold_rows = np.flatnonzero(present & (rows.fold == number))
    return _FoldRows(number, fold_rows, rows.y[fold_rows])


def _fold_moments(embeddings: Array2D, n_classes: int, fold: _FoldRows) -> Moments:
    return Moments.from_rows(embeddings, fold.rows, fold.y, n_classes)


def _fold_label(fold: _FoldRows) -> str:
    return f"the embeddings of fold {fold.number}"


def fit_embedding(
    embeddings: Array2D, present: BoolArray, rows: TrainingRows, moments: Sequence[Moments], scores_path: Path
) -> ViewModel:
    """Discriminant analysis. The model that scores a fold is fitted to the moments of all rows minus those of the fold.

    Args:
        embeddings: rows x width.
        present: the rows that have an embedding.
        moments: of each fold, in order.
        scores_path: where the out-of-fold scores are written.
    """
    total = Moments.total(moments)
    scores = DiskArray.full(scores_path, (len(rows), len(rows.classes)), np.nan)
    for number, fold_moments in zip(np.unique(rows.fold), moments, strict=True):
        fold_rows = np.flatnonzero(present & (rows.fold == number))
        model = fit_lda(total - fold_moments, rows.classes)
        for chunk in np.array_split(fold_rows, len(fold_rows) // MAPPED_ROWS + 1):
            scores[chunk] = model.decision_function(np.asarray(embeddings[chunk], dtype=np.float32))
    return ViewModel(scores, fit_lda(total, rows.classes))
