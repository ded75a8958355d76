"""Raw data that grows: labelled products added to a project's catalogue."""

import csv
import shutil
from pathlib import Path

from rakuten.data.schema import X_COLUMNS
from rakuten.data.tables import read_raw


def add_labelled(project: Path, new: Path) -> None:
    """Append the train rows, labels and images of the catalogue `new` to a project's raw data; row indexes continue."""
    raw = project / "data" / "raw"
    n_rows = len(read_raw(raw / "X_train.csv", X_COLUMNS))
    for name in ("X_train.csv", "Y_train.csv"):
        with (new / name).open(encoding="utf-8", newline="") as source:
            rows = list(csv.reader(source))[1:]
        with (raw / name).open("a", encoding="utf-8", newline="") as target:
            csv.writer(target, lineterminator="\n").writerows(
                [str(n_rows + number), *row[1:]] for number, row in enumerate(rows)
            )
    for image in (new / "images" / "image_train").iterdir():
        shutil.copy(image, raw / "images" / "image_train")
