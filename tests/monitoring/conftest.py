"""Frames of monitored columns, drawn at random: no model is needed."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from rakuten.features.monitored_columns import ALL_PROJECTIONS, with_dtypes

MakeFrame = Callable[..., pd.DataFrame]


@pytest.fixture(scope="session")
def monitored_frame() -> MakeFrame:
    """`monitored_frame(n_rows, seed)`: MONITORED_COLUMNS and prdtypecode of products from one distribution."""

    def make(n_rows: int, seed: int) -> pd.DataFrame:
        rng = np.random.default_rng(seed)
        confidence = rng.beta(5, 2, n_rows)
        codes = rng.choice([10, 2583, 2705], n_rows, p=[0.2, 0.5, 0.3])
        frame = pd.DataFrame(
            {
                "designation_len": rng.poisson(60, n_rows),
                "description_len": rng.poisson(300, n_rows),
                "confidence": confidence,
                "has_description": rng.random(n_rows) < 0.7,
                "has_image": rng.random(n_rows) < 0.9,
                "needs_review": confidence < 0.5,
                "language": rng.choice(["french", "english"], n_rows, p=[0.8, 0.2]),
                "predicted": codes,
                "prdtypecode": codes,
            }
        )
        return with_dtypes(frame.assign(**{name: rng.standard_normal(n_rows) for name in ALL_PROJECTIONS}))

    return make
