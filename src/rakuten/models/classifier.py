"""ProductClassifier: the one model that training, prediction and serving share.

The views of a product score every class: the n-grams of its texts, an embedding of its texts, an embedding of its
image, and a network that was fine-tuned on texts if there is one. A fusion combines them into calibrated probabilities.

The model's files hold data, never code: arrays in safetensors, the vocabulary as JSON, and a manifest with the digests
of both, so that a damaged file is noticed.
"""

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load_file, save
from scipy.special import softmax

from rakuten.config import FeatureParams
from rakuten.data.taxonomy import label_of
from rakuten.disk_array import missing_rows, row_chunks
from rakuten.errors import UserError
from rakuten.evaluation.novelty_flag import is_novel
from rakuten.features.encoders.finetuned import NETWORK_FOLDERS, NETWORKS_FOLDER, NetworkFolder
from rakuten.features.feature_set import FeatureBatch
from rakuten.features.ngrams import NgramBlock, NgramVectorizer
from rakuten.files import atomic_write, digest, dump_json
from rakuten.models.faults import model_faults, novelty_faults
from rakuten.models.fusion import Fusion, gating_context
from rakuten.models.linear import LinearModel
from rakuten.models.neighbours import ImageNeighbours
from rakuten.models.novelty import Novelty
from rakuten.models.parents import ParentFallback
from rakuten.types import NGRAMS, TEXT, BoolArray, FloatArray, IntArray

FORMAT = 2
MODEL_FILE, VECTORIZER_FILE, MANIFEST_FILE = "model.safetensors", "vectorizer.json", "manifest.json"
# Columns of a scored file: the likeliest codes, as many as the review desk offers on keys, and their confidences.
CHOICE_COLUMNS = (
    ("predicted_prdtypecode", "confidence"),
    *((f"{rank}_prdtypecode", f"{rank}_confidence") for rank in ("second", "third", "fourth", "fifth")),
)
CHUNK_ROWS = 10_000  # scored at a time
RETRY_HINT = "run `dvc repro` (or `dvc checkout`) to get it back"
# Names of arrays in the model file, where they differ from the names of the fields: the file's format is older.
STORED_FUSION = {"view_weights": "trust", "class_offsets": "own"}
STORED_NEIGHBOURS = {"components": "axes", "mean": "centre"}


class ModelConfig(NamedTuple):
    """What the model needs besides arrays: how its features are made, and the confidence that needs no review."""

    features: FeatureParams
    encoders: Mapping[str, str]  # for each view that has an encoder, the encoder's fingerprint
    target_precision: float
    threshold: float  # confidence from which a prediction needs no review, unless the product is novel
    novelty_false_alarms: float = 0.0  # share of ordinary products that may be flagged as novel


class TopK(NamedTuple):
    """The most probable codes of products, in descending order."""

    codes: IntArray  # products x k
    confidence: FloatArray  # products x k, to six digits
    needs_review: BoolArray  # products: the confidence is below the threshold, or the product is novel
    is_novel: BoolArray  # products: unlike all that the model was trained on
    novelty: FloatArray  # products: see `models.novelty`; NaN where it is not known
    parents: Sequence[str] = ()  # of each product the key of its parent; "" where the code is sure, or no parent is


