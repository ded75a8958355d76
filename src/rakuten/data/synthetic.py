"""A synthetic catalogue in the challenge's format, for users without the challenge's data and for load tests.

Its vocabulary (synthetic_words.json) is made up. It imitates the real catalogue in: the shares of the 27 codes, how
often a description is missing in each, the languages, repeated titles, HTML, entities, wrong labels, 500 x 500 images
with white borders. Scores on it say nothing about real products.
"""

import csv
import html
import json
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from rakuten.cli import progress
from rakuten.compute import parallel_map
from rakuten.data.images import ImageFiles
from rakuten.data.schema import (
    CHALLENGE_NAMES,
    X_COLUMNS,
    X_TEST,
    X_TRAIN,
    Y_COLUMNS,
    Y_TRAIN,
    image_name,
    is_synthetic_image,
    synthetic_imageid,
)
from rakuten.data.synthetic_images import ImageJob, draw_file
from rakuten.data.tables import missing_hint
from rakuten.errors import UserError
from rakuten.files import atomic_write

LANGUAGES, LANGUAGE_SHARES = ("fr", "en", "de"), (0.80, 0.16, 0.04)
REPEATED_TITLE_SHARE = 0.031
REPEATED_DESCRIPTION_SHARE = 0.138
WRONG_LABEL_SHARE = 0.03
CHUNK_IMAGES = 256  # images drawn per task


class SyntheticProduct(NamedTuple):
    """One product. The first five fields are the columns of X_train.csv."""

    row_id: int
    designation: str
    description: str
    productid: int
    imageid: int
    prdtypecode: int  # the label in Y_train.csv, which may be wrong
    true_code: int  # the class that its texts and image are made for


@cache
def vocabulary() -> dict[str, Any]:
    """The words and sentences that texts are made of, and of each class: its number of rows in the challenge ("share"),
    its share of rows with a description ("described") and its family of similar classes."""
    text = Path(__file__).with_name("synthetic_words.json").read_text(encoding="utf-8")
    return dict(json.loads(text))


def proportional_codes(n_rows: int, seed: int) -> list[int]:
    """Codes of `n_rows` products in random order, in the challenge's proportions (largest remainder method)."""
    real_counts = {int(code): spec["share"] for code, spec in vocabulary()["classes"].items()}
    n_real_rows = sum(real_counts.values())
    quotas = {code: n_rows * count / n_real_rows for code, count in real_counts.items()}
    counts = {code: int(quota) for code, quota in quotas.items()}
    by_remainder = sorted(quotas, key=lambda code: (counts[code] - quotas[code], code))
    for code in by_remainder[: n_rows - sum(counts.values())]:
        counts[code] += 1
    codes = [code for code, count in counts.items() for _ in range(count)]
    random.Random(f"{seed}:codes:{n_rows}").shuffle(codes)
    return codes


def synthetic_products(
    codes: Sequence[int], start: int, seed: int, language_shares: Sequence[float] = LANGUAGE_SHARES
) -> Iterator[SyntheticProduct]:
    """Make one product for each code, with the indexes start, start + 1, ...

    A product depends only on its index, its code and the seed, except for a title or description that it repeats from
    the previous product of its class.
    """
    last_by_code: dict[int, SyntheticProduct] = {}
    for index, code in enumerate(codes, start=start):
        product = _synthetic_product(index, code, seed, language_shares)
        last = last_by_code.get(code)
        if last:
            rng = random.Random(f"{seed}:{index}:repeat")
            if rng.random() < REPEATED_TITLE_SHARE:
                product = product._replace(designation=last.designation)
            if product.description and last.description and rng.random() < REPEATED_DESCRIPTION_SHARE:
                product = product._replace(description=last.description)
        last_by_code[code] = product
        yield product


def _synthetic_product(index: int, code: int, seed: int, language_shares: Sequence[float]) -> SyntheticProduct:
    rng = random.Random(f"{seed}:{index}:text")
    spec = vocabulary()["classes"][str(code)]
    language = rng.choices(LANGUAGES, language_shares)[0]
    designation = _designation(rng, code, language)
    has_description = rng.random() < spec["described"]
    productid = _productid(index, seed)
    return SyntheticProduct(
        row_id=index,
        designation=designation,
        description=_description(rng, code, language, designation) if has_description else "",
        productid=productid,
        imageid=synthetic_imageid(productid),
        prdtypecode=_confusable_code(rng, code) if rng.random() < WRONG_LABEL_SHARE else code,
        true_code=code,
    )


def _productid(index: int, seed: int) -> int:
    return (seed * 104_729 + index * 7_919_003) % 899_999_963 + 1  # the modulus is prime, so ids are unique


def _confusable_code(rng: random.Random, code: int) -> int:
    """Another code, usually of the same family."""
    classes = vocabulary()["classes"]
    others = [int(other) for other in classes if int(other) != code]
    same_family = [other for other in others if classes[str(other)]["family"] == classes[str(code)]["family"]]
    return rng.choice(same_family if same_family and rng.random() < 0.7 else others)


