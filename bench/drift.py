"""Does the drift report cry wolf, and what does it find? `python -m bench.drift --project .` after `make run`.

The reference and the model are the project's; "live" products are a fresh synthetic catalogue drawn by another
seed, put through the model as the API would. False alarms are counted in windows drawn from the reference itself and
from the fresh catalogue; then shifts are planted at growing sizes, and the smallest that is found is told.
"""

import argparse
import json
import random
import sys
import tempfile
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image, ImageFilter

from rakuten.config import PARAMS, Params, load_params
from rakuten.data.images import ImageFiles
from rakuten.data.schema import X_COLUMNS, image_name
from rakuten.data.synthetic import write_catalogue
from rakuten.data.tables import read_raw
from rakuten.features.monitored_columns import LANGUAGE_COLUMN, PREDICTED_COLUMN, monitored_values, with_dtypes
from rakuten.models.classifier import ProductClassifier
from rakuten.models.pyfunc_model import PyfuncModel
from rakuten.monitoring.alerts import judge_drift
from rakuten.monitoring.drift import column_drift

WINDOWS = (500, 1000, 2000)
CHANGED = 1000
EACH = 10  # windows at each size of each shift
ENOUGH = 8  # of them that must raise an alarm for the shift to count as found
SHARES = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8)
SIZES: dict[str, Sequence[float]] = {
    "prior: share of products moved to one class": SHARES,
    "language: share of products moved to English": SHARES,
    "missing pictures: share of products": SHARES,
    "a new class (car parts): share of products": SHARES,
    "longer titles: words added, in % of all": (0.1, 0.2, 0.4, 0.8),
    "blurred pictures: radius in pixels, all products": (1, 2, 4, 8),
}
PRIOR, SPEECH, MISSING, NEW, LONGER, BLURRED = SIZES
GROWING = 2583  # the class that products move to
PARTS = ("pneu hiver", "plaquettes de frein", "courroie de distribution", "filtre à huile", "pot d'échappement")
CARS = ("Renault Clio", "Peugeot 208", "Citroën C3", "Dacia Sandero", "Volkswagen Golf")
FILLER = ("neuf", "qualité", "livraison", "rapide", "original", "pratique", "nouveau", "promo")

Named = list[tuple[str, str]]
Pictures = list[bytes | None]


class Live:
    """Fresh products and what the model says of them, whole or changed.

    Windows are drawn without replacement, as traffic is: one drawn with it would be less like the population
    than fresh products are. Of those that a shift changes, CHANGED are put through the model and drawn from.
    """

    def __init__(self, model: PyfuncModel, raw: Path) -> None:
        self.model = model
        table = read_raw(raw / "X_train.csv", X_COLUMNS)
        files = ImageFiles(raw / "images")
        self.named: Named = list(zip(table["designation"], table["description"], strict=True))
        names = map(image_name, table["imageid"], table["productid"])
        self.pictures: Pictures = [files[name].read_bytes() for name in names]
        self.base = self.seen(self.named, self.pictures)
        self.named, self.pictures = self.named[:CHANGED], self.pictures[:CHANGED]

    def seen(self, named: Named, pictures: Pictures) -> pd.DataFrame:
        """What the live log would have of these products."""
        frames = []
        for at in range(0, len(named), 100):
            described, _ = self.model.featurise_many(named[at : at + 100], pictures[at : at + 100])
            ranked = self.model.classifier.top_k(described, 1)
            first = (ranked.codes[:, 0].tolist(), ranked.confidence[:, 0].tolist(), ranked.needs_review.tolist())
            frames.append(with_dtypes(pd.DataFrame(dict(monitored_values(described, *first)))))
        return pd.concat(frames, ignore_index=True)

    def shifted(self, kind: str, size: float, seed: int) -> Callable[[int, int], pd.DataFrame]:
        """A way to draw windows (rows, seed) of traffic that this shift has changed."""
        rng = random.Random(f"{kind}:{size}:{seed}")
        if kind == PRIOR:
            return self._mixed(self.base[self.base[PREDICTED_COLUMN] == GROWING], size)
        if kind == SPEECH:
            return self._mixed(self.base[self.base[LANGUAGE_COLUMN] == "english"], size)
        if kind == MISSING:
            return self._mixed(self.seen(self.named, [None] * len(self.named)), size)
        if kind == NEW:
            new = [(f"{rng.choice(PARTS)} {rng.choice(CARS)} {rng.randint(100, 999)}", "") for _ in range(300)]
            return self._mixed(self.seen(new, [_noise(at) for at in range(300)]), size)
        if kind == LONGER:
            return self._mixed(self.seen([_longer(each, size, rng) for each in self.named], self.pictures), 1.0)
        return self._mixed(self.seen(self.named, [_blurred(each, size) for each in self.pictures]), 1.0)

    def _mixed(self, other: pd.DataFrame, share: float) -> Callable[[int, int], pd.DataFrame]:
        def draw(rows: int, seed: int) -> pd.DataFrame:
            moved = np.random.default_rng(seed).binomial(rows, share)
            parts = [self.base.sample(rows - moved, replace=rows > len(self.base), random_state=seed)]
            parts.append(other.sample(moved, replace=True, random_state=seed))
            return pd.concat(parts, ignore_index=True)

        return draw


