"""What a model must answer before it is served."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from rakuten.errors import UserError
from rakuten.files import digest
from rakuten.models.classifier import MANIFEST_FILE, MODEL_FILE, ProductClassifier
from rakuten.models.pyfunc_model import PyfuncModel
from rakuten.models.self_check import TEXTS, TOLERANCE, WITH_IMAGE, self_check, self_check_answers
from rakuten.types import NGRAMS, FloatArray


class FakeModel:
    """Answers with the probabilities that it is given."""

    def __init__(self, proba: FloatArray | None = None, states: list[str] | None = None) -> None:
        self._states = states or ["used" if row in WITH_IMAGE else "none" for row in range(len(TEXTS))]
        proba = np.tile([0.5, 0.3, 0.15, 0.05], (len(TEXTS), 1)) if proba is None else proba
        classes = np.array([10, 40, 50, 60])
        self.classifier = SimpleNamespace(classes=classes, predict_proba=lambda _: proba, self_check_answers=())

    def featurise_many(self, texts: list[tuple[str, str]], images: list[bytes | None]) -> tuple[Any, list[str]]:
        assert [row for row, image in enumerate(images) if image] == list(WITH_IMAGE)
        return texts, self._states


def proba_of(*row: float) -> FloatArray:
    return np.tile(row, (len(TEXTS), 1))


def test_a_sound_model_passes() -> None:
    model: Any = FakeModel()
    self_check(model)
    model.classifier.self_check_answers = self_check_answers(model)
    assert model.classifier.self_check_answers == [{10: 0.5, 40: 0.3, 50: 0.15}] * len(TEXTS)
    self_check(model)


@pytest.mark.parametrize(
    "model",
    [
        FakeModel(proba_of(np.nan, 0.5, 0.3, 0.2)),
        FakeModel(proba_of(0.5, 0.5, 0.5, 0.5)),
        FakeModel(proba_of(0.9, 0.2, -0.1, 0.0)),
        FakeModel(states=["not an image"] * len(TEXTS)),
        None,
    ],
)
def test_a_model_with_an_impossible_answer_fails(model: Any) -> None:
    with pytest.raises(UserError, match="fails its self-check"):
        self_check(model)


@pytest.mark.parametrize(
    ("answer", "passes"),
    [
        ({10: 0.5 + 0.9 * TOLERANCE, 40: 0.3}, True),  # another processor
        ({40: 0.3, 10: 0.5}, True),
        ({10: 0.5 + 1.1 * TOLERANCE, 40: 0.3}, False),
        ({10: 0.5, 7: 0.3}, False),  # a code that the model does not have
        ({10: float("nan")}, False),
    ],
)
def test_answers_are_compared_with_those_of_training(answer: dict[int, float], passes: bool) -> None:
    model: Any = FakeModel()
    model.classifier.self_check_answers = [answer] * len(TEXTS)
    if passes:
        self_check(model)
    else:
        with pytest.raises(UserError, match="when it was trained"):
            self_check(model)


def test_answers_to_other_products_fail() -> None:
    model: Any = FakeModel()
    model.classifier.self_check_answers = [{10: 0.5}]
    with pytest.raises(UserError, match="predictions for other products"):
        self_check(model)


def altered(model: Path, change: Callable[[dict[str, Any], dict[str, Any]], None]) -> PyfuncModel:
    """A model whose arrays and manifest are changed, and whose digests are made to fit."""
    arrays, manifest = load_file(model / MODEL_FILE), json.loads((model / MANIFEST_FILE).read_text())
    change(arrays, manifest)
    save_file(arrays, model / MODEL_FILE)
    manifest["sha256"][MODEL_FILE] = digest(model / MODEL_FILE)
    (model / MANIFEST_FILE).write_text(json.dumps(manifest))
    return PyfuncModel(ProductClassifier.load(model))


@pytest.fixture
def copy(trained: Path, tmp_path: Path) -> Path:
    """A copy of the trained model."""
    (tmp_path / "model").mkdir()
    for path in (trained / "models").glob("[mv]*.*"):
        shutil.copy(path, tmp_path / "model")
    return tmp_path / "model"


def test_training_stores_answers_and_an_altered_model_does_not_give_them(copy: Path) -> None:
    self_check(altered(copy, lambda arrays, manifest: None))

    def swap_classes(arrays: dict[str, Any], manifest: dict[str, Any]) -> None:
        for name in (f"{NGRAMS}.coef", f"{NGRAMS}.intercept"):
            arrays[name] = np.ascontiguousarray(arrays[name][::-1])

    with pytest.raises(UserError, match="it was altered"):
        self_check(altered(copy, swap_classes))


def test_a_model_that_was_saved_without_answers_still_loads(copy: Path) -> None:
    self_check(altered(copy, lambda arrays, manifest: manifest.pop("self_check") and None))
