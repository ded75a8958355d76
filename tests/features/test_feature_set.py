"""The feature set: its rows line up on disk and in memory, and files that do not belong together are refused."""

import pickle
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rakuten.data.tables import table_writer
from rakuten.disk_array import DiskArray
from rakuten.errors import UserError
from rakuten.features.feature_set import (
    GROUPS_FILE,
    LABEL_COLUMN,
    TEST,
    TRAIN,
    FeatureBatch,
    FeaturePaths,
    FeatureSet,
    finetuned_path,
    open_embeddings,
    title_hashes,
)
from rakuten.types import FINETUNED_TEXT, IMAGE, TEXT
from tests.support.features import feature_table

N_ROWS = 23
TITLES = [f"Le produit {number}" if number % 5 else "" for number in range(N_ROWS)]
DESCRIPTIONS = ["une description" if number % 2 else "" for number in range(N_ROWS)]


@pytest.fixture(scope="module")
def batch() -> FeatureBatch:
    """23 products. All embeddings and scores of product i consist of the number i; every tenth product has neither text
    nor text embedding nor scores of a fine-tuned network, every third has no image."""
    codes = [10 * (number % 4) for number in range(N_ROWS)]
    table = feature_table(TITLES, DESCRIPTIONS, has_image=1).assign(prdtypecode=codes)
    text_embeddings = np.repeat(np.arange(N_ROWS, dtype=np.float16)[:, None], 4, axis=1)
    image_embeddings = np.repeat(np.arange(N_ROWS, dtype=np.float16)[:, None], 2, axis=1)
    text_embeddings[::10] = np.nan
    image_embeddings[::3] = np.nan
    finetuned = text_embeddings[:, :3].astype(np.float32)
    return FeatureBatch(table, text_embeddings, image_embeddings, {FINETUNED_TEXT: finetuned})


def write(batch: FeatureBatch, folder: Path, name: str) -> None:
    """Write a feature set as the stages features and finetune do."""
    paths = FeaturePaths.of(folder, name)
    with table_writer(paths.table) as write_chunk:
        write_chunk(batch.table if name == TRAIN else batch.table.drop(columns=LABEL_COLUMN))
    for array, path in (
        (batch.text_embeddings, paths.text_embeddings),
        (batch.image_embeddings, paths.image_embeddings),
    ):
        np.save(path, np.empty((len(batch), 0), dtype="<f2") if array is None else array)
    scores = batch.finetuned.get(FINETUNED_TEXT, np.empty((0, 0), dtype=np.float32))
    np.save(finetuned_path(folder, name, FINETUNED_TEXT), scores)
    if name == TRAIN:
        np.save(folder / GROUPS_FILE, title_hashes(batch.table))


