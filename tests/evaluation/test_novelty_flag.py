import numpy as np
import pytest

from rakuten.evaluation.novelty_flag import flagged_share, is_novel


def test_a_novelty_at_the_limit_is_flagged_and_an_unknown_one_is_not() -> None:
    novelty = np.array([0.989999, 0.99, 0.999, np.nan])
    assert is_novel(novelty, 0.01).tolist() == [False, True, True, False]
    assert not is_novel(novelty, 0.0).any()


def test_the_interval_is_that_of_a_binomial_share() -> None:
    found = flagged_share(np.arange(100) < 2)
    assert (found["rows"], found["share"]) == (100, 0.02)
    assert found["interval"] == pytest.approx([0.0024, 0.0704], abs=1e-4)
    assert flagged_share(np.zeros(100, dtype=bool))["interval"] == pytest.approx([0, 0.0362], abs=1e-4)
    assert flagged_share(np.ones(3, dtype=bool))["interval"][1] == 1
    assert flagged_share(np.zeros(0, dtype=bool)) == {"rows": 0, "share": None, "interval": [0.0, 1.0]}
