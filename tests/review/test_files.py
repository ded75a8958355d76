"""Files that the review desk writes for the pipeline."""

from pathlib import Path

import pandas as pd
import pytest

from rakuten.data.images import ImageFiles
from rakuten.data.schema import image_name
from rakuten.review import files
from rakuten.review.desk import NewDecision, ReviewDesk
from rakuten.review.tables import Answer
from tests.review.conftest import MakeProduct


def test_the_pictures_of_live_products_are_copied_to_where_ingest_finds_them(
    desk: ReviewDesk, product: MakeProduct, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "PICTURES", tmp_path / "images" / "image_review")
    (tmp_path / "abc").write_bytes(b"a picture")
    live = {"source": "api", "productid": None, "imageid": None, "image": str(tmp_path / "abc")}
    desk.add([product("1_1", **live), product("2_2", **live), product("3_3", image=str(tmp_path / "abc"))])
    for product_id, answer in ((1, Answer.CODE), (2, Answer.NO_CODE), (3, Answer.CODE)):
        desk.decide(NewDecision("ann", product_id, answer, 40 if answer == Answer.CODE else None))
    for _ in range(2):  # the second time there is nothing to copy
        assert files.export_corrections(desk, tmp_path / "corrections.csv") == 3
        (picture,) = (tmp_path / "images").rglob("*.jpg")
        (tmp_path / "abc").unlink(missing_ok=True)
    ids = pd.read_csv(tmp_path / "corrections.csv")[["imageid", "productid"]].iloc[0]
    assert picture.name == image_name(*map(str, ids))
    assert ImageFiles(tmp_path / "images")[picture.name].read_bytes() == b"a picture"
