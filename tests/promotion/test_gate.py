"""Promotion: the rules by themselves, then on versions that real trainings registered."""

import shutil
import sys
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score

from rakuten.config import load_params
from rakuten.data import tables
from rakuten.data.schema import X_COLUMNS
from rakuten.data.synthetic import write_catalogue
from rakuten.data.tables import read_raw, write_table
from rakuten.errors import UserError
from rakuten.evaluation.bootstrap import PairedComparison, paired_bootstrap
from rakuten.promotion.gate import compare_models, decide
from rakuten.promotion.unseen_products import is_unseen
from rakuten.tracking.registry import CHALLENGER, CHAMPION, MODEL_NAME
from tests.support.project import git, run_in
from bench.end_to_end import add_labelled

PROMOTE = (sys.executable, "src/models/promote.py")


def test_the_paired_gain_is_the_difference_of_two_weighted_f1() -> None:
    rng = np.random.default_rng(0)
    true = rng.integers(0, 4, 500)
    better, worse = (np.where(rng.random(500) < share, true, rng.integers(0, 4, 500)) for share in (0.8, 0.6))
    found = paired_bootstrap(true, better, worse, 2000, 0)
    f1 = [f1_score(true, each, average="weighted") for each in (better, worse)]
    assert found.gain == pytest.approx(f1[0] - f1[1])
    for code, gain in found.f1_gain.items():
        of_code = [f1_score(true, each, labels=[code], average="macro") for each in (better, worse)]
        assert gain == pytest.approx(of_code[0] - of_code[1])

    # The same interval by drawing rows, both models on the same draw.
    drawn = []
    for _ in range(400):
        rows = rng.integers(0, 500, 500)
        pair = [f1_score(true[rows], each[rows], average="weighted") for each in (better, worse)]
        drawn.append(pair[0] - pair[1])
    assert found.interval == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.015)
    assert paired_bootstrap(true, better, worse, 200, 0) == paired_bootstrap(true, better, worse, 200, 0)
    assert all(low < found.f1_gain[code] < high for code, (low, high) in found.f1_interval.items())


def test_a_model_gains_nothing_over_itself() -> None:
    true, predicted = np.array([1, 2, 2, 3]), np.array([1, 2, 3, 3])
    found = paired_bootstrap(true, predicted, predicted, 50, 0)
    assert (found.gain, found.interval, set(found.f1_gain.values())) == (0, (0, 0), {0})


def moved(low: float, classes: dict[int, tuple[float, float, float]]) -> PairedComparison:
    """A gain of 0.02 that is `low` at least; of classes the lower end, the gain and the upper end."""
    f1 = {code: gain for code, (_, gain, _) in classes.items()}
    return PairedComparison(
        0.02, (low, 0.04 - low), f1, {code: (least, most) for code, (least, _, most) in classes.items()}
    )


@pytest.mark.parametrize(
    ("gain", "latency", "size", "failed"),
    [
        (moved(0.01, {10: (0.0, 0.1, 0.2), 40: (-0.09, -0.05, -0.01)}), 20, 30, None),
        (moved(0.01, {10: (0.0, 0.1, 0.2), 40: (-0.5, -0.2, 0.01)}), 20, 30, None),
        (None, 20, 30, None),
        (moved(0.0, {10: (0.0, 0.1, 0.2)}), 20, 30, "weighted F1 +0.0200 [+0.0000, +0.0400]"),
        (moved(0.01, {40: (-0.09, -0.051, -0.01), 50: (-0.5, -0.2, 0.01)}), 20, 30, "F1 of class 40 -0.0510 [-0.0900"),
        (None, 251, 30, "251 ms a product"),
        (None, 20, 151, "151.0 MB"),
    ],
)
def test_each_rule_holds_a_challenger_back(
    gain: PairedComparison | None, latency: float, size: float, failed: str | None
) -> None:
    verdict = decide(gain, latency, size, load_params())
    assert verdict.promoted == (failed is None)
    assert [reason for reason in verdict.reasons if reason.startswith("FAILED")] == [
        reason for reason in verdict.reasons if failed is not None and failed in reason
    ]
    assert failed is None or verdict.reasons[0].startswith(f"FAILED {failed}")


def test_only_products_that_both_judged_under_the_same_code_are_compared() -> None:
    table = pd.DataFrame({"productid": list("abcd"), "imageid": list("abcd"), "prdtypecode": [1, 1, 2, 2]})
    challenger = table.assign(predicted=[1, 1, 2, 2])
    champion = table.assign(predicted=[1, 2, 2, 1], prdtypecode=[1, 1, 2, 1]).iloc[::-1]
    assert compare_models(challenger, champion, load_params()).gain == pytest.approx(
        1 - f1_score([1, 1, 2], [1, 2, 2], average="weighted")
    )
    with pytest.raises(UserError, match="share 0 of 4 products"):
        compare_models(challenger, champion.assign(productid=list("wxyz")), load_params())


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, workshop: Path) -> Path:
    """A project whose first model is trained and promoted; embedded store."""
    folder = tmp_path_factory.mktemp("promote") / "project"
    shutil.copytree(workshop, folder, symlinks=True)
    run_in(folder, "dvc", "repro")
    said = run_in(folder, *PROMOTE)
    assert "version 1 promoted over no champion" in said
    return folder


