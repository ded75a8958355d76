import pandas as pd

from rakuten.config import FeatureParams
from rakuten.features import text_features
from rakuten.features.text_features import text_feature_table

PARAMS = FeatureParams(lowercase=True, strip_accents=True, image_encoder="none", text_encoder="none")


def raw(titles: list[str]) -> pd.DataFrame:
    rows = {
        "productid": [str(n) for n in range(len(titles))],
        "imageid": "7",
        "designation": titles,
        "description": "<p>d&eacute;crit</p>",
        "has_image": "True",
    }
    return pd.DataFrame(rows)


def test_a_row_of_features() -> None:
    rows = raw(["Été"]).assign(prdtypecode="10")
    (row,) = text_feature_table(rows, PARAMS).to_dict("records")
    traits = row.pop("style").split()
    assert {"title_accented", "tag_p", "capitalised5"} <= set(traits)
    assert row == {
        "productid": "0", "imageid": "7", "designation_clean": "ete", "description_clean": "decrit",
        "designation_len": 3, "description_len": 6, "has_description": 1, "has_image": 1, "prdtypecode": "10",
    }  # fmt: skip


def test_order_and_count_are_kept_over_workers() -> None:
    rows = raw([f"Titre <b>{number}</b>" for number in range(2 * text_features.CHUNK_ROWS + 7)])
    rows.index = rows.index[::-1]
    table = text_feature_table(rows, PARAMS)
    assert table["designation_clean"].tolist() == [f"titre {number}" for number in range(len(rows))]
    assert table.index.equals(rows.index)
    one = text_feature_table(rows.iloc[[4001]], PARAMS)
    assert one.equals(table.iloc[[4001]])


def test_no_rows_no_features() -> None:
    assert text_feature_table(raw([]), PARAMS).empty
    assert "prdtypecode" not in text_feature_table(raw([]), PARAMS)


def test_a_field_that_is_missing_or_markup_alone_is_empty() -> None:
    rows = raw(["<br/>&nbsp;"]).assign(description="", has_image="False")
    (row,) = text_feature_table(rows, PARAMS).to_dict("records")
    assert (row["designation_clean"], row["has_description"], row["has_image"]) == ("", 0, 0)
