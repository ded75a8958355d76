"""Stage ingest: validate the challenge's files, join titles and labels, and report on the data's quality."""

import logging
import sys
from collections.abc import Collection, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the library of this tree, whichever is installed

import rakuten.interrupts  # noqa: F401 - for its effect, before the others
from rakuten.cli import run_stage
from rakuten.config import CORRECTIONS, INTERIM, RAW, REPORTS, Params
from rakuten.data.corrections import APPLIED, Corrections
from rakuten.data.images import ImageFiles, check_image_names, check_images
from rakuten.data.ingestion import InterimPaths, make_dataset
from rakuten.data.raw_files import RawFiles
from rakuten.data.schema import X_TEST, X_TRAIN, normalise_ids
from rakuten.data.tables import read_raw_chunks
from rakuten.data.taxonomy import Taxonomy, current_taxonomy
from rakuten.errors import UserError
from rakuten.files import atomic_write, dump_json

log = logging.getLogger(__name__)


def ingest(params: Params, raw: Path, corrections: Path, interim: Path, reports: Path) -> str:
    """Validate the raw files, join titles and labels, apply corrections, and report on the data's quality."""
    raw_files = RawFiles.open(raw)
    taxonomy, keeps_any_code = current_taxonomy(), params.data.unknown_labels == "keep"
    corrected = Corrections.read(corrections, taxonomy, 1 if keeps_any_code else params.review.new_code_rows)
    images = check_images(find_images(raw))
    with atomic_write(*InterimPaths.of(interim), reports / "data_quality.json") as (*tables, report):
        quality, examples = make_dataset(raw_files, corrected, images, params.data, taxonomy, InterimPaths(*tables))
        quality["pictures"] |= {"unusable": images.count_errors(), "unusual": dict(sorted(images.unusual.items()))}
        log_warnings(quality, examples)
        log_codes(quality, taxonomy, corrected.new_codes, params.review.new_code_rows)
        dump_json(quality, report)
    train, test = quality["train"], quality["test"]
    return (
        f"{train['rows_in']:,} train rows read, {train['rows_out']:,} kept, {train['rows_rejected']:,} rejected; "
        f"{test['rows_out']:,} test rows kept"
    )


def find_images(raw: Path) -> ImageFiles:
    """The image files below the raw data.

    Raises:
        UserError: DVC would not see all of them, or none is the image of a product.
    """
    files = ImageFiles(raw / "images")
    if files.linked_folders:
        link = files.linked_folders[0]
        raise UserError(
            f"{link}: DVC does not follow links to folders below {files.folder}, so it would not see new images; "
            f"make {files.folder} itself the link, or link each file: rm {link} && cp -rs {link.resolve()} {link}"
        )
    chunks = chain.from_iterable(read_raw_chunks(raw / name, ("productid", "imageid")) for name in (X_TRAIN, X_TEST))
    check_image_names(files, map(normalise_ids, chunks), f"empty {files.folder} to use only the texts")
    return files


def log_warnings(quality: Mapping[str, Any], examples: Mapping[str, str]) -> None:
    """Log the findings of `make_dataset` that may spoil a training."""
    if quality["synthetic"]:
        log.warning("this is the synthetic sample catalogue: its scores say nothing about real products")
    if not quality["pictures"]["files"]:
        log.warning("no file under images/: every product is used without an image")
    elif missing := quality["train"]["missing_picture"] + quality["test"]["missing_picture"]:
        log.warning("%s products have no image file; only their texts are used", f"{missing:,}")
    for reason, count in quality["pictures"]["unusable"].items():
        log.warning(
            "%s image files cannot be used (%s); only the texts of their products are used", f"{count:,}", reason
        )
    for outcome, count in quality["corrections"].items():
        log.log(logging.INFO if outcome in APPLIED else logging.WARNING, "%s corrections: %s", f"{count:,}", outcome)
    for reason, count in quality["train"]["rejected"].items():
        log.warning("%s train rows rejected: %s, %s (see rejected.csv)", f"{count:,}", reason, examples[reason])
    for code, count in quality["train"]["small_classes"].items():
        log.warning("class %s has only %s rows", code, count)


def log_codes(quality: Mapping[str, Any], taxonomy: Taxonomy, new_codes: Collection[int], new_code_rows: int) -> None:
    """Log which merged codes were followed, and what became of codes that were proposed at the review desk."""
    for name, counts in quality["merged_codes"].items():
        for code, count in counts.items():
            log.info("%s labels (%s) of code %s, merged into %s", f"{count:,}", name, code, taxonomy.follow(code))
    for code, count in quality["proposed_codes"].items():
        if int(code) in new_codes:
            log.info("the proposed code %s is a class: %s products; data/taxonomy.csv can name it", code, f"{count:,}")
        else:
            log.info(
                "the proposed code %s has %s products; from %s on it is a class (review.new_code_rows in params.yaml)",
                code, f"{count:,}", f"{new_code_rows:,}",
            )  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage with the given command line."""
    paths = {"raw": RAW, "corrections": CORRECTIONS, "interim": INTERIM, "reports": REPORTS}
    return run_stage("ingest", ingest, paths, argv)


if __name__ == "__main__":
    sys.exit(main())
