"""What is wrong with a model's numbers. One whose digests fit may still have been altered and signed anew."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rakuten.evaluation.calibration import NO_THRESHOLD
from rakuten.features.ngrams import NgramVectorizer
from rakuten.models.fusion import CONTEXT, N_TERMS, Fusion
from rakuten.models.linear import LinearModel
from rakuten.models.neighbours import ImageNeighbours
from rakuten.models.novelty import Novelty
from rakuten.types import NGRAMS


def model_faults(
    vectorizer: NgramVectorizer,
    linear: Mapping[str, LinearModel],
    fusion: Fusion,
    neighbours: ImageNeighbours | None,
    threshold: float,
    target_precision: float,
) -> list[str]:
    """The faults of a model's parts, in words; none in a sound one. Arguments as of `ProductClassifier`.

    Comparisons with a number that is not one are false, so a threshold or a score of NaN would decide every product
    automatically.
    """
    n_terms = [len(terms) for terms in vectorizer.terms]
    idf_and_weights = [*vectorizer.idf, np.array([block.weight for block in vectorizer.blocks])]
    is_sound = {
        "classes are not ascending": len(fusion.classes) > 1 and (np.diff(fusion.classes) > 0).all(),
        "a view occurs twice": len(set(fusion.views)) == len(fusion.views) > 0,
        "the fusion's arrays have the wrong shapes": _fusion_fits(fusion),
        "the fusion has numbers that are not finite": all(_is_finite(value) for value in _fusion_arrays(fusion)),
        "a temperature is not above 0": (fusion.temperature > 0).all(),
        "coefficients do not match the classes": all(
            _fits_classes(model, len(fusion.classes)) for model in linear.values()
        ),
        "coefficients do not match the terms": NGRAMS not in linear or linear[NGRAMS].coef.shape[1:] == (sum(n_terms),),
        "coefficients are not finite": all(_is_finite(model.coef, model.intercept) for model in linear.values()),
        "all coefficients of a view are 0": all(model.coef.any() for model in linear.values()),
        "idf does not match the terms": [idf.shape for idf in vectorizer.idf] == [(size,) for size in n_terms],
        "idf or a weight is not finite and above 0": _is_finite(*idf_and_weights)
        and all((values > 0).all() for values in idf_and_weights),
        "a term occurs twice": all(len(set(terms)) == len(terms) for terms in vectorizer.terms),
        "the similar images are not finite": neighbours is None or _is_finite(*neighbours),
        "the threshold is out of range": 0 <= threshold <= NO_THRESHOLD,
        "target_precision is out of range": 0 < target_precision <= 1,
    }
    return [fault for fault, sound in is_sound.items() if not sound]


def novelty_faults(novelty: Novelty | None, false_alarms: float, text_width: int) -> list[str]:
    """Likewise of the novelty; one of NaN would never be flagged.

    Args:
        text_width: of the model's text embeddings; 0 without.
    """
    if novelty is None:
        return []
    shapes = tuple(array.shape for array in (novelty.location, novelty.scale, novelty.min_scale))
    is_sound = {
        "the novelty's arrays have the wrong shapes": shapes == ((len(CONTEXT),), (len(CONTEXT),), (1,)),
        "the class of no code does not match the embeddings": novelty.none_coef.shape in ((0,), (text_width,))
        and novelty.none_intercept.shape == (1,)
        and (len(novelty.none_coef) > 0) == (len(novelty.joint_reference) > 0) == (len(novelty.none_reference) > 0),
        "the novelty has numbers that are not finite": _is_finite(*vars(novelty).values()),
        "the novelty's least deviation is not above 0": (novelty.min_scale > 0).all(),
        "a reference of the novelty is not ascending": all(
            reference.ndim == 1 and (np.diff(reference) >= 0).all()
            for reference in (novelty.reference, novelty.none_reference, novelty.joint_reference)
        ),
        "novelty_false_alarms is out of range": 0 <= false_alarms <= 1,
    }
    return [fault for fault, sound in is_sound.items() if not sound]


def _fusion_arrays(fusion: Fusion) -> tuple[NDArray[Any], ...]:
    return fusion.prior, fusion.bias, fusion.temperature, fusion.view_weights, fusion.class_offsets


def _fusion_fits(fusion: Fusion) -> bool:
    views, classes = (len(fusion.views),), (len(fusion.classes),)
    expected = classes, classes, views, (*views, N_TERMS, len(CONTEXT)), (*views, N_TERMS, *classes)
    return tuple(array.shape for array in _fusion_arrays(fusion)) == expected


def _fits_classes(model: LinearModel, n_classes: int) -> bool:
    return model.coef.ndim == 2 and len(model.coef) == n_classes and model.intercept.shape == (n_classes,)


def _is_finite(*arrays: NDArray[Any]) -> bool:
    return all(bool(np.isfinite(array).all()) for array in arrays)
