"""The examples of docs/extending.md, applied to a copy of the project whose stages then run."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.support.project import ROOT, copy_project, run_in

PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
STAGES = ("data/make_dataset", "features/build_features", "models/finetune_encoders", "models/train_model")


def blocks(section: str, language: str) -> list[str]:
    """The code of a section of the page, by its title."""
    text = re.split(rf"^## {section}$", PAGE, flags=re.MULTILINE)[1].split("\n## ")[0]
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


@pytest.fixture
def project(sample: Path, tmp_path: Path) -> Path:
    """A copy of the project, with the sample and its own params.yaml: the examples change that file."""
    folder = copy_project(tmp_path / "project")
    shutil.copytree(sample, folder / "data" / "raw", dirs_exist_ok=True)
    return folder


def apply(project: Path, diff: str) -> None:
    subprocess.run(["git", "apply", "-p0", "--unidiff-zero"], cwd=project, input=diff, text=True, check=True)


def set_quick(project: Path, image_encoder: str | None = "none") -> None:
    """Make a training short, without touching what an example has changed."""
    path = project / "params.yaml"
    text = path.read_text(encoding="utf-8")
    text = text.replace("text_encoder: use-multilingual", "text_encoder: none").replace(
        "bootstrap: 1000", "bootstrap: 50"
    )
    if image_encoder:
        text = text.replace("image_encoder: efficientnet-lite0", f"image_encoder: {image_encoder}")
    path.write_text(text, encoding="utf-8")


def run_stages(project: Path, *stages: str) -> None:
    """Run stages, up to training unless others are named."""
    for stage in stages or STAGES:
        run_in(project, sys.executable, f"src/{stage}.py", MLFLOW_TRACKING_URI=f"sqlite:///{project / 'mlflow.db'}")


def train(project: Path) -> dict[str, Any]:
    """Run all stages up to training; returns the scores."""
    run_stages(project)
    return dict(json.loads((project / "models" / "scores.json").read_text(encoding="utf-8")))


def test_a_feature(project: Path) -> None:
    apply(project, *blocks("A feature", "diff"))
    set_quick(project)
    raw = project / "data" / "raw" / "X_train.csv"
    rows = pd.read_csv(raw, keep_default_na=False)
    rows.loc[:9, "designation"] = [f"Lampe de bureau neuve {number} €" for number in range(10)]
    rows.to_csv(raw, index=False)
    run_stages(project, *STAGES[:2])
    features = pd.read_csv(project / "data" / "processed" / "train_features.csv", keep_default_na=False)
    has_token = features["style"].str.split().map(lambda tokens: "title_price" in tokens)
    assert has_token[:10].all()


def test_a_view(project: Path) -> None:
    apply(project, *blocks("A view", "diff"))
    set_quick(project)
    assert 0 < train(project)["compared"]["shape"]["weighted_f1"] < 1
    assert "shape" in json.loads((project / "models" / "manifest.json").read_text())["views"]
    run_in(project, sys.executable, "src/models/predict_model.py")
    (project / "products.csv").write_text("designation,description\nPiscine,\n", encoding="utf-8")
    run_in(project, sys.executable, "-m", "rakuten", "score", "--input", "products.csv", "--output", "scored.csv")
    assert pd.read_csv(project / "scored.csv")["confidence"].between(0, 1).all()


def test_an_encoder(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    exec(compile(*blocks("An encoder", "python"), "docs/extending.md", "exec"), {})
    apply(project, *blocks("An encoder", "diff"))
    set_quick(project, image_encoder=None)
    assert train(project)["compared"]["picture"]["weighted_f1"] > 0.1


@pytest.mark.parametrize("example", [0, 1], ids=["kept without a name", "with a name"])
def test_a_class(project: Path, example: int) -> None:
    apply(project, blocks("A class", "diff")[example])
    set_quick(project)
    raw = project / "data" / "raw" / "Y_train.csv"
    labels = pd.read_csv(raw)
    labels.loc[labels["prdtypecode"] == 2583, "prdtypecode"] = 3000
    labels.to_csv(raw, index=False)
    run_stages(project, STAGES[0])
    kept = pd.read_csv(project / "data" / "interim" / "merged_train.csv")["prdtypecode"]
    assert (kept == 3000).sum() == (labels["prdtypecode"] == 3000).sum() > 0


def test_every_example_of_the_page_is_tested() -> None:
    titles = re.findall(r"^## (.*)$", PAGE, flags=re.MULTILINE)
    assert titles == ["A feature", "A view", "An encoder", "A class"]
    assert [len(blocks(title, "diff")) for title in titles] == [1, 1, 1, 2]