@pytest.fixture
def project(trained: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    shutil.copytree(trained, folder, symlinks=True)
    # The store's artifacts have the first folder's path, which is still there.
    return folder


def change(folder: Path, before: str, after: str) -> None:
    """Change a parameter and train; committed first, so that the run can be traced."""
    params = folder / "params.yaml"
    text = params.read_text()
    assert before in text
    params.write_text(text.replace(before, after))
    git(folder, "commit", "--quiet", "--all", "--message", after)
    run_in(folder, "dvc", "repro")


def test_what_a_model_saw_is_known_across_the_parts_of_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "ROWS", 2)
    titles = ["piscine", "chaise", "Piscine", "lampe", "", "chaise longue"]
    table = pd.DataFrame({"productid": range(6), "imageid": range(10, 16), "designation_clean": titles})
    write_table(table.assign(description_clean="sans titre"), tmp_path / "features.csv")
    seen = pd.DataFrame({"productid": ["1", "2", "3"], "imageid": ["11", "12", "99"]})
    # Row 0 has the title of row 2, which was seen; product 3 was seen with another picture.
    assert is_unseen(tmp_path / "features.csv", seen).tolist() == [False, False, False, True, True, True]


def registry(folder: Path) -> mlflow.MlflowClient:
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    return mlflow.MlflowClient()


def champion(folder: Path) -> str:
    return str(registry(folder).get_model_version_by_alias(MODEL_NAME, CHAMPION).version)


def test_a_worse_challenger_is_held_back_and_the_decision_is_noted(project: Path) -> None:
    change(project, "svm_c: 0.4", "svm_c: 0.00001")
    assert "dry run, nothing was changed" in run_in(project, *PROMOTE, "--dry-run")
    assert "promotion" not in registry(project).get_model_version(MODEL_NAME, "2").tags
    said = run_in(project, *PROMOTE)
    assert "version 2 not promoted, champion stays version 1" in said
    assert "FAILED weighted F1 -" in said
    assert "compared on 300 products" in said
    assert champion(project) == "1"
    for version in ("1", "2"):
        assert "version 2 not promoted" in registry(project).get_model_version(MODEL_NAME, version).tags["promotion"]
    assert registry(project).get_model_version_by_alias(MODEL_NAME, CHALLENGER).version == 2


def test_a_better_challenger_is_crowned_and_can_be_rolled_back(project: Path) -> None:
    change(project, "min_gain: 0.0", "min_gain: -1.0")
    change(project, "max_class_drop: 0.05", "max_class_drop: 1.0")
    change(project, "seed: 42", "seed: 43")
    said = run_in(project, *PROMOTE, "--dry-run")
    assert "promoted over version 1" in said
    assert champion(project) == "1"
    run_in(project, *PROMOTE)
    assert champion(project) == "2"
    assert "nothing to decide" in run_in(project, *PROMOTE)
    assert "rolled back to version 1" in run_in(project, *PROMOTE, "--rollback", "--dry-run")
    assert champion(project) == "2"
    assert "rolled back to version 1" in run_in(project, *PROMOTE, "--rollback")
    assert champion(project) == "1"
    assert "version 2 was rolled back: train another" in run_in(project, *PROMOTE, code=1)
    assert "no champion that followed another" in run_in(project, *PROMOTE, "--rollback", code=1)


def test_the_champion_is_asked_for_products_that_are_new_to_it(project: Path, tmp_path: Path) -> None:
    write_catalogue(100, 1, 9, tmp_path / "new")
    # One of the new products has a title that the champion was trained on: it has as good as seen it.
    known = read_raw(project / "data" / "raw" / "X_train.csv", X_COLUMNS)["designation"].iloc[0]
    table = pd.read_csv(tmp_path / "new" / "X_train.csv", dtype="str", keep_default_na=False)
    table.loc[0, "designation"] = known
    table.rename(columns={"Unnamed: 0": ""}).to_csv(tmp_path / "new" / "X_train.csv", index=False)
    add_labelled(project, tmp_path / "new")
    git(project, "commit", "--quiet", "--all", "--message", "dvc.lock of version 1")
    run_in(project, "dvc", "repro")
    said = run_in(project, *PROMOTE, "--dry-run")
    assert "the champion never saw 99 of the challenger's products" in said
    assert "compared on 399 products" in said
    # Cleaned otherwise than the champion was, they would mean something else to it.
    change(project, "strip_accents: true", "strip_accents: false")
    said = run_in(project, *PROMOTE, "--dry-run")
    assert "the champion's features were made otherwise" in said
    assert "compared on 300 products" in said
    # Without the challenger's features there is nothing to ask it with: those of both, as before.
    (project / "data" / "processed" / "train_features.csv").unlink()
    said = run_in(project, *PROMOTE, "--dry-run")
    assert "the challenger's features are not here" in said
    assert "compared on 300 products" in said


def test_what_cannot_be_traced_is_refused(project: Path) -> None:
    # Trained from a tree with a change that no commit holds.
    (project / "src" / "config.py").write_text((project / "src" / "config.py").read_text() + "\n# changed\n")
    run_in(project, "dvc", "repro", "--force", "--single-item", "train")
    said = run_in(project, *PROMOTE, code=1)
    assert "cannot be traced, for want of a clean tree" in said
    # Its commit and its data's digests gone.
    asked = registry(project)
    run_id = asked.get_model_version_by_alias(MODEL_NAME, CHALLENGER).run_id
    asked.delete_tag(run_id, "git_commit")
    assert "for want of git_commit; a clean tree" in run_in(project, *PROMOTE, code=1)
    # Trained without DVC, on files that dvc.lock does not know: no digests of the raw data.
    git(project, "commit", "--quiet", "--all", "--message", "changed")
    (project / "dvc.lock").unlink()
    run_in(project, sys.executable, "src/models/train_model.py")
    assert "digests of the raw data" in run_in(project, *PROMOTE, code=1)
    assert champion(project) == "1"


def test_without_a_challenger_there_is_nothing_to_promote(workshop: Path, tmp_path: Path) -> None:
    shutil.copytree(workshop, tmp_path / "project", symlinks=True)
    assert "has no challenger" in run_in(tmp_path / "project", *PROMOTE, code=1)
