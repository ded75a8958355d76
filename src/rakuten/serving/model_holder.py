"""The model that answers: loaded, checked on products of its own, swapped for a new one between two requests.

From the registry the champion's files are copied to a cache, so that a start with the tracking
server away has the last good model. Without a server the model is the one in models/.
"""

import json
import logging
import shutil
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from rakuten.config import ROOT
from rakuten.errors import UserError
from rakuten.files import atomic_write, dump_json
from rakuten.models.classifier import ProductClassifier
from rakuten.models.pyfunc_model import PyfuncModel
from rakuten.serving.settings import ApiSettings
from rakuten.tracking import lineage, registry, training_run
from rakuten.tracking import registered_model as registered

log = logging.getLogger(__name__)

CURRENT_FILE = "current.json"


class LoadedModel(NamedTuple):
    """A model and what is known of it."""

    model: PyfuncModel
    model_version: str
    source: str  # local or registry
    registry_version: str | None
    about: dict[str, Any]  # run_id, trained_at, git_commit, data, scores, synthetic


class ModelHolder:
    """Holds the champion; `refresh` looks for a new one."""

    def __init__(self, settings: ApiSettings) -> None:
        self._settings = settings
        self._load_new = self._from_registry if settings.from_registry else self._from_disk
        self._champion: LoadedModel | None = None
        self._refused: str | None = None  # what failed its check: not tried again and again

    def current(self) -> LoadedModel:
        if self._champion is None:
            raise UserError("no model is loaded")
        return self._champion

    def refused(self) -> bool:
        """Whether a champion that failed its check still waits to be replaced."""
        return self._refused is not None

    def refresh(self) -> bool:
        """Load the champion if it is another than the one held. Returns whether it was swapped.

        Raises:
            UserError: the new one cannot be had or fails its check; the one held stays.
        """
        new = self._load_new()
        if new is None:
            return False
        self._champion, self._refused = new, None
        log.info("model %s answers now (%s)", new.model_version, new.source)
        return True

    def _known(self, mark: str) -> bool:
        """Whether there is nothing to load: this very model is held, or was refused."""
        held = self._champion
        if held is not None and mark in (held.model_version, held.registry_version):
            self._refused = None  # the one that failed is wanted no more
            return True
        return mark == self._refused

    def _from_disk(self) -> LoadedModel | None:
        folder = self._settings.models
        if not (folder / "manifest.json").is_file():
            raise UserError(f"{folder}: no model; make one with `make run`")
        version = lineage.model_version(folder)
        if self._known(version):
            return None
        return self._checked(version, folder, "local", None, _local_metadata(folder))

    def _from_registry(self) -> LoadedModel | None:
        cache = self._settings.cache
        try:
            version = registered.get_champion()
            if version is None:
                raise UserError(f"{registry.MODEL_NAME} has no champion: promote one with `make promote`")
            if self._known(version.number):
                return None
            folder = cache / version.number
            about = registered.download_model(version, folder)
        except UserError as error:
            if self._champion is None and (kept := self._last_good()) is not None:
                log.warning("%s; answering with the last good model", error)
                return kept
            raise
        new = self._checked(version.number, folder, "registry", version.number, about)
        with atomic_write(cache / CURRENT_FILE) as (part,):
            dump_json({"version": version.number, "about": about}, part)
        for old in cache.iterdir():
            if old.is_dir() and old.name != version.number:
                shutil.rmtree(old, ignore_errors=True)
        return new

    def _last_good(self) -> LoadedModel | None:
        cache = self._settings.cache
        try:
            known = json.loads((cache / CURRENT_FILE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        version = str(known["version"])
        return self._checked(version, cache / version, "registry", version, known["about"])

    def _checked(self, mark: str, folder: Path, source: str, number: str | None, about: dict[str, Any]) -> LoadedModel:
        try:
            model = PyfuncModel(ProductClassifier.load(folder))
            self_check(model)
        except UserError:
            self._refused = mark
            raise
        return LoadedModel(model, lineage.model_version(folder), source, number, about)


def self_check(model: PyfuncModel) -> None:
    """Ask the model about a few products, which loads its encoders too.

    Raises:
        UserError: it fails, or answers what no model should.
    """
    picture = BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(picture, "JPEG")
    named = [("Piscine gonflable ronde", "<p>Avec pompe</p>"), ("Roman policier", ""), ("", ""), ("", "")]
    try:
        described, seen = model.featurise_many(named, [None, picture.getvalue(), picture.getvalue(), None])
        ranked = model.classifier.top_k(described, 3)
    except Exception as error:
        raise UserError(f"the model fails its self-check: {type(error).__name__}: {error}") from error
    sums = ranked.confidence.sum(axis=1)
    sound = np.isfinite(ranked.confidence).all() and (ranked.confidence >= 0).all() and (sums <= 1.00001).all()
    if (
        not sound
        or seen != ["none", "used", "used", "none"]
        or not np.isin(ranked.codes, model.classifier.classes).all()
    ):
        raise UserError("the model fails its self-check: its confidences are no probabilities")


def _local_metadata(folder: Path) -> dict[str, Any]:
    """What the files beside a local model say of it."""
    try:
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        metrics = {}
    scores = {name: metrics[name] for name in ("weighted_f1", "macro_f1", "calibration_error") if name in metrics}
    if "interval" in metrics:
        scores["weighted_f1_low"], scores["weighted_f1_high"] = metrics["interval"]["weighted_f1"]
    processed = [ROOT / "data" / "processed" / f"train_{part}" for part in ("features.csv", "texts.npy", "images.npy")]
    there = folder == ROOT / "models" and lineage.is_in_dvc_lock(folder) and all(path.is_file() for path in processed)
    training = training_run.local_run_record(folder)
    return {
        "run_id": training.get("run_id"),
        "trained_at": registered.iso_time(training["started"]) if "started" in training else None,
        "git_commit": training.get("git_commit"),
        "data": lineage.data_digests(processed) if there else {},
        "scores": scores,
        "synthetic": bool(metrics.get("synthetic", False)),
    }
