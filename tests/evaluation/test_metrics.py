import numpy as np
import pytest
from sklearn.metrics import f1_score

from rakuten.evaluation.metrics import classification_scores, confusion_table, per_class_scores, per_class_table


def test_scores_agree_with_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    y_true = rng.choice([10, 40, 50], 500, p=[0.7, 0.2, 0.1])
    y_pred = np.where(rng.random(500) < 0.7, y_true, rng.choice([10, 40], 500))
    scores = classification_scores(y_true, y_pred)
    assert scores["weighted_f1"] == pytest.approx(f1_score(y_true, y_pred, average="weighted"))
    assert scores["macro_f1"] == pytest.approx(f1_score(y_true, y_pred, average="macro"))
    assert scores["accuracy"] == pytest.approx(np.mean(y_true == y_pred))


def test_a_predicted_code_that_no_row_has_is_no_class_of_the_mean() -> None:
    scores = classification_scores(np.array([1, 1, 2]), np.array([1, 1, 3]))
    assert scores["macro_f1"] == pytest.approx((1 + 0) / 2)
    assert scores["weighted_f1"] == pytest.approx(2 / 3)


def test_per_class_scores_have_every_true_code_in_order() -> None:
    table = per_class_scores(np.array([2, 1, 1]), np.array([3, 1, 3]))
    assert table["prdtypecode"].tolist() == [1, 2]
    assert table["precision"].tolist() == [1, 0]
    assert table["recall"].tolist() == [0.5, 0]
    assert table["f1"].tolist() == pytest.approx([2 / 3, 0])
    assert table["support"].tolist() == [2, 1]


def test_the_table_of_the_classes_has_their_names_and_intervals() -> None:
    scores = per_class_scores(np.array([10, 2583]), np.array([10, 10]))
    table = per_class_table(scores, {"2583": (0.1, 0.3), "10": [0.5, 0.9]})
    assert table[["prdtypecode", "label", "f1_low", "f1_high"]].to_numpy().tolist() == [
        [10, "livres d'occasion", 0.5, 0.9],
        [2583, "piscine et spa", 0.1, 0.3],
    ]


def test_the_confusion_table_has_the_same_codes_in_rows_and_columns() -> None:
    table = confusion_table(np.array([2583, 10, 10, 10]), np.array([10, 10, 40, 10]))
    assert table.to_dict("list") == {"prdtypecode": [10, 40, 2583], "10": [2, 0, 1], "40": [1, 0, 0], "2583": [0] * 3}
