"""The feature set: written by the features stage, read by training and prediction.

On disk a feature set is three files of one folder (`FeaturePaths`): a table of text features, an array of text
embeddings and an array of image embeddings. The train set has a fourth: the group of near-duplicates of each product.
The finetune stage adds the scores of fine-tuned networks. Row i of each belongs to product i. `FeatureSet` reads them
in chunks, so that they may be larger than memory; a `FeatureBatch` is some of the products in memory.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pandas as pd

from rakuten.data.tables import read_table_chunks
from rakuten.disk_array import CHUNK_ROWS, Array2D, DiskArray, row_chunks
from rakuten.errors import UserError
from rakuten.features.style import ENGLISH_NAME, FRENCH_NAME, GERMAN_NAME, UNKNOWN, title_language
from rakuten.types import (
    FINETUNED_IMAGE,
    FINETUNED_TEXT,
    FINETUNED_VIEWS,
    IMAGE,
    TEXT,
    BoolArray,
    EmbeddingArray,
    HashArray,
    IntArray,
)

TRAIN, TEST = "train", "test"  # the two feature sets of the pipeline
GROUPS_FILE = "train_groups.npy"  # see `near_duplicates.find_near_duplicates`
FINETUNED_FILES = {FINETUNED_TEXT: "finetuned_texts.npy", FINETUNED_IMAGE: "finetuned_images.npy"}
LENGTH_COLUMNS = ("designation_len", "description_len")
FLAG_COLUMNS = ("has_description", "has_image")
INTEGER_COLUMNS = (*LENGTH_COLUMNS, *FLAG_COLUMNS)
LABEL_COLUMN = "prdtypecode"
Array = TypeVar("Array")
LANGUAGE_DTYPE = pd.CategoricalDtype([ENGLISH_NAME, FRENCH_NAME, GERMAN_NAME, UNKNOWN])


class FeaturePaths(NamedTuple):
    """The files of one feature set."""

    table: Path
    text_embeddings: Path
    image_embeddings: Path

    @classmethod
    def of(cls, folder: Path, name: str) -> "FeaturePaths":
        """The files of the feature set `name` (TRAIN or TEST) in a folder, usually data/processed."""
        return cls(*(folder / f"{name}_{file}" for file in ("features.csv", "texts.npy", "images.npy")))


def finetuned_path(folder: Path, name: str, view: str) -> Path:
    """The file with the scores of a fine-tuned network for the feature set `name` in a folder."""
    return folder / f"{name}_{FINETUNED_FILES[view]}"


@dataclass(frozen=True, eq=False)
class FeatureBatch:
    """Features of some products in memory. Row i of each attribute belongs to product i.

    Attributes:
        table: text features; see `text_features.text_feature_chunks`.
        text_embeddings: rows x width, NaN for a product without text; None without a text encoder.
        image_embeddings: rows x width, NaN for a product without image; None without an image encoder.
        finetuned: scores of fine-tuned networks, by view: rows x classes, NaN for a product that lacks the view.
    """

    table: pd.DataFrame
    text_embeddings: EmbeddingArray | None = None
    image_embeddings: EmbeddingArray | None = None
    finetuned: Mapping[str, EmbeddingArray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, rows: slice) -> "FeatureBatch":
        """Consecutive products of the batch."""
        both = (self.text_embeddings, self.image_embeddings)
        text, image = (None if array is None else array[rows] for array in both)
        finetuned = {view: array[rows] for view, array in self.finetuned.items()}
        return FeatureBatch(self.table[rows], text, image, finetuned)

    def has_text(self) -> BoolArray:
        """For each product, whether its title or its description has a word."""
        return _has_text(self.table)

    def embeddings(self, view: str) -> EmbeddingArray | None:
        """The embeddings of the view TEXT or IMAGE, or the scores of a fine-tuned one."""
        return {TEXT: self.text_embeddings, IMAGE: self.image_embeddings, **self.finetuned}.get(view)


class FeatureSet:
    """Features of any number of products, on disk or in memory.

    One that is on disk can be pickled; another process then reads the same files.

    Attributes:
        text_embeddings: rows x width; None without a text encoder.
        image_embeddings: rows x width; None without an image encoder.
        finetuned: scores of fine-tuned networks, by view: rows x classes.
    """

    def __init__(
        self,
        read_table: Callable[[int], Iterable[pd.DataFrame]],
        text_embeddings: Array2D | None = None,
        image_embeddings: Array2D | None = None,
        finetuned: Mapping[str, Array2D] | None = None,
        read_groups: Callable[[], HashArray] | None = None,
    ) -> None:
        """
        Args:
            read_table: called with a number of rows, reads the table from its beginning in chunks of so many rows. The
                index of the chunks is the row number in the table.
            text_embeddings: rows x width; None without a text encoder.
            image_embeddings: rows x width; None without an image encoder.
            finetuned: scores of fine-tuned networks, by view: rows x classes.
            read_groups: reads the group of each product; None: products with the same title are a group.
        """
        self._read_table = read_table
        self.text_embeddings = text_embeddings
        self.image_embeddings = image_embeddings
        self.finetuned = dict(finetuned or {})
        self._read_groups = read_groups

    @classmethod
    def open(cls, folder: Path, name: str) -> "FeatureSet":
        """The feature set `name` (TRAIN or TEST) that the stages features and finetune wrote into a folder.

        Raises:
            UserError: an array of the features stage is missing, or any array is damaged. A missing table is found when
                it is first read; different numbers of rows are found by `metadata` and `n_rows`.
        """
        paths = FeaturePaths.of(folder, name)
        integers = (*INTEGER_COLUMNS, LABEL_COLUMN) if name == TRAIN else INTEGER_COLUMNS
        read_table = partial(_read_table, paths.table, integers)
        finetuned = {view: finetuned_path(folder, name, view) for view in FINETUNED_VIEWS}
        scores = {view: open_embeddings(path) for view, path in finetuned.items() if path.is_file()}
        return cls(
            read_table,
            open_embeddings(paths.text_embeddings),
            open_embeddings(paths.image_embeddings),
            {view: array for view, array in scores.items() if array is not None},
            partial(_read_groups, folder / GROUPS_FILE) if name == TRAIN else None,
        )

    @classmethod
    def from_batch(cls, batch: FeatureBatch) -> "FeatureSet":
        """The feature set of products that are in memory."""
        return cls(partial(_split_table, batch.table), batch.text_embeddings, batch.image_embeddings, batch.finetuned)

    @cached_property
    def metadata(self) -> pd.DataFrame:
        """A small table of all products, in memory.

        Columns: productid, imageid, prdtypecode (train only), LENGTH_COLUMNS, FLAG_COLUMNS, has_text, title_hash (see
        `title_hashes`), language (of the title, see `style.title_language`) and group: the lowest title_hash of the
        products that are nearly the same, which must not be split over folds.

        Raises:
            UserError: the groups are missing, or the embeddings or groups have another number of rows than the table.
        """
        metadata = pd.concat(map(_metadata, self.table_chunks()), ignore_index=True)
        self._check_rows(len(metadata))
        group = self._read_groups() if self._read_groups else metadata["title_hash"]
        if len(group) != len(metadata):
            raise UserError(f"{GROUPS_FILE}: {len(group):,} rows for a table of {len(metadata):,}; run `dvc repro`")
        return metadata.assign(group=group)

    @cached_property
    def n_rows(self) -> int:
        """The number of products. Raises as `metadata`."""
        if "metadata" in self.__dict__:
            return len(self.metadata)
        n_rows = sum(map(len, self.table_chunks()))
        self._check_rows(n_rows)
        return n_rows

    def _check_rows(self, n_rows: int) -> None:
        for array in (self.text_embeddings, self.image_embeddings, *self.finetuned.values()):
            if array is not None and len(array) != n_rows:
                name = array.path if isinstance(array, DiskArray) else "embeddings"
                raise UserError(f"{name}: {len(array):,} rows for a table of {n_rows:,}; run `dvc repro`")

    def y(self) -> IntArray:
        """The prdtypecode of each product."""
        y: IntArray = self.metadata[LABEL_COLUMN].to_numpy(dtype=np.int64)
        return y

    def has_text(self) -> BoolArray:
        """For each product, whether its title or its description has a word."""
        mask: BoolArray = self.metadata["has_text"].to_numpy()
        return mask

    def embeddings(self, view: str) -> Array2D | None:
        """The embeddings of the view TEXT or IMAGE, or the scores of a fine-tuned one; None without the view."""
        return {TEXT: self.text_embeddings, IMAGE: self.image_embeddings, **self.finetuned}.get(view)

    def table_chunks(self, size: int | None = None) -> Iterator[pd.DataFrame]:
        """The table in order, `size` rows at a time; the index is the row number in the whole table."""
        return iter(self._read_table(size or CHUNK_ROWS))

    def batch(self, table: pd.DataFrame) -> FeatureBatch:
        """Products together with their embeddings.

        Args:
            table: rows of chunks of the table, with their index.
        """
        rows = table.index.to_numpy()
        both = (self.text_embeddings, self.image_embeddings)
        text, image = (None if array is None else array[rows] for array in both)
        return FeatureBatch(table, text, image, {view: scores[rows] for view, scores in self.finetuned.items()})

    def take(self, rows: IntArray) -> FeatureBatch:
        """The products with these row numbers, each once, in the order of the table."""
        return self.batch(self.take_table(rows))

    def take_table(self, rows: IntArray, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """As `take`, without embeddings.

        Args:
            columns: None for all.
        """
        mask = np.zeros(self.n_rows, dtype=bool)
        mask[rows] = True
        selected = (chunk[mask[chunk.index]] for chunk in self.table_chunks())
        return pd.concat(chunk if columns is None else chunk[list(columns)] for chunk in selected)


def open_embeddings(path: Path) -> DiskArray | None:
    """The embeddings in a file of a feature set; None if it was written without an encoder.

    Raises:
        UserError: the file is missing or damaged.
    """
    array = _open_array(path, DiskArray)
    return array if array.shape[1] else None


def _open_array(path: Path, read: Callable[[Path], Array]) -> Array:
    try:
        return read(path)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; run `dvc repro`, which makes it") from error
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path}: not what the features stage wrote ({error}); run `dvc repro`") from error


def _read_groups(path: Path) -> HashArray:
    return _open_array(path, partial(np.load, allow_pickle=False))


def title_hashes(table: pd.DataFrame) -> HashArray:
    """A 64-bit hash of each product's title; without a title, of its description; without both, of its ids.

    Args:
        table: columns designation_clean, description_clean, productid, imageid.
    """
    title = table["designation_clean"].str.casefold()
    text = title.where(title != "", "\n" + table["description_clean"].str.casefold())
    ids = table["productid"].astype("str") + "," + table["imageid"].astype("str")
    hashed: HashArray = pd.util.hash_array(
        text.where(text != "\n", "\n\n" + ids).to_numpy(dtype=object), categorize=False
    )
    return hashed


def _read_table(path: Path, integers: tuple[str, ...], size: int) -> Iterator[pd.DataFrame]:
    return read_table_chunks(path, integers, size)


def _split_table(table: pd.DataFrame, size: int) -> Iterator[pd.DataFrame]:
    numbered = table.reset_index(drop=True)
    return (numbered[rows] for rows in row_chunks(len(table), size)) if len(table) else iter([numbered])


def _has_text(table: pd.DataFrame) -> BoolArray:
    mask: BoolArray = ((table["designation_clean"] != "") | (table["description_clean"] != "")).to_numpy()
    return mask


def _metadata(chunk: pd.DataFrame) -> pd.DataFrame:
    small_dtypes = dict.fromkeys(LENGTH_COLUMNS, "int32") | dict.fromkeys(FLAG_COLUMNS, "int8")
    ids = ["productid", "imageid", *([LABEL_COLUMN] if LABEL_COLUMN in chunk else [])]
    languages: Any = pd.Series([title_language(style) for style in chunk["style"]], chunk.index, dtype=LANGUAGE_DTYPE)
    return (
        chunk[ids].astype("int64")
        .join(chunk[[*LENGTH_COLUMNS, *FLAG_COLUMNS]].astype(small_dtypes))
        .assign(has_text=_has_text(chunk), title_hash=title_hashes(chunk), language=languages)
    )  # fmt: skip
