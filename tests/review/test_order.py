import numpy as np

from rakuten.review.order import review_priority


def test_a_near_duplicate_comes_after_the_first_of_every_other_group() -> None:
    uncertainty = np.array([0.9, 0.8, 0.1, 0.7, 0.2])
    group = np.array([7, 7, 0, 7, 0], dtype=np.uint64)
    order = np.argsort(-review_priority(uncertainty, group))
    assert order.tolist() == [0, 4, 2, 1, 3]
    assert np.allclose(review_priority(uncertainty, group), [0.9, 0.8 - 1, 0.1, 0.7 - 2, 0.2])


def test_an_empty_queue_has_no_order() -> None:
    assert len(review_priority(np.array([]), np.array([], dtype=np.uint64))) == 0
