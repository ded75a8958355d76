"""Drift of columns: no alarm where nothing moved, an alarm where a shift was planted."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import chi2

from rakuten.config import load_params
from rakuten.data.synthetic import write_catalogue
from rakuten.features.monitored_columns import MONITORED_COLUMNS
from rakuten.models.classifier import ProductClassifier
from rakuten.models.pyfunc_model import PyfuncModel
from rakuten.monitoring.drift import COLUMN_KINDS, ColumnDrift, column_drift
from tests.support.drift import LiveTraffic, Shift, alarms_of

PARAMS = load_params()
N_FRESH = 120  # products that windows of live traffic are drawn from

MakeFrame = Callable[..., pd.DataFrame]


def drift_by_column(reference: pd.DataFrame, window: pd.DataFrame) -> dict[str, ColumnDrift]:
    return {column.column: column for column in column_drift(reference, window, PARAMS.monitor).columns}


def test_every_monitored_column_is_scored(monitored_frame: MakeFrame) -> None:
    frame = monitored_frame(1000, 0)
    columns = column_drift(frame, frame, PARAMS.monitor).columns
    assert set(COLUMN_KINDS) == set(MONITORED_COLUMNS)
    assert [column.column for column in columns] == list(COLUMN_KINDS)
    assert all(column.score == pytest.approx(0, abs=1e-9) for column in columns)


def test_a_column_with_too_few_values_is_left_out(monitored_frame: MakeFrame) -> None:
    reference, window = monitored_frame(2000, 0), monitored_frame(1000, 1)
    min_rows = PARAMS.monitor.min_rows
    window.loc[min_rows - 1 :, "picture_0"] = np.nan
    window.loc[min_rows:, "picture_1"] = np.nan
    assert set(COLUMN_KINDS) - set(drift_by_column(reference, window)) == {"picture_0"}


def test_the_configured_threshold_holds_for_large_samples(monitored_frame: MakeFrame) -> None:
    drift = drift_by_column(monitored_frame(5000, 0), monitored_frame(5000, 1))
    assert (drift["confidence"].method, drift["confidence"].threshold) == ("psi", PARAMS.monitor.psi)
    assert (drift["language"].method, drift["language"].threshold) == ("jensenshannon", PARAMS.monitor.js)


def test_the_threshold_of_small_samples_is_what_chance_reaches_once_in_ten_thousand(
    monitored_frame: MakeFrame,
) -> None:
    drift = drift_by_column(monitored_frame(200, 0), monitored_frame(200, 1))
    n_bins = 10  # ceil(log2(400) + 1), as Evidently cuts them
    by_chance = (1 / 200 + 1 / 200) * chi2.isf(1e-4, n_bins - 1)
    assert drift["confidence"].threshold == pytest.approx(by_chance)
    by_chance = (1 / 200 + 1 / 200) * chi2.isf(1e-4, 2 - 1)  # two languages
    assert drift["language"].threshold == pytest.approx(np.sqrt(by_chance / 8))


@pytest.mark.parametrize("side", ["reference", "window"])
def test_one_extreme_value_does_not_hide_a_shift(monitored_frame: MakeFrame, side: str) -> None:
    """Bins have equal widths: without clipping all other values would share one bin."""
    reference, window = monitored_frame(2000, 0), monitored_frame(2000, 1)
    window["text_0"] += 1.0
    {"reference": reference, "window": window}[side].loc[0, "text_0"] = 1e9
    assert drift_by_column(reference, window)["text_0"].drifted


def test_lengths_are_compared_on_a_logarithmic_scale(monitored_frame: MakeFrame) -> None:
    """Half the descriptions are ten times longer in both frames; a shift of the short half must not vanish."""
    reference, window = monitored_frame(2000, 0), monitored_frame(2000, 1)
    for frame in (reference, window):
        frame.loc[::2, "description_len"] *= 1000
    window.loc[1::2, "description_len"] *= 3
    assert drift_by_column(reference, window)["description_len"].drifted


@pytest.fixture(scope="module")
def reference(trained: Path) -> pd.DataFrame:
    return pd.read_parquet(trained / "reports" / "reference.parquet")


@pytest.fixture(scope="module")
def live(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> LiveTraffic:
    raw = tmp_path_factory.mktemp("fresh")
    write_catalogue(N_FRESH, 1, 8, raw)
    return LiveTraffic(PyfuncModel(ProductClassifier.load(trained / "models")), raw)


def test_windows_of_the_reference_raise_no_alarm(reference: pd.DataFrame) -> None:
    for seed in range(12):
        assert alarms_of(reference, reference.sample(1000, replace=True, random_state=seed), PARAMS) == []


@pytest.mark.parametrize(
    ("shift", "size", "column"),
    [
        (Shift.PRIOR, 0.6, "predicted"),
        (Shift.MISSING_IMAGES, 0.6, "has_image"),
        (Shift.NEW_CLASS, 0.6, "text_"),
        (Shift.LONGER_TITLES, 0.8, "designation_len"),
        (Shift.BLURRED_IMAGES, 8, "picture_"),
    ],
    ids=lambda value: value.name if isinstance(value, Shift) else None,
)
def test_a_planted_shift_is_found(
    reference: pd.DataFrame, live: LiveTraffic, shift: Shift, size: float, column: str
) -> None:
    alarms = alarms_of(reference, live.shifted(shift, size, 0)(1000, 1), PARAMS)
    assert any(column in alarm for alarm in alarms), alarms
