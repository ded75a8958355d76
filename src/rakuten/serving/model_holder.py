"""Loads the model that answers, checks it on a few products, and replaces it between two requests.

The champion of the model registry is copied to a cache folder, so that a server that starts while the tracking server
is away answers with the last good model. Without a tracking server the model is the one in models/.
"""

import json
import logging
import shutil
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from rakuten.config import MODELS, PROCESSED, SCORES_FILE, load_params
from rakuten.errors import UntrustedModelError, UserError
from rakuten.features.feature_set import GROUPS_FILE, TRAIN, FeaturePaths
from rakuten.files import atomic_write, dump_json
from rakuten.models.classifier import ProductClassifier
from rakuten.models.pyfunc_model import PyfuncModel
from rakuten.models.self_check import self_check
from rakuten.serving.settings import ApiSettings
from rakuten.tracking import lineage, registered_model, registry, training_run
from rakuten.tracking.signatures import check_signature

log = logging.getLogger(__name__)

CURRENT_FILE = "current.json"  # in the cache folder: which version is the last good one, and its metadata


class LoadedModel(NamedTuple):
    """A model that passed its self-check, and where it comes from."""

    model: PyfuncModel
    model_version: str  # the first hex digits of its manifest's SHA-256
    source: str  # local or registry
    registry_version: str | None
    metadata: dict[str, Any]  # run_id, trained_at, git_commit, data, scores, synthetic


class ModelHolder:
    """Holds the model that answers; `refresh` loads a new champion."""

    def __init__(self, settings: ApiSettings) -> None:
        self._settings = settings
        self._load_new = self._load_from_registry if settings.from_registry else self._load_from_disk
        self._require_signature = load_params().models.require_signature  # of models from the registry
        self._model: LoadedModel | None = None
        self._refused_version: str | None = None  # failed its check: not loaded again at each refresh
        self._refused_signature: str | None = None  # of that version: it may be signed later

    def current(self) -> LoadedModel:
        """The model that answers.

        Raises:
            UserError: no model was loaded yet.
        """
        if self._model is None:
            raise UserError("no model is loaded")
        return self._model

    def has_refused(self) -> bool:
        """Whether the champion failed its check, so that the model before it still answers."""
        return self._refused_version is not None

    def refresh(self) -> bool:
        """Load the champion if it is not the current model; returns whether it was loaded.

        Raises:
            UserError: it cannot be fetched or fails its check; the current model stays.
        """
        new = self._load_new()
        if new is None:
            return False
        self._model = new
        log.info("now serving model %s (%s)", new.model_version, new.source)
        return True

    def _is_handled(self, version: str, signature: str | None = None) -> bool:
        """Whether a version needs no loading: it is the current model, or failed its check before."""
        model = self._model
        if model is not None and version in (model.model_version, model.registry_version):
            self._refused_version = None  # the champion is the current model again, no longer the refused one
            return True
        return version == self._refused_version and signature == self._refused_signature

    def _load_from_disk(self) -> LoadedModel | None:
        folder = self._settings.models
        if not (folder / "manifest.json").is_file():
            hint = "`dvc checkout` brings the last one back, " if lineage.dvc_lock_digests("train", "outs") else ""
            raise UserError(f"{folder}: no model; {hint}`make run` trains one")
        version = lineage.model_version(folder)
        if self._is_handled(version):
            return None
        model = LoadedModel(self._load_checked(folder, version), version, "local", None, _local_metadata(folder))
        self._refused_version = None
        return model

    def _load_from_registry(self) -> LoadedModel | None:
        try:
            return self._load_champion()
        except Exception as error:  # of any kind: at the start, the last good model is better than none
            if self._model is not None or (last_good := self._load_last_good()) is None:
                raise
            log.warning("%s; serving the last good model", error)
            return last_good

    def _load_champion(self) -> LoadedModel | None:
        """The champion, if it needs loading. It is put beside the last good model, which it replaces when it is good.

        Raises:
            UserError: there is none, it cannot be fetched, or fails its check.
        """
        champion = registered_model.get_champion()
        if champion is None:
            raise UserError(f"{registry.MODEL_NAME} has no champion: promote one with `make promote`")
        if self._is_handled(champion.number, champion.signature):
            return None
        self._refused_signature = champion.signature
        cache = self._settings.cache
        cache.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f"{champion.number}-", dir=cache))
        try:
            metadata = registered_model.download_model(champion, folder, self._require_signature)
            new = self._load_cached(folder, champion.number, metadata)
        except BaseException as error:
            shutil.rmtree(folder, ignore_errors=True)
            if isinstance(error, UntrustedModelError):
                self._refused_version = champion.number
            raise
        with atomic_write(cache / CURRENT_FILE) as (partial,):
            current = {"version": champion.number, "folder": folder.name, "about": metadata}
            dump_json(current | {"signature": champion.signature}, partial)
        for other in cache.iterdir():
            if other.is_dir() and other != folder:
                shutil.rmtree(other, ignore_errors=True)
        self._refused_version = None
        return new

    def _load_last_good(self) -> LoadedModel | None:
        """The model that `current.json` in the cache folder names; None where there is none that can be loaded."""
        cache = self._settings.cache
        try:
            current = json.loads((cache / CURRENT_FILE).read_text(encoding="utf-8"))
            number = str(current["version"])
            folder = cache / Path(current.get("folder", number)).name
            name = f"{registry.MODEL_NAME} version {number}"
            check_signature(name, folder / "manifest.json", current.get("signature"), self._require_signature)
            return self._load_cached(folder, number, current["about"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, UserError) as error:
            log.warning("the last good model in %s cannot be loaded: %s", cache, error)
            return None

    def _load_cached(self, folder: Path, number: str, metadata: dict[str, Any]) -> LoadedModel:
        """A registered version whose files are in a folder."""
        model = self._load_checked(folder, number)
        return LoadedModel(model, lineage.model_version(folder), "registry", number, metadata)

    def _load_checked(self, folder: Path, version: str) -> PyfuncModel:
        """The model in a folder after its self-check; a version that fails is remembered as refused."""
        try:
            model = PyfuncModel(ProductClassifier.load(folder))
            self_check(model)
        except UserError:
            self._refused_version = version
            raise
        return model


def _local_metadata(folder: Path) -> dict[str, Any]:
    """The metadata of a model in a folder, from the files that its training left beside it."""
    try:
        scores = json.loads((folder / SCORES_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        scores = {}
    shown = {name: scores[name] for name in ("weighted_f1", "macro_f1", "calibration_error") if name in scores}
    if "interval" in scores:
        shown["weighted_f1_low"], shown["weighted_f1_high"] = scores["interval"]["weighted_f1"]
    training = training_run.local_run_record(folder)
    return {
        "run_id": training.get("run_id"),
        "trained_at": registered_model.iso_time(training["started"]) if "started" in training else None,
        "git_commit": training.get("git_commit"),
        "data": _local_data_digests(folder),
        "scores": shown,
        "synthetic": scores.get("synthetic"),
    }


def _local_data_digests(folder: Path) -> dict[str, str]:
    """The MD5 of each file that a local model was trained on; empty unless dvc.lock describes this very model."""
    processed = [*FeaturePaths.of(PROCESSED, TRAIN), PROCESSED / GROUPS_FILE]
    is_this_model = folder == MODELS and lineage.is_in_dvc_lock(folder)
    return lineage.data_digests(processed) if is_this_model and all(path.is_file() for path in processed) else {}
