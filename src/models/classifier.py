"""ProductClassifier: the one model that training, prediction and serving share.

Its files hold numbers and words, never code: arrays by safetensors, the vocabulary as JSON,
and a manifest with the digest of both, so that a damaged file is noticed and never half believed.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load_file, save
from scipy.sparse import csr_matrix
from sklearn.svm import LinearSVC

from src.config import FeatureParams
from src.data.catalog import label
from src.errors import UserError
from src.features.ngrams import Block, NgramVectorizer
from src.files import digest, dump_json, writing
from src.models.evaluation import Floats, Ints, probabilities

FORMAT = 1
MODEL, VECTORIZER, MANIFEST = "model.safetensors", "vectorizer.json", "manifest.json"
CHOICES = ("predicted", "second", "third")
BATCH = 10_000  # rows scored at a time


class Linear(NamedTuple):
    """Scores are `features @ coef.T + intercept`; coef is classes x features, float32."""

    classes: Ints
    coef: np.ndarray[Any, np.dtype[np.float32]]
    intercept: np.ndarray[Any, np.dtype[np.float32]]

    def decision(self, matrix: csr_matrix) -> Floats:
        scores: Floats = np.asarray(matrix @ self.coef.T, dtype=np.float64) + self.intercept
        return scores


def fit_linear(matrix: csr_matrix, codes: Ints, svm_c: float, seed: int) -> Linear:
    """One linear SVM per class against the rest, classes weighted by the inverse of their size."""
    svm = LinearSVC(C=svm_c, class_weight="balanced", random_state=seed).fit(matrix, codes)
    coef, intercept = svm.coef_, svm.intercept_
    if len(svm.classes_) == 2:  # sklearn keeps one row for two classes
        coef, intercept = np.vstack([-coef, coef]), np.concatenate([-intercept, intercept])
    return Linear(svm.classes_.astype(np.int64), coef.astype(np.float32), intercept.astype(np.float32))


class ProductClassifier:
    """Products in (cleaned), codes and calibrated confidences out."""

    def __init__(
        self,
        vectorizer: NgramVectorizer,
        linear: Linear,
        temperature: float,
        features: FeatureParams,
        min_confidence: float,
    ) -> None:
        self.vectorizer = vectorizer
        self.linear = linear
        self.temperature = temperature
        self.features = features
        self.min_confidence = min_confidence

    @property
    def classes(self) -> Ints:
        return self.linear.classes

    def predict_proba(self, table: pd.DataFrame) -> Floats:
        """Rows x classes (in the order of `classes`) for the columns that the blocks read."""
        parts = [
            probabilities(self.linear.decision(self.vectorizer.transform(table[at : at + BATCH])), self.temperature)
            for at in range(0, len(table), BATCH)
        ]
        return np.vstack(parts) if parts else np.empty((0, len(self.classes)))

    def predict(self, table: pd.DataFrame) -> pd.DataFrame:
        """The three likeliest codes of each row, and whether a person should look.

        Returns:
            predicted_prdtypecode, label, confidence, second_prdtypecode, second_confidence,
            third_prdtypecode, third_confidence, needs_review; the third stays empty where
            the model knows two codes. Rows and index are the table's.
        """
        likely = self.predict_proba(table)
        # Rounded first, so that ties and bytes do not hang on a platform's last bit.
        likely = likely.round(6)
        order = np.argsort(-likely, axis=1, kind="stable")[:, : len(CHOICES)]
        columns: dict[str, Any] = {}
        for rank, name in enumerate(CHOICES):
            known = rank < order.shape[1]
            code = pd.Series(self.classes[order[:, rank]], table.index) if known else pd.Series(pd.NA, table.index)
            columns[f"{name}_prdtypecode"] = code.astype("Int64")
            if rank == 0:
                columns["label"] = [label(int(value)) for value in code]
            confidence = np.take_along_axis(likely, order[:, [rank]], 1)[:, 0] if known else np.nan
            columns["confidence" if rank == 0 else f"{name}_confidence"] = confidence
        columns["needs_review"] = columns["confidence"] < self.min_confidence
        return pd.DataFrame(columns, index=table.index)

    def save(self, folder: Path) -> None:
        """Write the model's three files; the same model gives the same bytes."""
        arrays = {
            "classes": self.linear.classes,
            "coef": np.ascontiguousarray(self.linear.coef),
            "intercept": self.linear.intercept,
            "temperature": np.array([self.temperature]),
            **{f"idf.{at}": values for at, values in enumerate(self.vectorizer.idf)},
        }
        words = [
            {**block._asdict(), "terms": terms}
            for block, terms in zip(self.vectorizer.blocks, self.vectorizer.terms, strict=True)
        ]
        targets = [folder / name for name in (MODEL, VECTORIZER, MANIFEST)]
        with writing(*targets) as (model, vectorizer, manifest):
            model.write_bytes(save(arrays))
            vectorizer.write_text(json.dumps(words, ensure_ascii=False) + "\n", encoding="utf-8", newline="\n")
            dump_json(
                {
                    "format": FORMAT,
                    "features": self.features.model_dump(),
                    "min_confidence": self.min_confidence,
                    "sha256": {MODEL: digest(model), VECTORIZER: digest(vectorizer)},
                },
                manifest,
            )

    @classmethod
    def load(cls, folder: Path) -> "ProductClassifier":
        """Read what `save` wrote.

        Raises:
            UserError: a file is missing, damaged, or of another format.
        """
        try:
            manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
            if manifest["format"] != FORMAT:
                raise UserError(f"{folder}: model format {manifest['format']}, this code reads {FORMAT}; retrain it")
            for name in (MODEL, VECTORIZER):
                if digest(folder / name) != manifest["sha256"].get(name):
                    raise UserError(f"{folder / name}: damaged or from another model; {RETRY}")
            arrays = load_file(folder / MODEL)
            words = json.loads((folder / VECTORIZER).read_text(encoding="utf-8"))
            terms = [entry.pop("terms") for entry in words]
            blocks = [Block.of(entry) for entry in words]
            idf = [arrays[f"idf.{at}"] for at in range(len(blocks))]
            return cls(
                NgramVectorizer(blocks, terms, idf),
                Linear(arrays["classes"], arrays["coef"], arrays["intercept"]),
                float(arrays["temperature"][0]),
                FeatureParams.model_validate(manifest["features"]),
                float(manifest["min_confidence"]),
            )
        except FileNotFoundError as error:
            raise UserError(f"{error.filename}: no such file, so there is no model; {RETRY}") from error
        except (ValueError, KeyError, TypeError, AttributeError, SafetensorError, ValidationError) as error:
            raise UserError(f"{folder}: not a readable model ({type(error).__name__}: {error}); {RETRY}") from error


RETRY = "run `dvc repro` (or `dvc checkout`) to have it again"


def align(decision: Floats, classes: Ints, known: Ints) -> Floats:
    """Scores over all of `classes` from scores over the `known` ones; the rest score below every known."""
    aligned = np.full((len(decision), len(classes)), decision.min(initial=0.0) - 1.0)
    aligned[:, np.searchsorted(classes, known)] = decision
    return aligned
