"""A review desk on a database in a file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rakuten.data.taxonomy import Names, Taxonomy
from rakuten.review import desk as desk_module
from rakuten.review.database import open_database
from rakuten.review.desk import ReviewDesk

MakeProduct = Callable[..., dict[str, Any]]
# Two codes, and 30, which was merged into 10.
MERGED = Taxonomy(
    names={10: Names('livres "d\'occasion" & <neufs>', "books"), 30: Names("vieux", "old"), 40: Names("jeux", "games")},
    parents={},
    parent_of={},
    merged_into={30: 10},
)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'review.db'}"


@pytest.fixture
def desk(url: str) -> ReviewDesk:
    return ReviewDesk(open_database(url), agreement=1)


@pytest.fixture
def merging_desk(url: str, monkeypatch: pytest.MonkeyPatch) -> ReviewDesk:
    """The desk, opened after the merger of MERGED."""
    monkeypatch.setattr(desk_module, "current_taxonomy", lambda: MERGED)
    return ReviewDesk(open_database(url), agreement=1)


@pytest.fixture
def product() -> MakeProduct:
    """A product as `ReviewDesk.add` takes it, with other values for some columns."""

    def make(key: str = "1_2", **columns: Any) -> dict[str, Any]:
        imageid, productid = map(int, key.split("_"))
        return {
            "source": "file", "key": key, "productid": productid, "imageid": imageid, "designation": f"Titre {key}",
            "description": "", "image": None, "language": "french", "prdtypecode": None, "predicted": 10,
            "confidence": 0.4, "top": [[10, 0.4], [2280, 0.3]], "model_version": "abc", "is_audit": False, "group": "",
            "priority": 0.5, **columns,
        }  # fmt: skip

    return make
