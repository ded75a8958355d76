"""ProductClassifier: the one model that training, prediction and serving share.

Three views of a product score every class: the words of its texts, the meaning of its texts (an
embedding) and its picture (an embedding). A fusion weighs them into calibrated probabilities.

Its files hold numbers and words, never code: arrays by safetensors, the vocabulary as JSON,
and a manifest with the digest of both, so that a damaged file is noticed and never half believed.
"""

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from rakuten.config import FeatureParams
from rakuten.data.tables import label
from rakuten.errors import UserError
from rakuten.evaluation.metrics import Floats, Ints
from rakuten.features.ngrams import Block, NgramVectorizer
from rakuten.files import digest, dump_json, writing
from rakuten.models import fusion
from rakuten.models.fusion import Fusion
from rakuten.models.linear import Linear, Numbers
from rakuten.models.neighbours import Neighbours

FORMAT = 2
MODEL, VECTORIZER, MANIFEST = "model.safetensors", "vectorizer.json", "manifest.json"
WORDS, MEANING, PICTURE = "words", "meaning", "picture"  # the views
CHOICES = ("predicted", "second", "third")
BATCH = 10_000  # rows scored at a time
RETRY = "run `dvc repro` (or `dvc checkout`) to have it again"


class Products(NamedTuple):
    """Products as the features stage describes them; row i of each belongs to product i."""

    table: pd.DataFrame
    texts: Numbers | None = None  # embeddings; a row of NaN where there is no text; None without an encoder
    pictures: Numbers | None = None  # likewise

    def part(self, rows: slice) -> "Products":
        texts, pictures = (None if each is None else each[rows] for each in (self.texts, self.pictures))
        return Products(self.table[rows], texts, pictures)

    def has_text(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        table = self.table
        there: np.ndarray[Any, np.dtype[np.bool_]] = (
            (table["designation_clean"] != "") | (table["description_clean"] != "")
        ).to_numpy()
        return there

    def embeddings(self, view: str) -> Numbers | None:
        return self.texts if view == MEANING else self.pictures


class Settings(NamedTuple):
    """What the model needs besides numbers: how its input was made, and when it is sure enough."""

    features: FeatureParams
    encoders: Mapping[str, str]  # view -> identity of the encoder behind its embeddings
    target_precision: float
    threshold: float  # confidence from which a prediction needs no review


class Ranked(NamedTuple):
    """The likeliest codes of products, the likeliest first."""

    codes: Ints  # products x codes
    confidence: Floats  # products x codes, to six digits
    needs_review: np.ndarray[Any, np.dtype[np.bool_]]  # products


class ProductClassifier:
    """Products in (cleaned), codes and calibrated confidences out."""

    def __init__(
        self,
        vectorizer: NgramVectorizer,
        linear: Mapping[str, Linear],
        fused: Fusion,
        settings: Settings,
        neighbours: Neighbours | None = None,
    ) -> None:
        self.vectorizer = vectorizer
        self.linear = dict(linear)
        self.fusion = fused
        self.settings = settings
        self.neighbours = neighbours

    @property
    def classes(self) -> Ints:
        return self.fusion.classes

    @property
    def features(self) -> FeatureParams:
        return self.settings.features

    def scores(self, products: Products) -> dict[str, Floats]:
        """Scores of every class by each view of the model; a row of NaN where a product lacks the view."""
        found = {}
        for view, linear in self.linear.items():
            if view == WORDS:
                there, features = products.has_text(), None
            else:
                features = products.embeddings(view)
                there = np.zeros(len(products.table), bool) if features is None else ~np.isnan(features[:, 0])
            rows = np.full((len(there), len(self.classes)), np.nan)
            if there.any():
                seen = self.vectorizer.transform(products.table[there]) if features is None else features[there]
                rows[there] = linear.decision(seen)
            found[view] = rows
        return found

    def predict_proba(self, products: Products) -> Floats:
        """Rows x classes, in the order of `classes`."""
        parts = [
            self.fusion.predict_proba(self.scores(part), fusion.context(part.table))
            for part in (products.part(slice(at, at + BATCH)) for at in range(0, len(products.table), BATCH))
        ]
        return np.vstack(parts) if parts else np.empty((0, len(self.classes)))

    def rank(self, products: Products, count: int) -> Ranked:
        """The likeliest codes of each row, `count` of them or all that there are."""
        # Rounded first, so that ties and bytes do not hang on a platform's last bit.
        likely = self.predict_proba(products).round(6)
        order = np.argsort(-likely, axis=1, kind="stable")[:, :count]
        confidence = np.take_along_axis(likely, order, 1)
        return Ranked(self.classes[order], confidence, confidence[:, 0] < self.settings.threshold)

    def predict(self, products: Products) -> pd.DataFrame:
        """The three likeliest codes of each row, and whether a person should look.

        Returns:
            predicted_prdtypecode, label, confidence, second_prdtypecode, second_confidence,
            third_prdtypecode, third_confidence, needs_review; the third stays empty where
            the model knows two codes. Rows and index are the table's.
        """
        index = products.table.index
        ranked = self.rank(products, len(CHOICES))
        columns: dict[str, Any] = {}
        for place, name in enumerate(CHOICES):
            known = place < ranked.codes.shape[1]
            code = pd.Series(ranked.codes[:, place], index) if known else pd.Series(pd.NA, index)
            columns[f"{name}_prdtypecode"] = code.astype("Int64")
            if place == 0:
                columns["label"] = [label(int(value)) for value in code]
            columns["confidence" if place == 0 else f"{name}_confidence"] = (
                ranked.confidence[:, place] if known else np.nan
            )
        columns["needs_review"] = ranked.needs_review
        return pd.DataFrame(columns, index=index)

    def save(self, folder: Path) -> None:
        """Write the model's three files; the same model gives the same bytes."""
        arrays: dict[str, NDArray[Any]] = {f"fusion.{name}": value for name, value in self.fusion.arrays().items()}
        for view, linear in self.linear.items():
            arrays |= {f"{view}.coef": linear.coef, f"{view}.intercept": linear.intercept}
        arrays |= {f"idf.{at}": values for at, values in enumerate(self.vectorizer.idf)}
        if self.neighbours is not None:
            arrays |= {f"neighbours.{name}": value for name, value in self.neighbours._asdict().items()}
        words = [
            {**block._asdict(), "terms": terms}
            for block, terms in zip(self.vectorizer.blocks, self.vectorizer.terms, strict=True)
        ]
        targets = [folder / name for name in (MODEL, VECTORIZER, MANIFEST)]
        with writing(*targets) as (model, vectorizer, manifest):
            model.write_bytes(save({name: np.ascontiguousarray(array) for name, array in arrays.items()}))
            vectorizer.write_text(json.dumps(words, ensure_ascii=False) + "\n", encoding="utf-8", newline="\n")
            dump_json(
                {
                    "format": FORMAT,
                    "features": self.features.model_dump(),
                    "views": list(self.linear),
                    "encoders": dict(self.settings.encoders),
                    "target_precision": self.settings.target_precision,
                    "threshold": self.settings.threshold,
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
            settings = Settings(
                FeatureParams.model_validate(manifest["features"]),
                dict(manifest["encoders"]),
                float(manifest["target_precision"]),
                float(manifest["threshold"]),
            )
            fused = Fusion.of(tuple(manifest["views"]), _part(arrays, "fusion"))
            parts = {view: _part(arrays, view) for view in fused.views}
            linear = {
                view: Linear(fused.classes, np.asfortranarray(part["coef"]), part["intercept"])
                for view, part in parts.items()
            }
            near = _part(arrays, "neighbours")
            neighbours = Neighbours(**near) if near else None
            return cls(NgramVectorizer(blocks, terms, idf), linear, fused, settings, neighbours)
        except FileNotFoundError as error:
            raise UserError(f"{error.filename}: no such file, so there is no model; {RETRY}") from error
        except (ValueError, KeyError, TypeError, AttributeError, SafetensorError, ValidationError) as error:
            raise UserError(f"{folder}: not a readable model ({type(error).__name__}: {error}); {RETRY}") from error


@lru_cache(maxsize=1)
def load_once(folder: Path, version: str) -> ProductClassifier:
    """The model in a folder, read once in each process.

    Args:
        version: how the digest of its manifest begins.

    Raises:
        UserError: there is none, or it is another.
    """
    classifier = ProductClassifier.load(folder)
    if not digest(folder / MANIFEST).startswith(version):
        raise UserError(f"{folder}: another model than when the work began; start again")
    return classifier


def _part(arrays: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {name.removeprefix(f"{prefix}."): value for name, value in arrays.items() if name.startswith(f"{prefix}.")}
