"""Models that were altered and whose digests were made to fit."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save

from rakuten.errors import UserError
from rakuten.files import digest
from rakuten.models.classifier import MANIFEST_FILE, MODEL_FILE, VECTORIZER_FILE, ProductClassifier
from rakuten.types import IMAGE, NGRAMS

Arrays = dict[str, np.ndarray]
NAN = float("nan")


def sign_anew(folder: Path, **values: Any) -> None:
    """Change values of a manifest, and make its digests fit the files."""
    path = folder / MANIFEST_FILE
    manifest = json.loads(path.read_text(encoding="utf-8")) | values
    manifest["sha256"] = {name: digest(folder / name) for name in (MODEL_FILE, VECTORIZER_FILE)}
    path.write_text(json.dumps(manifest), encoding="utf-8")


def check_refused(folder: Path, fault: str) -> None:
    with pytest.raises(UserError, match=f"not a valid model .*{fault}"):
        ProductClassifier.load(folder)


@pytest.mark.parametrize("threshold", [NAN, -0.1, 1.2, float("inf")])
def test_a_threshold_out_of_range(classifier: ProductClassifier, tmp_path: Path, threshold: float) -> None:
    classifier.save(tmp_path)
    sign_anew(tmp_path, threshold=threshold)
    check_refused(tmp_path, "the threshold is out of range")


@pytest.mark.parametrize("false_alarms", [NAN, -0.1, 1.2])
def test_a_share_of_false_alarms_out_of_range(
    classifier: ProductClassifier, tmp_path: Path, false_alarms: float
) -> None:
    classifier.save(tmp_path)
    sign_anew(tmp_path, novelty_false_alarms=false_alarms)
    check_refused(tmp_path, "novelty_false_alarms is out of range")


@pytest.mark.parametrize("precision", [NAN, 0.0, 1.01])
def test_a_precision_out_of_range(classifier: ProductClassifier, tmp_path: Path, precision: float) -> None:
    classifier.save(tmp_path)
    sign_anew(tmp_path, target_precision=precision)
    check_refused(tmp_path, "target_precision is out of range")


def set_all(name: str, value: float) -> Callable[[Arrays], None]:
    return lambda arrays: arrays[name].__setitem__(..., value)


def set_one(name: str, value: float) -> Callable[[Arrays], None]:
    return lambda arrays: arrays[name].reshape(-1).__setitem__(-1, value)


def cut(name: str) -> Callable[[Arrays], None]:
    return lambda arrays: arrays.__setitem__(name, arrays[name][..., :-1].copy())


@pytest.mark.parametrize(
    ("alter", "fault"),
    [
        (set_one(f"{NGRAMS}.coef", NAN), "coefficients are not finite"),
        (set_one(f"{IMAGE}.intercept", NAN), "coefficients are not finite"),
        (set_all(f"{NGRAMS}.coef", 0), "all coefficients of a view are 0"),
        (cut(f"{NGRAMS}.coef"), "coefficients do not match the terms"),
        (cut(f"{IMAGE}.intercept"), "coefficients do not match the classes"),
        (set_one("fusion.bias", NAN), "the fusion has numbers that are not finite"),
        (cut("fusion.trust"), "the fusion's arrays have the wrong shapes"),
        (set_one("fusion.temperature", 0), "a temperature is not above 0"),
        (set_all("fusion.classes", 10), "classes are not ascending"),
        (set_one("idf.0", NAN), "idf or a weight is not finite and above 0"),
        (set_one("idf.0", -1), "idf or a weight is not finite and above 0"),
        (cut("idf.0"), "idf does not match the terms"),
        (set_one("neighbours.vectors", NAN), "the similar images are not finite"),
        (set_one("novelty.reference", NAN), "the novelty has numbers that are not finite"),
        (set_one("novelty.reference", -1e9), "a reference of the novelty is not ascending"),
        (set_one("novelty.min_scale", 0), "the novelty's least deviation is not above 0"),
        (cut("novelty.location"), "the novelty's arrays have the wrong shapes"),
    ],
)
def test_arrays_that_make_no_sense(
    classifier: ProductClassifier, tmp_path: Path, alter: Callable[[Arrays], None], fault: str
) -> None:
    classifier.save(tmp_path)
    arrays = {name: array.copy() for name, array in load_file(tmp_path / MODEL_FILE).items()}
    alter(arrays)
    (tmp_path / MODEL_FILE).write_bytes(save(arrays))
    sign_anew(tmp_path)
    check_refused(tmp_path, fault)


@pytest.mark.parametrize(
    ("alter", "fault"),
    [
        (lambda block: block["terms"].__setitem__(0, block["terms"][1]), "a term occurs twice"),
        (lambda block: block["terms"].pop(), "coefficients do not match the terms"),
        (lambda block: block.update(weight=NAN), "idf or a weight is not finite and above 0"),
    ],
)
def test_a_vocabulary_that_makes_no_sense(
    classifier: ProductClassifier, tmp_path: Path, alter: Callable[[dict[str, Any]], object], fault: str
) -> None:
    classifier.save(tmp_path)
    path = tmp_path / VECTORIZER_FILE
    blocks = json.loads(path.read_text(encoding="utf-8"))
    alter(blocks[0])
    path.write_text(json.dumps(blocks), encoding="utf-8")
    sign_anew(tmp_path)
    check_refused(tmp_path, fault)


def test_a_model_that_is_only_signed_anew_is_sound(classifier: ProductClassifier, tmp_path: Path) -> None:
    classifier.save(tmp_path)
    sign_anew(tmp_path, threshold=0.5)
    assert ProductClassifier.load(tmp_path).config.threshold == 0.5
