"""Simulated live traffic: products that no model was trained on, put through a model, with and without a shift."""

import random
from collections.abc import Callable, Sequence
from enum import StrEnum
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageFilter

from rakuten.config import Params
from rakuten.data.images import ImageFiles
from rakuten.data.schema import X_COLUMNS, image_name
from rakuten.data.tables import read_raw
from rakuten.features.monitored_columns import LANGUAGE_COLUMN, PREDICTED_COLUMN, monitored_values, with_dtypes
from rakuten.models.pyfunc_model import PyfuncModel
from rakuten.monitoring.alerts import PromisedShares, judge_drift
from rakuten.monitoring.drift import column_drift
from rakuten.monitoring.live_novelty import live_novelty
from rakuten.monitoring.prediction_log import NOVEL_COLUMN, known_novel

GROWING_CLASS = 2583  # the class that products are moved to
MAX_CHANGED = 1000  # products that a shift changes and puts through the model again
N_NEW_CLASS = 300  # products of the class that no model knows
BATCH_ROWS = 100
CAR_PARTS = ("pneu hiver", "plaquettes de frein", "courroie de distribution", "filtre à huile", "pot d'échappement")
CARS = ("Renault Clio", "Peugeot 208", "Citroën C3", "Dacia Sandero", "Volkswagen Golf")
FILLER_WORDS = ("neuf", "qualité", "livraison", "rapide", "original", "pratique", "nouveau", "promo")

Texts = Sequence[tuple[str, str]]  # designation and description
Images = Sequence[bytes | None]  # encoded
DrawWindow = Callable[[int, int], pd.DataFrame]  # of this many rows, with this seed


class Shift(StrEnum):
    """What changes in the traffic, and what the size of the change means."""

    PRIOR = "prior: share of products moved to one class"
    LANGUAGE = "language: share of products moved to English"
    MISSING_IMAGES = "missing pictures: share of products"
    NEW_CLASS = "a new class (car parts): share of products"
    LONGER_TITLES = "longer titles: words added, in % of all"
    BLURRED_IMAGES = "blurred pictures: radius in pixels, all products"


class LiveTraffic:
    """The train products of a catalogue as the prediction log has them: unchanged, or with a shift.

    Args:
        raw: the catalogue's folder.

    Attributes:
        base: MONITORED_COLUMNS and `is_novel` of all products, unchanged.
    """

    def __init__(self, model: PyfuncModel, raw: Path) -> None:
        self._model = model
        table = read_raw(raw / "X_train.csv", X_COLUMNS)
        files = ImageFiles(raw / "images")
        texts: Texts = list(zip(table["designation"], table["description"], strict=True))
        names = map(image_name, table["imageid"], table["productid"])
        images: Images = [files[name].read_bytes() for name in names]
        self.base = self._monitored(texts, images)
        self._texts, self._images = texts[:MAX_CHANGED], images[:MAX_CHANGED]

    def _monitored(self, texts: Texts, images: Images) -> pd.DataFrame:
        """MONITORED_COLUMNS and `is_novel` of products, as the API logs them."""
        frames = []
        for start in range(0, len(texts), BATCH_ROWS):
            rows = slice(start, start + BATCH_ROWS)
            batch, _ = self._model.featurise_many(texts[rows], images[rows])
            top = self._model.classifier.top_k(batch, 1)
            first = (top.codes[:, 0].tolist(), top.confidence[:, 0].tolist(), top.needs_review.tolist())
            frame = with_dtypes(pd.DataFrame(dict(monitored_values(batch, *first))))
            frames.append(frame.assign(**{NOVEL_COLUMN: pd.array(known_novel(top), dtype="boolean")}))
        return pd.concat(frames, ignore_index=True)

    def shifted(self, shift: Shift, size: float, seed: int) -> DrawWindow:
        """Traffic with a shift, as a function that draws windows of it."""
        rng = random.Random(f"{shift}:{size}:{seed}")
        match shift:
            case Shift.PRIOR:
                return self._mixed(self.base[self.base[PREDICTED_COLUMN] == GROWING_CLASS], size)
            case Shift.LANGUAGE:
                return self._mixed(self.base[self.base[LANGUAGE_COLUMN] == "english"], size)
            case Shift.MISSING_IMAGES:
                return self._mixed(self._monitored(self._texts, [None] * len(self._texts)), size)
            case Shift.NEW_CLASS:
                titles = [_car_part(rng) for _ in range(N_NEW_CLASS)]
                images = [_noise_image(number) for number in range(N_NEW_CLASS)]
                return self._mixed(self._monitored([(title, "") for title in titles], images), size)
            case Shift.LONGER_TITLES:
                texts = [(_lengthen(title, size, rng), description) for title, description in self._texts]
                return self._mixed(self._monitored(texts, self._images), 1.0)
            case Shift.BLURRED_IMAGES:
                blurred = [_blur(image or b"", size) for image in self._images]
                return self._mixed(self._monitored(self._texts, blurred), 1.0)

    def _mixed(self, changed: pd.DataFrame, share: float) -> DrawWindow:
        """Windows with this share of changed products on average.

        Unchanged products are drawn without replacement, as traffic is: with replacement, a window would be less
        like the population than fresh products are.
        """

        def draw(n_rows: int, seed: int) -> pd.DataFrame:
            n_changed = np.random.default_rng(seed).binomial(n_rows, share)
            unchanged = self.base.sample(n_rows - n_changed, replace=n_rows > len(self.base), random_state=seed)
            return pd.concat([unchanged, changed.sample(n_changed, replace=True, random_state=seed)], ignore_index=True)

        return draw


def _car_part(rng: random.Random) -> str:
    return f"{rng.choice(CAR_PARTS)} {rng.choice(CARS)} {rng.randint(100, 999)}"


def _lengthen(title: str, share: float, rng: random.Random) -> str:
    words = title.split()
    return " ".join(words + rng.choices(FILLER_WORDS, k=round(share * len(words))))


def _blur(image: bytes, radius: float) -> bytes:
    return _jpeg(Image.open(BytesIO(image)).convert("RGB").filter(ImageFilter.GaussianBlur(radius)))


def _noise_image(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    return _jpeg(Image.fromarray(pixels).resize((300, 300)))


def _jpeg(image: Image.Image) -> bytes:
    data = BytesIO()
    image.save(data, "JPEG")
    return data.getvalue()


def alarms_of(reference: pd.DataFrame, window: pd.DataFrame, params: Params) -> list[str]:
    """The alarms that a window raises against a reference, without later labels."""
    columns = column_drift(reference, window, params.monitor).columns
    promised, min_rows = params.predict.novelty_false_alarms, params.monitor.min_rows
    is_novel = window.get(NOVEL_COLUMN, pd.Series(pd.NA, window.index, dtype="boolean"))
    novelty = live_novelty(is_novel, promised, len(reference), min_rows)
    return list(judge_drift(reference, window, columns, [], params, PromisedShares(novelty=novelty)).alarms)
