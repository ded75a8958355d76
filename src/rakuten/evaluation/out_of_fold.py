"""Out-of-fold results: what was predicted for each train row by a model that never saw its title."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from rakuten.disk_array import Array2D
from rakuten.evaluation.novelty_flag import is_novel
from rakuten.types import BoolArray, FloatArray, IntArray


@dataclass(frozen=True, eq=False)
class Baseline:
    """Predictions of something simpler that the fusion is compared with."""

    y_pred: IntArray  # class column of each row
    mask: BoolArray  # rows that it can judge


@dataclass(frozen=True, eq=False)
class OutOfFold:
    """Out-of-fold predictions of every train row. Classes are given by their column in `proba`."""

    classes: IntArray  # the prdtypecode of each column, ascending
    y: IntArray  # true class column of each row
    y_pred: IntArray  # most probable class column of each row
    confidence: FloatArray  # its probability
    proba: Array2D  # rows x classes
    evidence: FloatArray  # highest fused score of each row; NaN for one without any view
    # Set by training, see `models.novelty`: of each row, and of each product that no code fits.
    novelty: FloatArray = field(default_factory=lambda: np.empty(0))
    baselines: Mapping[str, Baseline] = field(default_factory=dict)
    none_novelty: FloatArray = field(default_factory=lambda: np.empty(0))

    @property
    def true_codes(self) -> IntArray:
        """The true prdtypecode of each row."""
        return self.classes[self.y]

    @property
    def predicted_codes(self) -> IntArray:
        """The predicted prdtypecode of each row."""
        return self.classes[self.y_pred]

    @property
    def correct(self) -> BoolArray:
        """For each row, whether the prediction is right."""
        correct: BoolArray = self.y == self.y_pred
        return correct

    def decided(self, threshold: float, false_alarms: float) -> BoolArray:
        """For each row, whether it needs no review.

        Args:
            threshold: least confidence that needs no review.
            false_alarms: see `novelty_flag.is_novel`.
        """
        decided: BoolArray = (self.confidence >= threshold) & ~is_novel(self.novelty, false_alarms)
        return decided
