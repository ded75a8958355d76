"""A synthetic catalogue in the challenge's format, for those without the gated files and for load.

The words are ours. What follows the real catalogue: the 27 codes' proportions, how often a
description is missing in each, the languages, repeated titles, HTML, entities, wrong labels,
500x500 pictures with white borders. Scores on it say nothing about real products.
"""

import csv
import html
import json
import logging
import random
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from rakuten.cli import progress
from rakuten.compute import parallel_map
from rakuten.data.images import ImageFiles
from rakuten.data.schema import CHALLENGE_NAMES, image_name, is_synthetic_image, synthetic_imageid
from rakuten.data.synthetic_images import ImageJob, draw_file
from rakuten.data.tables import missing_hint
from rakuten.errors import UserError
from rakuten.files import atomic_write

log = logging.getLogger(__name__)

LANGUAGES, LANGUAGE_SHARES = ("fr", "en", "de"), (0.80, 0.16, 0.04)
REPEATED_TITLE = 0.031
REPEATED_DESCRIPTION = 0.138
WRONG_LABEL = 0.03
CHUNK_IMAGES = 256  # pictures drawn per task


class SyntheticProduct(NamedTuple):
    """One row of the catalogue; `prdtypecode` is the label given, `true_code` what it is."""

    row: int
    designation: str
    description: str
    productid: int
    imageid: int
    prdtypecode: int
    true_code: int


@cache
def _words() -> dict[str, Any]:
    text = Path(__file__).with_name("synthetic_words.json").read_text(encoding="utf-8")
    return dict(json.loads(text))


def balanced_codes(rows: int, seed: int) -> list[int]:
    """True codes of `rows` products, in the real proportions (largest remainder), shuffled."""
    shares = {int(code): spec["share"] for code, spec in _words()["classes"].items()}
    whole = sum(shares.values())
    exact = {code: rows * share / whole for code, share in shares.items()}
    counts = {code: int(value) for code, value in exact.items()}
    by_remainder = sorted(exact, key=lambda code: (counts[code] - exact[code], code))
    for code in by_remainder[: rows - sum(counts.values())]:
        counts[code] += 1
    codes = [code for code, count in counts.items() for _ in range(count)]
    random.Random(f"{seed}:codes:{rows}").shuffle(codes)
    return codes


def synthetic_products(
    codes: Sequence[int], first: int, seed: int, languages: Sequence[float] = LANGUAGE_SHARES
) -> Iterator[SyntheticProduct]:
    """The products at indexes first, first + 1, ...; each depends on its index and the seed alone,
    but for the title or description that it may repeat from the one before in its class."""
    before: dict[int, SyntheticProduct] = {}
    for index, code in enumerate(codes, start=first):
        product = _synthetic_product(index, code, seed, languages)
        earlier = before.get(code)
        if earlier:
            rng = random.Random(f"{seed}:{index}:repeat")
            if rng.random() < REPEATED_TITLE:
                product = product._replace(designation=earlier.designation)
            if product.description and earlier.description and rng.random() < REPEATED_DESCRIPTION:
                product = product._replace(description=earlier.description)
        before[code] = product
        yield product


def _synthetic_product(index: int, code: int, seed: int, languages: Sequence[float]) -> SyntheticProduct:
    rng = random.Random(f"{seed}:{index}:text")
    spec = _words()["classes"][str(code)]
    language = rng.choices(LANGUAGES, languages)[0]
    designation = _designation(rng, code, language)
    described = rng.random() < spec["described"]
    productid = _productid(index, seed)
    return SyntheticProduct(
        row=index,
        designation=designation,
        description=_description(rng, spec, code, language, designation) if described else "",
        productid=productid,
        imageid=synthetic_imageid(productid),
        prdtypecode=_confusable_code(rng, code) if rng.random() < WRONG_LABEL else code,
        true_code=code,
    )


def _productid(index: int, seed: int) -> int:
    return (seed * 104_729 + index * 7_919_003) % 899_999_963 + 1  # a prime: no id comes twice


def _confusable_code(rng: random.Random, code: int) -> int:
    """Another code, of the same family more often than not."""
    classes = _words()["classes"]
    others = [int(other) for other in classes if int(other) != code]
    family = [other for other in others if classes[str(other)]["family"] == classes[str(code)]["family"]]
    return rng.choice(family if family and rng.random() < 0.7 else others)


def _designation(rng: random.Random, code: int, language: str) -> str:
    words = _words()
    about = code if rng.random() < 0.86 else _confusable_code(rng, code)
    spec = words["classes"][str(about)]
    details = words["families"][words["classes"][str(code)]["family"]]
    parts = [rng.choice(spec[language])] if rng.random() < 0.9 else []
    parts += rng.sample(details, rng.randint(1, 4)) + rng.sample(words["shared"], rng.randint(0, 3))
    if rng.random() < 0.3:
        parts.append(f"{rng.choice('ABCDEFGHKLMRSTX')}{rng.randint(2, 999)}-{rng.randint(10, 99)}")
    if rng.random() < 0.35:
        rng.shuffle(parts)
    title = " ".join(parts)
    if rng.random() < 0.6:
        title = title.title()
    kind = rng.random()
    if kind < 0.03:
        return html.escape(title.replace("'", "’" if kind < 0.01 else "'"))
    if kind < 0.04:
        return title.encode("utf-8").decode("latin-1")  # mojibake, as real sellers have it
    return title


