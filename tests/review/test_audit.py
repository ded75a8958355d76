import numpy as np
import pytest

from rakuten.review.audit import Top, mixed_confidences, shown_tops, uncertainty_of


def test_the_sample_is_shown_with_confidences_like_those_of_the_others() -> None:
    unsure: list[Top] = [[[10, 0.4], [40, 0.3]], [[50, 0.5], [60, 0.1]]]
    sure: Top = [[2583, 0.98], [2705, 0.01], [10, 0.001]]
    shown = shown_tops([*unsure, sure], np.array([False, False, True]), seed=1)
    assert shown[:2] == unsure
    assert [code for code, _ in shown[2]] == [2583, 2705]
    assert 0.4 <= shown[2][0][1] <= 0.5
    assert shown_tops([sure], np.array([True]), seed=1) == [sure]  # there is nothing to be like


def test_the_mean_of_two_is_shown() -> None:
    shown = mixed_confidences([[1, 0.9], [2, 0.1]], [[3, 0.4], [4, 0.2]], [[5, 0.5]])
    assert shown == [[1, 0.45]]


@pytest.mark.parametrize(("top", "expected"), [([[1, 0.5], [2, 0.4]], 0.9), ([[1, 0.5]], 0.5)])
def test_uncertainty_is_the_closeness_of_the_two_likeliest(top: Top, expected: float) -> None:
    assert uncertainty_of(top) == pytest.approx(expected)
