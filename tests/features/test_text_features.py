"""The table of text features: one row per product, in order."""

import pandas as pd
import pytest

from rakuten.config import FeatureParams
from rakuten.features import text_features
from rakuten.features.text_features import (
    raw_text_features,
    text_feature_chunks,
    text_feature_table,
    texts_to_embed,
)

PARAMS = FeatureParams(lowercase=True, strip_accents=True, image_encoder="none", text_encoder="none")


def raw(titles: list[str]) -> pd.DataFrame:
    """Products with these titles as ingest writes them."""
    rows = {
        "productid": [str(number) for number in range(len(titles))],
        "imageid": "7",
        "designation": titles,
        "description": "<p>d&eacute;crit</p>",
        "has_image": "True",
    }
    return pd.DataFrame(rows)


def test_a_row_of_features() -> None:
    rows = raw(["Été"]).assign(prdtypecode="10")
    (row,) = text_feature_table(rows, PARAMS).to_dict("records")
    tokens = row.pop("style").split()
    assert {"title_accented", "tag_p", "capitalised5"} <= set(tokens)
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
    assert text_feature_table(rows.iloc[[4001]], PARAMS).equals(table.iloc[[4001]])


def test_no_rows_give_an_empty_table() -> None:
    assert text_feature_table(raw([]), PARAMS).empty
    assert "prdtypecode" not in text_feature_table(raw([]), PARAMS)


def test_a_text_that_is_missing_or_only_markup_is_empty() -> None:
    rows = raw(["<br/>&nbsp;"]).assign(description="", has_image="False")
    (row,) = text_feature_table(rows, PARAMS).to_dict("records")
    assert (row["designation_clean"], row["has_description"], row["has_image"]) == ("", 0, 0)


@pytest.mark.parametrize("chunk_rows", [1, 3, 100])
def test_each_chunk_has_its_own_rows(chunk_rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_features, "CHUNK_ROWS", chunk_rows)
    rows = raw([f"Titre {number}" for number in range(7)])
    chunks = list(text_feature_chunks([rows[:4], rows[4:4], rows[4:]], PARAMS))
    assert [len(chunk) for chunk in chunks] == [4, 0, 3]
    assert pd.concat(chunks)["designation_clean"].tolist() == [f"titre {number}" for number in range(7)]


def test_a_few_products_have_the_same_features_without_ids() -> None:
    rows = raw(["Été", "<b>Lampe</b> LED"])
    few = raw_text_features(list(zip(rows["designation"], rows["description"], strict=True)), [1, 1], PARAMS)
    pd.testing.assert_frame_equal(few, text_feature_table(rows, PARAMS).drop(columns=["productid", "imageid"]))
    assert raw_text_features([], [], PARAMS).columns.tolist() == few.columns.tolist()


def test_the_text_to_embed_is_title_and_description() -> None:
    table = pd.DataFrame({"designation_clean": ["a", "a", "", ""], "description_clean": ["b", "", "b", ""]})
    assert texts_to_embed(table) == ["a b", "a", "b", ""]
