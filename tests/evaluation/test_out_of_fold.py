import numpy as np

from rakuten.evaluation.out_of_fold import OutOfFold


def test_codes_and_right_rows_are_given_by_the_class_columns() -> None:
    classes, y, y_pred = np.array([10, 40, 2583]), np.array([2, 0, 1]), np.array([2, 1, 1])
    out_of_fold = OutOfFold(classes, y, y_pred, np.full(3, 0.5), np.full((3, 3), 0.5), np.zeros(3), np.zeros(3))
    assert out_of_fold.true_codes.tolist() == [2583, 10, 40]
    assert out_of_fold.predicted_codes.tolist() == [2583, 40, 40]
    assert out_of_fold.correct.tolist() == [True, False, True]
    assert out_of_fold.baselines == {}
