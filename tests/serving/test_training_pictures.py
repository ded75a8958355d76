"""Pictures of training products: only those that the model knows, only JPEG files below the folder of images."""

import asyncio
from pathlib import Path

import numpy as np
import pytest

from rakuten.models.neighbours import ImageNeighbours
from rakuten.serving.problems import Problem
from rakuten.serving.training_pictures import MAX_BYTES, TrainingPictures
from tests.support.api import Api, check_problem, get, jpeg

IMAGEID, PRODUCTID = 21, 11
NAME = f"image_{IMAGEID}_product_{PRODUCTID}.jpg"


@pytest.fixture
def neighbours() -> ImageNeighbours:
    ids = [np.array([number, number + 1]) for number in (PRODUCTID, IMAGEID, 10)]
    return ImageNeighbours(np.zeros((3, 2), np.float32), np.zeros(3, np.float32), np.zeros((2, 2), np.float16), *ids)


def read(folder: Path, neighbours: ImageNeighbours | None, imageid: int = IMAGEID, productid: int = PRODUCTID) -> bytes:
    return asyncio.run(TrainingPictures(folder).read(neighbours, imageid, productid))


@pytest.mark.parametrize("below", ["image_train", "."])
def test_a_picture_that_the_model_knows_is_read(tmp_path: Path, neighbours: ImageNeighbours, below: str) -> None:
    (tmp_path / below).mkdir(exist_ok=True)
    path = tmp_path / below / NAME
    path.write_bytes(jpeg())
    assert read(tmp_path, neighbours) == path.read_bytes()
    assert TrainingPictures(tmp_path).find(IMAGEID, PRODUCTID) == path


def test_a_picture_that_the_model_does_not_know_is_not_read(tmp_path: Path, neighbours: ImageNeighbours) -> None:
    for name in (NAME, f"image_{IMAGEID}_product_99.jpg", f"image_{IMAGEID}_product_{PRODUCTID + 1}.jpg"):
        (tmp_path / name).write_bytes(jpeg())
    with pytest.raises(Problem, match="no such training picture"):
        read(tmp_path, neighbours, productid=99)
    with pytest.raises(Problem):  # both numbers are known, but of two products
        read(tmp_path, neighbours, productid=PRODUCTID + 1)
    with pytest.raises(Problem):
        read(tmp_path, None)


@pytest.mark.parametrize("content", [b"root:x:0:0", b"", b"\xff\xd8\xff" + bytes(MAX_BYTES)])
def test_a_file_that_is_no_picture_or_too_large_is_not_read(
    tmp_path: Path, neighbours: ImageNeighbours, content: bytes
) -> None:
    (tmp_path / NAME).write_bytes(content)
    with pytest.raises(Problem):
        read(tmp_path, neighbours)


def test_a_folder_that_is_not_there_has_no_pictures(tmp_path: Path, neighbours: ImageNeighbours) -> None:
    assert TrainingPictures(tmp_path / "nothing").find(IMAGEID, PRODUCTID) is None
    with pytest.raises(Problem):
        read(tmp_path / "nothing", neighbours)


def test_the_api_serves_the_pictures_that_it_names(api: Api, trained: Path) -> None:
    path = min((trained / "data" / "raw" / "images" / "image_train").glob("*.jpg"))
    imageid, productid = path.stem.split("_")[1::2]
    answer = get(f"{api.url}/training-pictures/{imageid}/{productid}")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/jpeg")
    assert answer.headers["cache-control"] == "private, max-age=86400"
    assert answer.content == path.read_bytes()
    check_problem(get(f"{api.url}/training-pictures/{productid}/{imageid}"), 404, "not_found")
    check_problem(get(f"{api.url}/training-pictures/-1/{productid}"), 422, "invalid_request")
    check_problem(get(f"{api.url}/training-pictures/..%2f..%2fX_train.csv/1"), 404, "not_found")
    check_problem(get(f"{api.url}/training-pictures/{10**18}/{productid}"), 422, "invalid_request")
