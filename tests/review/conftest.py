"""A review desk on a database in a file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rakuten.review.database import open_database
from rakuten.review.desk import ReviewDesk

MakeProduct = Callable[..., dict[str, Any]]


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'review.db'}"


@pytest.fixture
def desk(url: str) -> ReviewDesk:
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
