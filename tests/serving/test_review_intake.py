"""What the API answers with needs_review, on its way into the review desk."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rakuten.errors import UserError
from rakuten.review.database import open_database
from rakuten.review.desk import ReviewDesk
from rakuten.serving import review_intake
from rakuten.serving.review_intake import Answered, ReviewIntake

Make = Callable[..., ReviewIntake]


@pytest.fixture
def desk(tmp_path: Path) -> ReviewDesk:
    return ReviewDesk(open_database(f"sqlite:///{tmp_path / 'review.db'}"), agreement=1)


@pytest.fixture
def dropped() -> list[int]:
    return []


@pytest.fixture
def make(desk: ReviewDesk, dropped: list[int], tmp_path: Path) -> Iterator[Make]:
    made: list[ReviewIntake] = []

    def intake(
        open_: Callable[[], ReviewDesk] = lambda: desk, max_bytes: int = 100, audit_share: float = 0
    ) -> ReviewIntake:
        made.append(ReviewIntake(open_, tmp_path / "pictures", max_bytes, audit_share, dropped.append))
        return made[-1]

    yield intake
    for each in made:
        each.stop()


def answered(title: str, **fields: Any) -> Answered:
    product = Answered(
        title, "", None, [[2583, 0.4], [10, 0.3]], needs_review=True, is_novel=False, model_version="abc",
        prediction_id=f"of {title}",
    )  # fmt: skip
    return product._replace(**fields)


def test_what_needs_review_goes_into_the_desk_with_text_and_picture(
    make: Make, desk: ReviewDesk, dropped: list[int]
) -> None:
    intake = make()
    sure = answered("Roman", needs_review=False)
    intake.offer([answered("Les piscines", description="<p>ronde</p>", picture=b"jpeg", is_novel=True), sure])
    intake.offer([answered("Les piscines", description="<p>ronde</p>", picture=b"jpeg", is_novel=True)])
    intake.stop()
    (found,) = desk.open_products()
    assert (found.source, found.designation, found.description) == ("api", "Les piscines", "<p>ronde</p>")
    assert (found.predicted, found.confidence, found.top) == (2583, 0.4, [[2583, 0.4], [10, 0.3]])
    assert (found.language, found.productid, found.model_version) == ("french", None, "abc")
    assert (found.prediction_id, found.is_novel, found.priority) == ("of Les piscines", True, 1.0)
    assert found.image is not None
    assert Path(found.image).name == hashlib.sha256(b"jpeg").hexdigest()
    assert Path(found.image).read_bytes() == b"jpeg"
    assert dropped == []


def test_pictures_take_no_more_room_than_they_may(make: Make, desk: ReviewDesk, tmp_path: Path) -> None:
    (tmp_path / "pictures" / "ab").mkdir(parents=True)
    (tmp_path / "pictures" / "ab" / "abc").write_bytes(b"x" * 40)  # of an earlier server
    intake = make(max_bytes=100)
    intake.offer([answered(f"Titre {letter}", picture=letter.encode() * 50) for letter in "ab"])
    intake.stop()
    stored = {product.designation: product.image for product in desk.open_products()}
    assert stored["Titre a"] is not None
    assert stored["Titre b"] is None


def test_what_does_not_fit_is_dropped_and_counted(
    make: Make, desk: ReviewDesk, dropped: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(review_intake, "MAX_WAITING", 3)
    make().offer([answered(f"Titre {number}") for number in range(5)])
    assert dropped == [2]


def test_a_database_that_fails_is_counted_and_warned_of_once(
    make: Make, dropped: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> ReviewDesk:
        raise UserError("no database")

    intake = make(open_=fail)
    for number in range(3):
        intake.offer([answered(f"Titre {number}")])
    intake.stop()
    assert sum(dropped) == 3
    assert caplog.text.count("no database") == 1


def test_nobody_can_tell_the_audit_sample_from_what_needs_review(make: Make, desk: ReviewDesk) -> None:
    intake = make(audit_share=0.5)
    for number in range(60):
        unsure = [[10, 0.3 + number / 1000], [40, 0.2]]
        intake.offer([answered(f"Titre numéro {number}", top=unsure)])
        sure = [[2583, 0.97], [40, 0.02], [10, 0.01]]
        intake.offer([answered(f"Autre titre {number}", top=sure, needs_review=False)])
    intake.stop()
    products = desk.open_products()
    sample = [product for product in products if product.is_audit]
    assert 30 < len(sample) < 60
    assert {product.confidence for product in sample} == {0.97}  # the true one stays in the database
    assert all(0.3 <= product.shown_confidence < 0.36 for product in products)
    assert all(product.shown_top[0] == [2583, product.shown_confidence] for product in sample)
    assert all(product.priority == pytest.approx(1 - product.shown_confidence + 0.2) for product in sample)
