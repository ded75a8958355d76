"""The self-check of a model: made-up products, which it must answer as it did when it was trained.

It also loads the encoders, before the first request needs them.
"""

from collections.abc import Mapping, Sequence
from io import BytesIO

import numpy as np
from PIL import Image

from rakuten.errors import UserError
from rakuten.features.encoders.preprocessing import IMAGE_USED, NO_IMAGE
from rakuten.models.classifier import ProductClassifier
from rakuten.models.pyfunc_model import PyfuncModel
from rakuten.types import FloatArray

TEXTS = [
    ("Piscine gonflable ronde", "<p>Avec pompe de filtration</p>"),
    ("Roman policier - édition de poche", ""),
    ("Jeu vidéo pour console", "Neuf, sous blister"),
    ("Coussin décoratif 45 x 45 cm", ""),
    ("Wooden toy train for children", "<ul><li>from 3 years</li></ul>"),
    ("Figurine à peindre", ""),
    ("", ""),
    ("", ""),
]
WITH_IMAGE = (1, 3, 6)  # the products that have an image: noise, of another seed each
N_ANSWERS = 3  # codes whose probabilities are kept of each product
# Another processor rounds differently; a network in int8 most of all. Coefficients that were changed show by far more.
TOLERANCE = 0.02
MAX_SUM_ERROR = 1e-5

Answer = Mapping[int, float]  # prdtypecode -> probability


def self_check_answers(model: PyfuncModel) -> list[Answer]:
    """The most probable codes of the made-up products, for the model's manifest."""
    proba = _predict(model)
    order = np.argsort(-proba, axis=1, kind="stable")[:, :N_ANSWERS]
    classes = model.classifier.classes
    return [
        {int(classes[column]): round(float(row[column]), 6) for column in columns}
        for row, columns in zip(proba, order, strict=True)
    ]


def self_check(model: PyfuncModel) -> None:
    """Check a loaded model on the made-up products.

    Raises:
        UserError: the prediction fails, gives what are no probabilities, or others than when the model was trained.
    """
    try:
        proba = _predict(model)
    except Exception as error:
        raise UserError(f"the model fails its self-check: {type(error).__name__}: {error}") from error
    is_proba = np.isfinite(proba).all() and (proba >= 0).all()
    if not (is_proba and (np.abs(proba.sum(axis=1) - 1) <= MAX_SUM_ERROR).all()):
        raise UserError("the model fails its self-check: its confidences are not probabilities")
    _compare(proba, model.classifier)


def _predict(model: PyfuncModel) -> FloatArray:
    """Probabilities of the made-up products, rows x classes."""
    images = [_noise(row) if row in WITH_IMAGE else None for row in range(len(TEXTS))]
    batch, states = model.featurise_many(TEXTS, images)
    if states != [IMAGE_USED if image else NO_IMAGE for image in images]:
        raise ValueError(f"its images are {states}")
    return model.classifier.predict_proba(batch)


def _noise(seed: int) -> bytes:
    """An image file. PNG, whose pixels are the same with every library that reads it."""
    pixels = np.random.default_rng(seed).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def _compare(proba: FloatArray, classifier: ProductClassifier) -> None:
    """Raise UserError unless the probabilities are those that the manifest has; a model of before has none."""
    answers: Sequence[Answer] = classifier.self_check_answers
    column = {int(code): number for number, code in enumerate(classifier.classes)}
    if answers and len(answers) != len(TEXTS):
        raise UserError("the model fails its self-check: its manifest has predictions for other products")
    for row, answer in zip(proba, answers, strict=False):
        for code, expected in answer.items():
            found = row[column[code]] if code in column else np.nan
            if not abs(found - expected) <= TOLERANCE:
                raise UserError(
                    f"the model fails its self-check: it gives {found:.3f} for code {code} of a product, but "
                    f"gave {expected:.3f} when it was trained; it was altered, or its encoders work differently here"
                )