def _description(rng: random.Random, spec: dict[str, Any], code: int, language: str, title: str) -> str:
    words = _words()
    pool = words["sentences"][language]
    sentences = [
        text.format(a=rng.randint(5, 300), b=rng.randint(5, 300))
        for text in rng.sample(pool, rng.randint(1, len(pool)))
    ]
    if rng.random() < 0.6:
        about = code if rng.random() < 0.8 else _confusable_code(rng, code)
        sentences.insert(0, f"{rng.choice(words['classes'][str(about)][language]).capitalize()}. {title}.")
    details = rng.sample(words["families"][spec["family"]], rng.randint(1, 5))
    style = rng.random()
    if style < 0.35:
        items = "".join(f"<li>{html.escape(detail)}</li>" for detail in details)
        return f"<p>{html.escape(' '.join(sentences))}</p> <ul>{items}</ul>"
    if style < 0.6:
        body = "<br />".join([*sentences, *details])
        return f"<b>{title}</b><br />{body}".replace("é", "&eacute;").replace("'", "&#39;")
    return " ".join([*sentences, *details])


def write_catalogue(
    rows: int,
    test_rows: int,
    seed: int,
    out: Path,
    languages: Sequence[float] = LANGUAGE_SHARES,
    images: bool = True,
) -> None:
    """Write X_train.csv, Y_train.csv, X_test.csv and images/ under `out`, with these shares of LANGUAGES.

    The same arguments give the same bytes. Memory does not grow with the pictures. The tables
    come last, so a folder with an X_train.csv is whole.

    Raises:
        UserError: `out` already holds a catalogue, or could be mistaken for one.
    """
    check_free(out)
    train = balanced_codes(rows, seed)
    test = balanced_codes(test_rows, seed + 1)
    for name, codes, first in (("image_train", train, 0), ("image_test", test, rows)) if images else ():
        _write_images(out / "images" / name, codes, first, seed)
    (out / "images").mkdir(parents=True, exist_ok=True)
    header = ["", "designation", "description", "productid", "imageid"]
    targets = [out / name for name in ("X_test.csv", "Y_train.csv", "X_train.csv")]
    with (
        atomic_write(*targets) as (x_test, y_train, x_train),
        x_test.open("w", encoding="utf-8", newline="") as test_file,
        y_train.open("w", encoding="utf-8", newline="") as label_file,
        x_train.open("w", encoding="utf-8", newline="") as train_file,
    ):
        labels, texts, tests = (csv.writer(file, lineterminator="\n") for file in (label_file, train_file, test_file))
        texts.writerow(header)
        tests.writerow(header)
        labels.writerow(["", "prdtypecode"])
        for product in synthetic_products(train, 0, seed, languages):
            texts.writerow(product[:5])
            labels.writerow([product.row, product.prdtypecode])
        tests.writerows(product[:5] for product in synthetic_products(test, rows, seed, languages))


def check_free(out: Path) -> None:
    """Raise UserError if writing to `out` would touch or shadow somebody's data."""
    for name, published in CHALLENGE_NAMES.items():
        if (out / f"{name}.dvc").exists():
            raise UserError(f"{out / name} is under DVC but not here: `dvc pull` (or `dvc checkout`) brings it")
        if (out / name).exists():
            raise UserError(f"{out / name} is already there; choose another --out or move it away")
        if (out / published).exists():
            raise UserError(f"{out / name} is missing. {missing_hint(out / name)}")
    for name in sorted(ImageFiles(out / "images")):
        if not is_synthetic_image(name):
            raise UserError(f"{out / 'images'} has a picture that is not the sample's ({name}); choose another --out")


def check_complete(out: Path) -> None:
    """Raise UserError if a catalogue lacks one of its files: DVC itself would only name the file."""
    for name in CHALLENGE_NAMES:
        if not (out / name).is_file():
            raise UserError(f"{out / name}: no such file. {missing_hint(out / name)}")


def _write_images(folder: Path, codes: Sequence[int], first: int, seed: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    ranks = {int(code): rank for rank, code in enumerate(_words()["classes"])}

    def jobs() -> Iterator[ImageJob]:
        for index, code in enumerate(codes, start=first):
            productid = _productid(index, seed)
            name = image_name(synthetic_imageid(productid), productid)
            yield folder / name, ranks[code], f"{seed}:{index}:picture"

    for _ in progress(parallel_map(draw_file, jobs(), CHUNK_IMAGES), len(codes), folder.name):
        pass
