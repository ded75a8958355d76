"""Stage ingest: validate the challenge's files, join titles and labels, and report on the data's quality."""

import logging
import sys
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the library of this tree, whichever is installed

import rakuten.interrupts  # noqa: F401 - for its effect, before the others
from rakuten.cli import run_stage
from rakuten.config import CORRECTIONS, INTERIM, RAW, REPORTS, Params
from rakuten.data.corrections import ADDED, REMOVED, REPLACED, Corrections
from rakuten.data.images import ImageFiles, check_image_names, check_images
from rakuten.data.ingestion import InterimPaths, make_dataset
from rakuten.data.raw_files import RawFiles
from rakuten.data.schema import X_TEST, X_TRAIN, normalise_ids
from rakuten.data.tables import read_raw_chunks
from rakuten.data.taxonomy import current_taxonomy
from rakuten.errors import UserError
from rakuten.files import atomic_write, dump_json

log = logging.getLogger(__name__)


def ingest(params: Params, raw: Path, corrections: Path, interim: Path, reports: Path) -> str:
    """Validate the raw files, join titles and labels, apply corrections, and report on the data's quality."""
    raw_files = RawFiles.open(raw)
    corrected, taxonomy = Corrections.read(corrections), current_taxonomy()
    images = check_images(find_images(raw))
    with atomic_write(*InterimPaths.of(interim), reports / "data_quality.json") as (*tables, report):
        quality, examples = make_dataset(raw_files, corrected, images, params.data, taxonomy, InterimPaths(*tables))
        quality["pictures"] |= {"unusable": images.count_errors(), "unusual": dict(sorted(images.unusual.items()))}
        log_warnings(quality, examples)
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
        is_applied = outcome in (REPLACED, REMOVED, ADDED)
        log.log(logging.INFO if is_applied else logging.WARNING, "%s corrections: %s", f"{count:,}", outcome)
    for reason, count in quality["train"]["rejected"].items():
        log.warning("%s train rows rejected: %s, %s (see rejected.csv)", f"{count:,}", reason, examples[reason])
    for code, count in quality["train"]["small_classes"].items():
        log.warning("class %s has only %s rows", code, count)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage with the given command line."""
    paths = {"raw": RAW, "corrections": CORRECTIONS, "interim": INTERIM, "reports": REPORTS}
    return run_stage("ingest", ingest, paths, argv)


if __name__ == "__main__":
    sys.exit(main())
