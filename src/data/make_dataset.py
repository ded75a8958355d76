"""Stage ingest: the challenge's files, checked and joined, in memory that grows by a few numbers a row."""

import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the library of this tree, whichever is installed

from rakuten.cli import run_stage
from rakuten.config import INTERIM, RAW, REPORTS, Params
from rakuten.data.images import ImageFiles, check_images
from rakuten.data.ingestion import make_dataset
from rakuten.data.raw_files import RawFiles
from rakuten.files import atomic_write, dump_json

log = logging.getLogger(__name__)

TABLES = ("merged_train.csv", "merged_test.csv", "rejected.csv")


def ingest(params: Params, raw: Path, interim: Path, reports: Path) -> str:
    """Check the raw files, join titles and labels, and report on the data's quality."""
    raw_files = RawFiles.open(raw)
    images = check_images(ImageFiles(raw / "images"))
    with atomic_write(*(interim / name for name in TABLES), reports / "data_quality.json") as (*tables, report):
        quality = make_dataset(raw_files, images, params.data, tables)
        quality["pictures"] |= {"unusable": images.errors(), "unusual": dict(sorted(images.unusual.items()))}
        warn_of_quality(quality)
        dump_json(quality, report)
    train, test = quality["train"], quality["test"]
    return (
        f"{train['rows_in']:,} train rows read, {train['rows_out']:,} kept, {train['rows_rejected']:,} rejected; "
        f"{test['rows_out']:,} test rows kept"
    )


def warn_of_quality(quality: Mapping[str, Any]) -> None:
    """Log what a user should know before anything is learnt from these rows."""
    if quality["synthetic"]:
        log.warning("this is the synthetic sample catalogue: its scores say nothing about real products")
    if not quality["pictures"]["files"]:
        log.warning("no file under images/: every product goes on without its picture")
    elif missing := quality["train"]["missing_picture"] + quality["test"]["missing_picture"]:
        log.warning("%s products have no picture on disk; they go on with their text", f"{missing:,}")
    for reason, count in quality["pictures"]["unusable"].items():
        log.warning("%s picture files are %s; their products go on with their text", f"{count:,}", reason)
    for reason, count in quality["train"]["rejected"].items():
        log.warning("%s train rows rejected: %s (see rejected.csv)", f"{count:,}", reason)
    for code, count in quality["train"]["small_classes"].items():
        log.warning("class %s has only %s rows", code, count)


def main(argv: Sequence[str] | None = None) -> int:
    return run_stage("ingest", ingest, {"raw": RAW, "interim": INTERIM, "reports": REPORTS}, argv)


if __name__ == "__main__":
    sys.exit(main())
