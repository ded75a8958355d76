"""A prediction log as an API would have written it."""

import time
from pathlib import Path
from threading import Barrier

import pandas as pd

from rakuten.monitoring.prediction_log import COLUMNS, NOVEL_COLUMN, append_rows


def log_window(log_folder: Path, window: pd.DataFrame, model_version: str, first: int = 0) -> list[str]:
    """Log the predictions of a frame with MONITORED_COLUMNS; returns their ids, numbered from `first`.

    Whether the products are novel is not known without the column `is_novel`.
    """
    ids = [f"p{number}" for number in range(first, first + len(window))]
    frame = window.assign(time=time.time(), model_version=model_version, designation=None, description=None)
    if NOVEL_COLUMN not in frame:
        frame[NOVEL_COLUMN] = None
    rows = frame.assign(prediction_id=ids)[list(COLUMNS)].astype(object)
    append_rows(log_folder / "2026-01-01.sqlite", list(rows.where(rows.notna(), None).itertuples(index=False)))
    return ids


def append_each_day(folder: Path, n_days: int, barrier: Barrier) -> None:
    """Append a row to the file of each day, at the same moment as the other processes of the barrier."""
    row = tuple((dict.fromkeys(COLUMNS, 0) | {"model_version": "one", "language": "french"}).values())
    for day in range(1, n_days + 1):
        barrier.wait(60)
        append_rows(folder / f"2026-01-{day:02}.sqlite", [row])