def _designation(rng: random.Random, code: int, language: str) -> str:
    words = vocabulary()
    topic = code if rng.random() < 0.86 else _confusable_code(rng, code)  # some titles sound like another class
    details = words["families"][words["classes"][str(code)]["family"]]
    parts = [rng.choice(words["classes"][str(topic)][language])] if rng.random() < 0.9 else []
    parts += rng.sample(details, rng.randint(1, 4)) + rng.sample(words["shared"], rng.randint(0, 3))
    if rng.random() < 0.3:
        parts.append(f"{rng.choice('ABCDEFGHKLMRSTX')}{rng.randint(2, 999)}-{rng.randint(10, 99)}")  # a model number
    if rng.random() < 0.35:
        rng.shuffle(parts)
    title = " ".join(parts)
    if rng.random() < 0.6:
        title = title.title()
    damage = rng.random()
    if damage < 0.03:
        return html.escape(title.replace("'", "’" if damage < 0.01 else "'"))
    if damage < 0.04:
        return title.encode("utf-8").decode("latin-1")  # mojibake
    return title


def _description(rng: random.Random, code: int, language: str, title: str) -> str:
    words = vocabulary()
    templates = words["sentences"][language]
    sentences = [
        template.format(a=rng.randint(5, 300), b=rng.randint(5, 300))
        for template in rng.sample(templates, rng.randint(1, len(templates)))
    ]
    if rng.random() < 0.6:
        topic = code if rng.random() < 0.8 else _confusable_code(rng, code)
        sentences.insert(0, f"{rng.choice(words['classes'][str(topic)][language]).capitalize()}. {title}.")
    details = rng.sample(words["families"][words["classes"][str(code)]["family"]], rng.randint(1, 5))
    style = rng.random()
    if style < 0.35:
        items = "".join(f"<li>{html.escape(detail)}</li>" for detail in details)
        return f"<p>{html.escape(' '.join(sentences))}</p> <ul>{items}</ul>"
    if style < 0.6:
        body = "<br />".join([*sentences, *details])
        return f"<b>{title}</b><br />{body}".replace("é", "&eacute;").replace("'", "&#39;")
    return " ".join([*sentences, *details])


def write_catalogue(
    n_train: int,
    n_test: int,
    seed: int,
    folder: Path,
    language_shares: Sequence[float] = LANGUAGE_SHARES,
    images: bool = True,
) -> None:
    """Write X_train.csv, Y_train.csv, X_test.csv and images/ into a folder.

    The same arguments give the same bytes. Memory does not grow with the number of images. The tables are written
    last, so a folder with an X_train.csv is complete.

    Args:
        language_shares: probability of each of LANGUAGES.
        images: False for a catalogue without images.

    Raises:
        UserError: the folder already has a catalogue or other images.
    """
    check_free(folder)
    train_codes = proportional_codes(n_train, seed)
    test_codes = proportional_codes(n_test, seed + 1)
    if images:
        _write_images(folder / "images" / "image_train", train_codes, 0, seed)
        _write_images(folder / "images" / "image_test", test_codes, n_train, seed)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    x_header, y_header = ["", *X_COLUMNS[1:]], ["", *Y_COLUMNS[1:]]
    with (
        atomic_write(folder / X_TEST, folder / Y_TRAIN, folder / X_TRAIN) as (x_test, y_train, x_train),
        _csv_writer(x_test, x_header) as write_x_test,
        _csv_writer(y_train, y_header) as write_y_train,
        _csv_writer(x_train, x_header) as write_x_train,
    ):
        for product in synthetic_products(train_codes, 0, seed, language_shares):
            write_x_train(product[: len(X_COLUMNS)])
            write_y_train((product.row_id, product.prdtypecode))
        for product in synthetic_products(test_codes, n_train, seed, language_shares):
            write_x_test(product[: len(X_COLUMNS)])


@contextmanager
def _csv_writer(path: Path, header: Sequence[str]) -> Iterator[Callable[[Sequence[Any]], object]]:
    """Yield a function that appends a row to a new CSV file."""
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(header)
        yield writer.writerow


def check_free(folder: Path) -> None:
    """Raise UserError if writing a catalogue to a folder would overwrite or hide other data."""
    for name, published in CHALLENGE_NAMES.items():
        if (folder / f"{name}.dvc").exists():
            raise UserError(f"{folder / name} is under DVC but not here; fetch it with `dvc pull` (or `dvc checkout`)")
        if (folder / name).exists():
            raise UserError(f"{folder / name} already exists; choose another --out or move it away")
        if (folder / published).exists():
            raise UserError(f"{folder / name} is missing. {missing_hint(folder / name)}")
    for name in sorted(ImageFiles(folder / "images")):
        if not is_synthetic_image(name):
            raise UserError(f"{folder / 'images'}: {name} is not an image of the sample; choose another --out")


def check_complete(folder: Path) -> None:
    """Raise UserError if one of the raw files is missing, with what to do about it, which DVC's own error lacks."""
    for name in CHALLENGE_NAMES:
        if not (folder / name).is_file():
            raise UserError(f"{folder / name}: no such file. {missing_hint(folder / name)}")


def _write_images(folder: Path, codes: Sequence[int], start: int, seed: int) -> None:
    """Draw the images of the products with the indexes start, start + 1, ... into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    rank_by_code = {int(code): rank for rank, code in enumerate(vocabulary()["classes"])}

    def jobs() -> Iterator[ImageJob]:
        for index, code in enumerate(codes, start=start):
            productid = _productid(index, seed)
            name = image_name(synthetic_imageid(productid), productid)
            yield folder / name, rank_by_code[code], f"{seed}:{index}:picture"

    for _ in progress(parallel_map(draw_file, jobs(), CHUNK_IMAGES), len(codes), folder.name):
        pass