def _longer(named: tuple[str, str], share: float, rng: random.Random) -> tuple[str, str]:
    words = named[0].split()
    return " ".join(words + rng.choices(FILLER, k=round(share * len(words)))), named[1]


def _blurred(picture: bytes | None, radius: float) -> bytes:
    out = BytesIO()
    Image.open(BytesIO(picture or b"")).convert("RGB").filter(ImageFilter.GaussianBlur(radius)).save(out, "JPEG")
    return out.getvalue()


def _noise(seed: int) -> bytes:
    out = BytesIO()
    drawn = np.random.default_rng(seed).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(drawn).resize((300, 300)).save(out, "JPEG")
    return out.getvalue()


def alarmed(reference: pd.DataFrame, window: pd.DataFrame, params: Params) -> list[str]:
    """The alarms that a window raises."""
    return list(
        judge_drift(reference, window, column_drift(reference, window, params.monitor).columns, None, params).alarms
    )


def smallest(
    live: Live, reference: pd.DataFrame, kind: str, rows: Sequence[int], params: Params
) -> dict[int, float | None]:
    """For each size of window the smallest shift that is found, None where none is."""
    found: dict[int, float | None] = dict.fromkeys(rows)
    for size in SIZES[kind]:
        open_ones = [count for count in rows if found[count] is None]
        if not open_ones:
            break
        draw = live.shifted(kind, size, params.seed)
        for count in open_ones:
            hits = sum(bool(alarmed(reference, draw(count, seed), params)) for seed in range(EACH))
            if hits >= ENOUGH:
                found[count] = size
    return found


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.drift", description=__doc__)
    parser.add_argument("--project", type=Path, required=True, help="with models/ and reports/ of a finished pipeline")
    parser.add_argument("--windows", type=int, default=200, help="behind each rate of false alarms")
    parser.add_argument("--products", type=int, default=4000, help="fresh ones, that live windows are drawn from")
    parser.add_argument("--out", type=Path, default=Path("drift-bench.json"))
    arguments = parser.parse_args(argv)
    params = load_params(PARAMS)
    reference = pd.read_parquet(arguments.project / "reports" / "reference.parquet")
    model = PyfuncModel(ProductClassifier.load(arguments.project / "models"))
    results: dict[str, Any] = {}

    def tell(name: str, value: Any) -> None:
        results[name] = value
        sys.stdout.write(f"{name}: {value}\n")
        sys.stdout.flush()
        arguments.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")

    with tempfile.TemporaryDirectory() as folder:
        write_catalogue(arguments.products, 1, params.seed + 1, Path(folder))
        live = Live(model, Path(folder))
    for name, source, again in (("the reference", reference, True), ("fresh products", live.base, False)):
        for rows in WINDOWS:
            drawn = (source.sample(rows, replace=again, random_state=seed) for seed in range(arguments.windows))
            wrong = [alarms for window in drawn if (alarms := alarmed(reference, window, params))]
            said = f"{len(wrong)} of {arguments.windows}" + (f", e.g. {wrong[0][0]}" if wrong else "")
            tell(f"false alarms, windows of {rows} from {name}", said)
    for kind in SIZES:
        tell(kind, smallest(live, reference, kind, WINDOWS, params))
    return 0


if __name__ == "__main__":
    sys.exit(main())
