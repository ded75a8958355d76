"""Which parent of the taxonomy a product belongs to, where the model is unsure of its code but sure of the parent.

The probability of a parent is the sum over its codes. The threshold is learnt like that of the codes, from out-of-fold
probabilities: of the products that need review, those at or above it have the right parent with the target precision.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rakuten.disk_array import row_chunks
from rakuten.evaluation.calibration import NO_THRESHOLD, threshold_at_precision
from rakuten.evaluation.out_of_fold import OutOfFold
from rakuten.types import BoolArray, FloatArray, IntArray


@dataclass(frozen=True)
class ParentFallback:
    """The parents of a model's codes as they were when it was trained, and when one is shown."""

    parent_of: Mapping[int, str] = field(default_factory=dict)  # code -> key; codes without a parent are not there
    threshold: float = NO_THRESHOLD  # probability from which a product whose code is unsure is given a parent

    def predict(self, classes: IntArray, proba: FloatArray, is_unsure: BoolArray) -> list[str]:
        """The key of each product's parent; "" where the code is sure, or no parent is probable enough.

        Args:
            classes: the code of each column of `proba`.
            proba: rows x classes, to six digits.
            is_unsure: for each row, whether it needs review because the model is unsure of its code.
        """
        if not self.parent_of:
            return [""] * len(proba)
        keys, parent, probability = self.most_probable(classes, proba)
        is_shown = is_unsure & (probability >= self.threshold)
        return [keys[column] if shown else "" for column, shown in zip(parent, is_shown, strict=True)]

    def most_probable(self, classes: IntArray, proba: FloatArray) -> tuple[list[str], IntArray, FloatArray]:
        """The keys of all parents; and of each row the position of the most probable one, and its probability."""
        keys, parent_of_class = self._parents_of(classes)
        sums = proba @ (parent_of_class[:, None] == np.arange(len(keys)))
        # Rounded, as the codes' probabilities are, so that the last bit of a sum decides nothing.
        return keys, sums.argmax(axis=1), sums.max(axis=1).round(6)

    def has_parent(self, classes: IntArray, y: IntArray, parent: IntArray) -> BoolArray:
        """Whether each row's true class (a column) has the parent at this position of `most_probable`'s keys."""
        correct: BoolArray = self._parents_of(classes)[1][y] == parent
        return correct

    def _parents_of(self, classes: IntArray) -> tuple[list[str], IntArray]:
        """The keys of all parents, and the position of each class's; -1 for a class without one."""
        keys = sorted(set(self.parent_of.values()))
        positions = [keys.index(self.parent_of[code]) if code in self.parent_of else -1 for code in classes.tolist()]
        return keys, np.array(positions, dtype=np.int64)

    def to_stored(self) -> dict[str, Any]:
        """What the model's manifest holds."""
        return {"threshold": self.threshold, "of": {str(code): key for code, key in self.parent_of.items()}}

    @classmethod
    def from_stored(cls, stored: Mapping[str, Any], classes: Sequence[int]) -> "ParentFallback":
        """Read what `to_stored` gave.

        Raises:
            KeyError, TypeError, ValueError: it is none, or does not belong to a model with these classes.
        """
        parent_of = {int(code): str(key) for code, key in stored["of"].items()}
        threshold = float(stored["threshold"])
        if not 0 <= threshold <= NO_THRESHOLD or not set(parent_of) <= set(classes):
            raise ValueError("the parents' threshold is out of range, or a code of theirs is no class")
        return cls(parent_of, threshold)


def fit_parents(
    out_of_fold: OutOfFold, is_unsure: BoolArray, target: float, parent_of: Mapping[int, str]
) -> tuple[ParentFallback, dict[str, float]]:
    """Learn from which probability on a parent is shown.

    Args:
        is_unsure: for each row, whether it needs review because the model is unsure of its code.
        target: the share of right parents among those shown.
        parent_of: code -> key of its parent, in the taxonomy.

    Returns:
        The fallback; and its scores, as models/scores.json holds them: threshold, coverage (share of the products that
        the model is unsure of that get a parent) and precision (share of those that is right).
    """
    classes = out_of_fold.classes
    unfitted = ParentFallback({code: parent_of[code] for code in classes.tolist() if code in parent_of})
    if not unfitted.parent_of:
        return unfitted, {"threshold": NO_THRESHOLD, "coverage": 0.0, "precision": 1.0}
    parts = [
        unfitted.most_probable(classes, np.asarray(out_of_fold.proba[chunk]).round(6))[1:]
        for chunk in row_chunks(len(out_of_fold.y))
    ]
    parent, probability = (np.concatenate(values) for values in zip(*parts, strict=True))
    correct = unfitted.has_parent(classes, out_of_fold.y, parent)
    fitted = ParentFallback(
        unfitted.parent_of, threshold_at_precision(probability[is_unsure], correct[is_unsure], target)
    )
    is_shown = is_unsure & (probability >= fitted.threshold)
    return fitted, {
        "threshold": fitted.threshold,
        "coverage": float(is_shown.sum() / max(int(is_unsure.sum()), 1)),
        "precision": float(correct[is_shown].mean()) if is_shown.any() else 1.0,
    }
