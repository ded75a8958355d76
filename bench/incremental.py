"""What a change costs, beside a full run: no change, another README, another parameter, 1 % new products.

Works in a clone of the project, on a synthetic catalogue of the size of the challenge, with images.
"""

import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.measure import Cost, run
from rakuten.config import ROOT
from rakuten.data.synthetic import write_catalogue

NEW = 0.01
STAGES = ("ingest", "features", "train", "predict")


class Project:
    """A clone, and commands in it that are measured."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {"MLFLOW_TRACKING_URI": "", "DVC_NO_ANALYTICS": "1"}
        self.environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

    def run(self, *command: str) -> tuple[Cost, str]:
        """The cost, and what it printed."""
        log = self.folder.with_name("changes.log")
        shell = ["env", "--chdir", str(self.folder), *command]
        cost = run(shell, self.environment, log)
        return cost, log.read_text(encoding="utf-8")

    def repro(self) -> tuple[Cost, list[str]]:
        """Of `dvc repro`; and the stages that ran."""
        cost, said = self.run("dvc", "repro")
        return cost, [name for name in STAGES if f"Running stage '{name}'" in said]

    def edit(self, file: str, old: str, new: str) -> None:
        path = self.folder / file
        text = path.read_text(encoding="utf-8")
        if old not in text:
            raise RuntimeError(f"{file} has no {old!r}")
        path.write_text(text.replace(old, new, 1), encoding="utf-8", newline="\n")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.incremental", description=__doc__)
    parser.add_argument("--rows", type=int, default=84_916)
    parser.add_argument("--test-rows", type=int, default=13_812)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "rakuten-changes")
    parser.add_argument("--quick", action="store_true", help="words alone, without the encoders")
    arguments = parser.parse_args(argv)
    project = prepare(arguments.folder / "project", arguments.rows, arguments.test_rows)
    if arguments.quick:
        project.edit("params.yaml", "image_encoder: efficientnet-lite0", "image_encoder: none")
        project.edit("params.yaml", "text_encoder: use-multilingual", "text_encoder: none")
    found: dict[str, Any] = {"rows": arguments.rows, "quick": arguments.quick}

    def note(name: str, **values: object) -> None:
        found[name] = values
        (arguments.folder / "changes.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
        tell(f"{name}: {json.dumps(values)}")

    project.run("dvc", "repro", "ingest")
    features, _ = project.run("python", "src/features/build_features.py")
    add(project.folder / "data" / "raw", round(NEW * arguments.rows), arguments.folder / "new")
    project.run("dvc", "repro", "ingest")
    again, _ = project.run("python", "src/features/build_features.py")
    note("1 % new products", full_cpu_s=round(features.cpu), full_wall_s=round(features.wall),
         cpu_s=round(again.cpu, 1), wall_s=round(again.wall, 1), share=round(again.cpu / features.cpu, 4),
         target=0.05)  # fmt: skip

    project.run("dvc", "commit", "--force", "features")
    cost, ran = project.repro()
    note("the rest of a full run", ran=ran, cpu_s=round(cost.cpu), wall_s=round(cost.wall))

    status, _ = project.run("dvc", "status")
    same, ran = project.repro()
    note("no change", status_s=round(status.wall, 2), repro_s=round(same.wall, 2),
         ratio=round(same.wall / status.wall, 2), target=2, ran=ran)  # fmt: skip

    project.edit("README.md", "\n", "\n\n")
    cost, ran = project.repro()
    note("another README", ran=ran, wall_s=round(cost.wall, 2))

    project.edit("params.yaml", "svm_c: 0.4", "svm_c: 0.5")
    cost, ran = project.repro()
    note("another train.svm_c", ran=ran, cpu_s=round(cost.cpu), wall_s=round(cost.wall))
    return 0


def prepare(folder: Path, rows: int, test_rows: int) -> Project:
    """A clone of the project as it is committed, with a catalogue and nothing made of it."""
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
    raw = folder.parent / f"raw-{rows}"
    if not (raw / "X_train.csv").is_file():
        write_catalogue(rows, test_rows, 1, raw)
    (folder / "data" / "raw").mkdir(parents=True, exist_ok=True)
    for name in ("X_train.csv", "Y_train.csv", "X_test.csv"):
        shutil.copyfile(raw / name, folder / "data" / "raw" / name)
    shutil.copytree(raw / "images", folder / "data" / "raw" / "images", copy_function=os.link)
    project = Project(folder)
    project.run("dvc", "config", "--local", "cache.type", "hardlink,copy")
    return project


def add(raw: Path, rows: int, folder: Path) -> None:
    """Append new products with images to the train rows."""
    if not folder.exists():
        write_catalogue(rows, 1, 2, folder)
    for name in ("X_train.csv", "Y_train.csv"):
        with (folder / name).open(encoding="utf-8", newline="") as source:
            new = list(csv.reader(source))[1:]
        path = raw / name
        whole = path.read_bytes()
        path.unlink()  # DVC's cache may hold the same file
        with path.open("wb") as target:
            target.write(whole)
        with path.open("a", encoding="utf-8", newline="") as target:
            csv.writer(target, lineterminator="\n").writerows([10_000_000 + int(row[0]), *row[1:]] for row in new)
    shutil.copytree(folder / "images" / "image_train", raw / "images" / "image_train", dirs_exist_ok=True)


def tell(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