@pytest.fixture(scope="module")
def folder(batch: FeatureBatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the feature sets train and test. Read only."""
    folder = tmp_path_factory.mktemp("processed")
    write(batch, folder, TRAIN)
    write(batch, folder, TEST)
    return folder


@pytest.fixture(params=["on disk", "in memory"])
def features(request: pytest.FixtureRequest, batch: FeatureBatch, folder: Path) -> FeatureSet:
    """The same train feature set in both ways."""
    return FeatureSet.open(folder, TRAIN) if request.param == "on disk" else FeatureSet.from_batch(batch)


def product_numbers(batch: FeatureBatch) -> list[int]:
    """The number of each product; asserts that its table row and its embeddings belong to it."""
    assert batch.text_embeddings is not None and batch.image_embeddings is not None
    numbers = [int(number) for number in batch.table["productid"]]
    arrays = (batch.text_embeddings, batch.image_embeddings, batch.finetuned[FINETUNED_TEXT])
    for number, text, image, scores in zip(numbers, *arrays, strict=True):
        assert np.isnan(scores).all() if number % 10 == 0 else (scores == number).all()
        assert np.isnan(text).all() if number % 10 == 0 else (text == number).all()
        assert np.isnan(image).all() if number % 3 == 0 else (image == number).all()
    return numbers


def test_the_files_are_named_after_the_set() -> None:
    assert FeaturePaths.of(Path("folder"), TEST) == (
        Path("folder/test_features.csv"),
        Path("folder/test_texts.npy"),
        Path("folder/test_images.npy"),
    )


@pytest.mark.parametrize("size", [1, 7, 23, 100])
def test_chunks_of_the_table_are_in_order(features: FeatureSet, size: int) -> None:
    chunks = list(features.table_chunks(size))
    assert [len(chunk) for chunk in chunks[:-1]] == [size] * (len(chunks) - 1)
    table = pd.concat(chunks)
    assert table.index.tolist() == list(range(N_ROWS))
    assert table["productid"].tolist() == [str(number) for number in range(N_ROWS)]
    assert table["designation_clean"].tolist() == [title.lower() for title in TITLES]


def test_embeddings_line_up_with_each_chunk(features: FeatureSet) -> None:
    batches = [features.batch(chunk) for chunk in features.table_chunks(7)]
    assert [len(batch) for batch in batches] == [7, 7, 7, 2]
    assert sum(map(product_numbers, batches), []) == list(range(N_ROWS))


def test_embeddings_line_up_with_filtered_rows_of_a_chunk(features: FeatureSet) -> None:
    second = list(features.table_chunks(7))[1]
    assert product_numbers(features.batch(second[second["designation_clean"] != ""])) == [7, 8, 9, 11, 12, 13]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [([5], [5]), ([2, 9, 20], [2, 9, 20]), ([20, 2, 9], [2, 9, 20]), ([4, 4], [4]), ([], [])],
)
def test_taken_products_are_in_the_order_of_the_table(
    features: FeatureSet, rows: list[int], expected: list[int]
) -> None:
    batch = features.take(np.array(rows, dtype=np.int64))
    assert product_numbers(batch) == expected
    assert batch.table.index.tolist() == expected


def test_some_columns_can_be_taken_alone(features: FeatureSet) -> None:
    table = features.take_table(np.array([3, 1]), ["productid", "style"])
    assert table.columns.tolist() == ["productid", "style"]
    assert table["productid"].tolist() == ["1", "3"]


def test_the_metadata_is_of_every_row(features: FeatureSet, batch: FeatureBatch) -> None:
    metadata = features.metadata
    assert metadata["productid"].tolist() == list(range(N_ROWS))
    assert metadata["prdtypecode"].tolist() == features.y().tolist() == [10 * (number % 4) for number in range(N_ROWS)]
    assert metadata["designation_len"].tolist() == [len(title) for title in TITLES]
    assert metadata["has_description"].tolist() == [number % 2 for number in range(N_ROWS)]
    assert metadata["language"].tolist() == ["french" if title else "unknown" for title in TITLES]
    assert metadata["group"].tolist() == title_hashes(batch.table).tolist()
    assert features.has_text().tolist() == metadata["has_text"].tolist() == batch.has_text().tolist()
    assert batch.has_text().tolist() == [number % 10 != 0 for number in range(N_ROWS)]


def test_disk_and_memory_give_the_same_metadata(folder: Path, batch: FeatureBatch) -> None:
    on_disk, in_memory = FeatureSet.open(folder, TRAIN).metadata, FeatureSet.from_batch(batch).metadata
    pd.testing.assert_frame_equal(on_disk, in_memory)


def test_a_batch_may_have_any_index(batch: FeatureBatch) -> None:
    shuffled = FeatureBatch(
        batch.table.set_index(batch.table.index[::-1]), batch.text_embeddings, batch.image_embeddings, batch.finetuned
    )
    assert product_numbers(FeatureSet.from_batch(shuffled).take(np.array([4, 8]))) == [4, 8]


def test_a_batch_can_be_sliced(batch: FeatureBatch) -> None:
    assert product_numbers(batch[slice(5, 9)]) == [5, 6, 7, 8]
    assert len(batch[slice(20, 30)]) == 3


def test_embeddings_are_found_by_view(batch: FeatureBatch) -> None:
    features = FeatureSet.from_batch(batch)
    for owner in (batch, features):
        assert owner.embeddings(TEXT) is batch.text_embeddings
        assert owner.embeddings(IMAGE) is batch.image_embeddings


def test_a_set_without_encoders_has_no_embeddings(batch: FeatureBatch, tmp_path: Path) -> None:
    write(FeatureBatch(batch.table), tmp_path, TRAIN)
    features = FeatureSet.open(tmp_path, TRAIN)
    assert features.text_embeddings is None and features.image_embeddings is None
    taken = features.take(np.array([1, 2]))
    assert taken.text_embeddings is None and taken.image_embeddings is None
    assert taken[slice(0, 1)].embeddings(IMAGE) is None


def test_the_test_set_has_no_labels(folder: Path) -> None:
    assert "prdtypecode" not in FeatureSet.open(folder, TEST).metadata
    assert FeatureSet.open(folder, TEST).n_rows == N_ROWS


def test_a_set_without_rows_can_be_read(batch: FeatureBatch, tmp_path: Path) -> None:
    empty = batch[slice(0, 0)]
    write(empty, tmp_path, TRAIN)
    for features in (FeatureSet.open(tmp_path, TRAIN), FeatureSet.from_batch(empty)):
        assert features.n_rows == len(features.metadata) == 0
        assert [len(chunk) for chunk in features.table_chunks()] == [0]


def test_embeddings_stay_on_disk(folder: Path) -> None:
    features = FeatureSet.open(folder, TRAIN)
    assert isinstance(features.text_embeddings, DiskArray) and isinstance(features.image_embeddings, DiskArray)


def test_a_set_on_disk_can_be_pickled(folder: Path) -> None:
    copy = pickle.loads(pickle.dumps(FeatureSet.open(folder, TRAIN)))
    assert product_numbers(copy.take(np.array([3, 11]))) == [3, 11]


@pytest.mark.parametrize("file", ["train_texts.npy", "train_images.npy"])
@pytest.mark.parametrize("attribute", ["metadata", "n_rows"])
def test_embeddings_of_another_number_of_rows_are_refused(
    folder: Path, tmp_path: Path, file: str, attribute: str
) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    np.save(tmp_path / file, np.load(tmp_path / file)[:-1])
    features = FeatureSet.open(tmp_path, TRAIN)
    with pytest.raises(UserError, match=f"{file}: 22 rows for a table of 23; run `dvc repro`"):
        getattr(features, attribute)


def test_embeddings_in_memory_of_another_number_of_rows_are_refused(batch: FeatureBatch) -> None:
    assert batch.text_embeddings is not None
    with pytest.raises(UserError, match="embeddings: 20 rows for a table of 23"):
        FeatureSet.from_batch(FeatureBatch(batch.table, batch.text_embeddings[:20])).take(np.array([1]))


@pytest.mark.parametrize("file", ["train_features.csv", "train_texts.npy", "train_images.npy"])
def test_a_missing_file_is_an_error_for_the_user(folder: Path, tmp_path: Path, file: str) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / file).unlink()
    with pytest.raises(UserError, match=f"{file}: no such file; run `dvc repro`, which makes it"):
        _ = FeatureSet.open(tmp_path, TRAIN).metadata


@pytest.mark.parametrize("content", [b"", b"no array", b"\x93NUMPY\x01\x00v\x00{'descr': '<f2'"])
def test_damaged_embeddings_are_an_error_for_the_user(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "texts.npy").write_bytes(content)
    with pytest.raises(UserError, match="not what the features stage wrote .*; run `dvc repro`"):
        open_embeddings(tmp_path / "texts.npy")


def test_embeddings_cut_short_are_an_error_for_the_user(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "texts.npy").write_bytes((folder / "train_texts.npy").read_bytes()[:-10])
    with pytest.raises(UserError, match="not what the features stage wrote"):
        open_embeddings(tmp_path / "texts.npy")


def test_a_label_that_is_no_number_is_an_error_for_the_user(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "train_features.csv"
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    table.loc[3, "prdtypecode"] = "livre"
    table.to_csv(path, index=False)
    with pytest.raises(UserError, match=r"train_features\.csv"):
        FeatureSet.open(tmp_path, TRAIN).y()


def groups(*products: tuple[str, str]) -> list[int]:
    """The groups of products with these cleaned titles and descriptions, numbered by first occurrence."""
    table = pd.DataFrame(products, columns=["designation_clean", "description_clean"])
    ids = [str(number) for number in range(len(table))]
    hashes = title_hashes(table.assign(productid=ids, imageid=ids))
    return [int(number) for number in pd.factorize(hashes)[0]]


def test_products_of_one_title_are_one_group() -> None:
    assert groups(("a", "x"), ("a", "y"), ("b", "x"), ("A", "")) == [0, 0, 1, 0]


def test_products_without_title_are_grouped_by_description() -> None:
    assert groups(("", "x"), ("", "X"), ("", "y"), ("x", "")) == [0, 0, 1, 2]


def test_products_without_text_are_groups_of_their_own() -> None:
    assert groups(("", ""), ("", ""), ("a", "")) == [0, 1, 2]
