"""What people decided at the review desk is kept out of the comparison of two models, with its near-duplicates."""

import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rakuten.data.corrections import CORRECTIONS_FILE, Corrections
from rakuten.data.tables import write_table
from rakuten.features.feature_set import GROUPS_FILE, TRAIN, FeaturePaths, title_hashes
from rakuten.files import digest
from rakuten.promotion.decided_products import decided_products, without
from rakuten.tracking import lineage, trace
from rakuten.tracking.registry import Version
from tests.support.features import feature_table

CHALLENGER = Version("2", "run 2", 0, None, False)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The challenger's features of products 0 to 4, and corrections of 1 and of 9, which was taken out."""
    processed = tmp_path / "processed"
    processed.mkdir()
    (tmp_path / "interim").mkdir()
    paths = FeaturePaths.of(processed, TRAIN)
    table = feature_table(["jeu a", "piscine b", "Piscine B", "jeu a", "lampe"])
    write_table(table.assign(prdtypecode=10), paths.table)
    for path in (paths.text_embeddings, paths.image_embeddings):
        np.save(path, np.empty((5, 0), dtype=np.float16))
    np.save(processed / GROUPS_FILE, title_hashes(table))
    corrections = Corrections(
        pd.DataFrame(
            {
                "productid": ["1", "9"], "imageid": ["1", "9"], "old_prdtypecode": "40", "prdtypecode": ["10", ""],
                "decisions": ["1", "2"], "decided_at": "", "designation": "", "description": "",
            }
        )
    )  # fmt: skip
    rows = pd.DataFrame({"index": ["0", "1", "9"], "productid": ["0", "1", "9"], "imageid": ["0", "1", "9"]})
    corrections.apply(rows.assign(prdtypecode="40", designation="Jeu", description=""))
    write_table(corrections.outcome_table(), tmp_path / "interim" / CORRECTIONS_FILE)
    inputs = {lineage.repo_relative(path): digest(path, "md5") for path in paths}
    monkeypatch.setattr(trace, "inputs_of_run", {CHALLENGER.run_id: inputs}.get)
    return tmp_path


def ids(products: pd.DataFrame) -> list[tuple[int, int]]:
    return list(products[["productid", "imageid"]].astype("int64").itertuples(index=False, name=None))


def test_corrected_products_and_their_near_duplicates_are_decided(data: Path) -> None:
    assert ids(decided_products(CHALLENGER, data)) == [(1, 1), (2, 2)]  # 2 has the title of 1


def test_without_the_challengers_features_the_corrected_products_alone_are(data: Path) -> None:
    FeaturePaths.of(data / "processed", TRAIN).text_embeddings.unlink()
    assert ids(decided_products(CHALLENGER, data)) == [(1, 1), (9, 9)]


def test_where_nothing_was_corrected_nothing_is_decided(data: Path) -> None:
    write_table(Corrections(pd.DataFrame()).outcome_table(), data / "interim" / CORRECTIONS_FILE)
    assert decided_products(CHALLENGER, data).empty


def test_a_missing_file_is_said(data: Path, caplog: pytest.LogCaptureFixture) -> None:
    (data / "interim" / CORRECTIONS_FILE).unlink()
    with caplog.at_level(logging.INFO):
        assert decided_products(CHALLENGER, data).empty
    assert "corrections.csv is not here: products that people decided cannot be left out" in caplog.text


def test_products_are_told_apart_by_both_ids() -> None:
    predictions = pd.DataFrame({"productid": ["1", "1", "2"], "imageid": ["5", "6", "5"], "predicted": [10, 40, 50]})
    decided = pd.DataFrame({"productid": [1], "imageid": [6]})
    assert without(predictions, decided)["predicted"].tolist() == [10, 50]
    assert without(predictions, decided[:0])["predicted"].tolist() == [10, 40, 50]
