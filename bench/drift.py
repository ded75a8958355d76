"""False alarms and sensitivity of the drift report: `python -m bench.drift --project .` after `make run`.

Reference and model are the project's; live products are a synthetic catalogue of another seed, put through the model
as the API does. False alarms are counted in windows drawn from the reference and from the fresh products. Then
shifts of growing size are planted, and the smallest size that is found is reported.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from rakuten.config import PARAMS, Params, load_params
from rakuten.data.synthetic import write_catalogue
from rakuten.models.classifier import ProductClassifier
from rakuten.models.pyfunc_model import PyfuncModel
from tests.support.drift import LiveTraffic, Shift, alarms_of

WINDOW_ROWS = (500, 1000, 2000)
N_WINDOWS = 10  # at each size of each shift
MIN_FOUND = 8  # windows with an alarm for the shift to count as found
SHARES = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8)
SIZES: dict[Shift, Sequence[float]] = {
    Shift.PRIOR: SHARES,
    Shift.LANGUAGE: SHARES,
    Shift.MISSING_IMAGES: SHARES,
    Shift.NEW_CLASS: SHARES,
    Shift.LONGER_TITLES: (0.1, 0.2, 0.4, 0.8),
    Shift.BLURRED_IMAGES: (1, 2, 4, 8),
}


def smallest_found(live: LiveTraffic, reference: pd.DataFrame, shift: Shift, params: Params) -> dict[int, float | None]:
    """For each number of WINDOW_ROWS the smallest size of the shift that is found; None if none is."""
    smallest: dict[int, float | None] = dict.fromkeys(WINDOW_ROWS)
    for size in SIZES[shift]:
        undetected = [n_rows for n_rows in WINDOW_ROWS if smallest[n_rows] is None]
        if not undetected:
            break
        draw = live.shifted(shift, size, params.seed)
        for n_rows in undetected:
            n_found = sum(bool(alarms_of(reference, draw(n_rows, seed), params)) for seed in range(N_WINDOWS))
            if n_found >= MIN_FOUND:
                smallest[n_rows] = size
    return smallest


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.drift", description=__doc__)
    parser.add_argument("--project", type=Path, required=True, help="with models/ and reports/ of a finished pipeline")
    parser.add_argument("--windows", type=int, default=200, help="windows behind each rate of false alarms")
    parser.add_argument("--products", type=int, default=4000, help="fresh products that live windows are drawn from")
    parser.add_argument("--out", type=Path, default=Path("drift-bench.json"))
    arguments = parser.parse_args(argv)
    params = load_params(PARAMS)
    reference = pd.read_parquet(arguments.project / "reports" / "reference.parquet")
    model = PyfuncModel(ProductClassifier.load(arguments.project / "models"))
    results: dict[str, Any] = {}

    def report(name: str, value: Any) -> None:
        results[name] = value
        sys.stdout.write(f"{name}: {value}\n")
        sys.stdout.flush()
        arguments.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")

    with tempfile.TemporaryDirectory() as folder:
        write_catalogue(arguments.products, 1, params.seed + 1, Path(folder))
        live = LiveTraffic(model, Path(folder))
    for name, frame, replace in (("the reference", reference, True), ("fresh products", live.base, False)):
        for n_rows in WINDOW_ROWS:
            windows = (frame.sample(n_rows, replace=replace, random_state=seed) for seed in range(arguments.windows))
            false_alarms = [alarms for window in windows if (alarms := alarms_of(reference, window, params))]
            example = f", e.g. {false_alarms[0][0]}" if false_alarms else ""
            report(
                f"false alarms, windows of {n_rows} from {name}",
                f"{len(false_alarms)} of {arguments.windows}{example}",
            )
    for shift in Shift:
        report(shift, smallest_found(live, reference, shift, params))
    return 0


if __name__ == "__main__":
    sys.exit(main())