class ProductClassifier:
    """The model: scores features of products, and gives codes with calibrated confidences."""

    def __init__(
        self,
        vectorizer: NgramVectorizer,
        linear: Mapping[str, LinearModel],
        fusion: Fusion,
        config: ModelConfig,
        neighbours: ImageNeighbours | None = None,
        networks: Mapping[str, NetworkFolder] | None = None,
    ) -> None:
        """
        Args:
            linear: the linear model of each view; that of a fine-tuned view takes its scores as they are.
            neighbours: the training images, for explanations; None in a model without the image view.
            networks: where the fine-tuned network of each view is that has one.
        """
        self.vectorizer = vectorizer
        self.linear = dict(linear)
        self.fusion = fusion
        self.config = config
        self.neighbours = neighbours
        self.networks = dict(networks or {})
        # Set by training; none in a model of before it was measured, for which no product is novel.
        self.novelty: Novelty | None = None
        # What `self_check` compares with, set by training; none in a model that was saved without.
        self.self_check_answers: Sequence[Mapping[int, float]] = ()
        # Set by training; none in a model that was saved without.
        self.parents = ParentFallback()

    @property
    def classes(self) -> IntArray:
        """The prdtypecode of each class column, ascending."""
        return self.fusion.classes

    def scores(self, batch: FeatureBatch) -> dict[str, FloatArray]:
        """The scores of each view, rows x classes; a row of NaN where a product lacks the view."""
        return {view: self._view_scores(view, batch) for view in self.linear}

    def _view_scores(self, view: str, batch: FeatureBatch) -> FloatArray:
        scores = np.full((len(batch), len(self.classes)), np.nan)
        if view == NGRAMS:
            mask = batch.has_text()
            features = self.vectorizer.transform(batch.table[mask]) if mask.any() else None
        else:
            embeddings = batch.embeddings(view)
            mask = np.zeros(len(batch), dtype=bool) if embeddings is None else ~missing_rows(embeddings)
            features = None if embeddings is None or not mask.any() else embeddings[mask]
        if features is not None:
            scores[mask] = self.linear[view].decision_function(features)
        return scores

    def predict_proba(self, batch: FeatureBatch) -> FloatArray:
        """Probabilities, rows x classes, in the order of `classes`."""
        proba: FloatArray = softmax(self.decision_function(batch)[0], axis=1)
        return proba

    def decision_function(self, batch: FeatureBatch) -> tuple[FloatArray, BoolArray]:
        """The fused scores, rows x classes, in the order of `classes`; and for each row, whether it has any view."""
        fused, has_any = [np.empty((0, len(self.classes)))], [np.empty(0, dtype=bool)]
        for part in (batch[rows] for rows in row_chunks(len(batch), CHUNK_ROWS)):
            scores = self.scores(part)
            fused.append(self.fusion.decision_function(scores, gating_context(part.table)))
            has_any.append(np.any([np.zeros(len(part)), *(~missing_rows(each) for each in scores.values())], axis=0))
        return np.vstack(fused), np.concatenate(has_any)

    def top_k(self, batch: FeatureBatch, k: int) -> TopK:
        """The k most probable codes of each row, or all codes if there are fewer."""
        # Rounded before they are sorted, so that ties do not depend on a platform's last bit.
        fused, has_any = self.decision_function(batch)
        proba = softmax(fused, axis=1).round(6)
        order = np.argsort(-proba, axis=1, kind="stable")[:, :k]
        confidence = np.take_along_axis(proba, order, 1)
        novelty = np.full(len(batch), np.nan)
        if self.novelty is not None:
            none_score = self.novelty.none_score(batch.text_embeddings)
            novelty = self.novelty.novelty(evidence(fused, has_any), gating_context(batch.table), none_score)
        novel = is_novel(novelty, self.config.novelty_false_alarms)
        is_unsure = confidence[:, 0] < self.config.threshold
        parents = self.parents.predict(self.classes, proba, is_unsure & ~novel)
        return TopK(self.classes[order], confidence, is_unsure | novel, novel, novelty, parents)

    def predict(self, batch: FeatureBatch) -> pd.DataFrame:
        """The five most probable codes of each row, and whether a person should review it.

        Returns:
            CHOICE_COLUMNS, with label after the first code; needs_review, parent (key; "" for none), is_novel, novelty;
            with the index of the batch's table. Choices that a model with fewer classes does not have are missing.
        """
        index = batch.table.index
        top = self.top_k(batch, len(CHOICE_COLUMNS))
        columns: dict[str, Any] = {}
        for rank, (code_column, confidence_column) in enumerate(CHOICE_COLUMNS):
            exists = rank < top.codes.shape[1]
            code = pd.Series(top.codes[:, rank], index) if exists else pd.Series(pd.NA, index)
            columns[code_column] = code.astype("Int64")
            if rank == 0:
                columns["label"] = [label_of(int(value)) for value in code]
            columns[confidence_column] = top.confidence[:, rank] if exists else np.nan
        columns["needs_review"] = top.needs_review
        columns["parent"] = pd.Series(top.parents, index, dtype="str")
        columns |= {"is_novel": top.is_novel, "novelty": top.novelty}
        return pd.DataFrame(columns, index=index)

    def save(self, folder: Path) -> None:
        """Write the model's three files; the same model gives the same bytes."""
        arrays: dict[str, NDArray[Any]] = _to_stored("fusion", vars(self.fusion), STORED_FUSION)
        del arrays["fusion.views"]
        for view, linear in self.linear.items():
            arrays |= {f"{view}.coef": linear.coef, f"{view}.intercept": linear.intercept}
        arrays |= {f"idf.{number}": idf for number, idf in enumerate(self.vectorizer.idf)}
        if self.neighbours is not None:
            arrays |= _to_stored("neighbours", self.neighbours._asdict(), STORED_NEIGHBOURS)
        if self.novelty is not None:
            arrays |= _to_stored("novelty", vars(self.novelty), {})
        blocks = [
            {**block.to_stored(), "terms": terms}
            for block, terms in zip(self.vectorizer.blocks, self.vectorizer.terms, strict=True)
        ]
        targets = [folder / name for name in (MODEL_FILE, VECTORIZER_FILE, MANIFEST_FILE)]
        with atomic_write(*targets) as (model, vectorizer, manifest):
            model.write_bytes(save({name: np.ascontiguousarray(array) for name, array in arrays.items()}))
            vectorizer.write_text(json.dumps(blocks, ensure_ascii=False) + "\n", encoding="utf-8", newline="\n")
            dump_json(
                {
                    "format": FORMAT,
                    "features": self.config.features.model_dump(),
                    "views": list(self.linear),
                    "encoders": dict(self.config.encoders),
                    "target_precision": self.config.target_precision,
                    "threshold": self.config.threshold,
                    "novelty_false_alarms": self.config.novelty_false_alarms,
                    "sha256": {MODEL_FILE: digest(model), VECTORIZER_FILE: digest(vectorizer)},
                    **({"networks": {v: n.sha256 for v, n in self.networks.items()}} if self.networks else {}),
                    **({"parents": self.parents.to_stored()} if self.parents.parent_of else {}),
                    **({"self_check": list(self.self_check_answers)} if self.self_check_answers else {}),
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
            return cls._load(folder)
        except FileNotFoundError as error:
            raise UserError(f"{error.filename}: no such file, so there is no model; {RETRY_HINT}") from error
        except (
            ValueError, KeyError, TypeError, AttributeError, RecursionError, SafetensorError, ValidationError
        ) as error:  # fmt: skip
            raise UserError(
                f"{folder}: not a readable model ({type(error).__name__}: {error}); {RETRY_HINT}"
            ) from error

    @classmethod
    def _load(cls, folder: Path) -> "ProductClassifier":
        manifest = json.loads((folder / MANIFEST_FILE).read_text(encoding="utf-8"))
        if manifest["format"] != FORMAT:
            raise UserError(f"{folder}: model format {manifest['format']}, this code reads {FORMAT}; retrain it")
        for name in (MODEL_FILE, VECTORIZER_FILE):
            if digest(folder / name) != manifest["sha256"].get(name):
                raise UserError(f"{folder / name}: damaged or from another model; {RETRY_HINT}")
        arrays = load_file(folder / MODEL_FILE)
        stored_blocks = json.loads((folder / VECTORIZER_FILE).read_text(encoding="utf-8"))
        blocks, terms = [NgramBlock.from_stored(block) for block in stored_blocks], [b["terms"] for b in stored_blocks]
        idf = [arrays[f"idf.{number}"] for number in range(len(blocks))]
        config = ModelConfig(
            FeatureParams.model_validate(manifest["features"]),
            dict(manifest["encoders"]),
            float(manifest["target_precision"]),
            float(manifest["threshold"]),
            float(manifest.get("novelty_false_alarms", 0.0)),
        )
        fusion = Fusion(tuple(manifest["views"]), **_from_stored("fusion", arrays, STORED_FUSION))
        linear = {
            view: LinearModel(fusion.classes, np.asfortranarray(arrays[f"{view}.coef"]), arrays[f"{view}.intercept"])
            for view in fusion.views
        }
        stored_neighbours = _from_stored("neighbours", arrays, STORED_NEIGHBOURS)
        networks = {
            view: NetworkFolder(folder / NETWORKS_FOLDER / NETWORK_FOLDERS[view], sha256)
            for view, sha256 in manifest.get("networks", {}).items()
        }
        vectorizer = NgramVectorizer(blocks, terms, idf)
        neighbours = ImageNeighbours(**stored_neighbours) if stored_neighbours else None
        stored_novelty = _from_stored("novelty", arrays, {})
        novelty = Novelty(**stored_novelty) if stored_novelty else None
        faults = model_faults(vectorizer, linear, fusion, neighbours, config.threshold, config.target_precision)
        text_width = linear[TEXT].coef.shape[1] if TEXT in linear else 0
        faults += novelty_faults(novelty, config.novelty_false_alarms, text_width)
        if faults:
            raise UserError(f"{folder}: not a valid model ({'; '.join(faults)}); {RETRY_HINT}")
        answers = [
            {int(code): float(proba) for code, proba in answer.items()} for answer in manifest.get("self_check", ())
        ]
        classifier = cls(vectorizer, linear, fusion, config, neighbours, networks)
        classifier.novelty = novelty
        classifier.self_check_answers = answers
        if "parents" in manifest:
            classifier.parents = ParentFallback.from_stored(manifest["parents"], fusion.classes.tolist())
        return classifier


def evidence(fused: FloatArray, has_any: BoolArray) -> FloatArray:
    """The highest fused score of each row, NaN for one without any view; arguments from `decision_function`."""
    return np.where(has_any, fused.max(axis=1, initial=-np.inf), np.nan)


@lru_cache(maxsize=1)
def load_cached(folder: Path, version: str) -> ProductClassifier:
    """The model in a folder, read once in each process.

    Args:
        version: the first hex digits of the SHA-256 of its manifest.

    Raises:
        UserError: there is no readable model, or it has another version.
    """
    classifier = ProductClassifier.load(folder)
    if not digest(folder / MANIFEST_FILE).startswith(version):
        raise UserError(f"{folder}: the model was replaced during the run; start again")
    return classifier


def _to_stored(prefix: str, fields: Mapping[str, Any], stored_names: Mapping[str, str]) -> dict[str, Any]:
    return {f"{prefix}.{stored_names.get(name, name)}": value for name, value in fields.items()}


def _from_stored(prefix: str, arrays: Mapping[str, Any], stored_names: Mapping[str, str]) -> dict[str, Any]:
    names = {stored_name: name for name, stored_name in stored_names.items()}
    stored = {key.removeprefix(f"{prefix}."): array for key, array in arrays.items() if key.startswith(f"{prefix}.")}
    return {names.get(name, name): array for name, array in stored.items()}
