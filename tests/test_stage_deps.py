"""Which stages a changed file reruns, asked of DVC itself. No stage runs: the outputs are empty files."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.support.project import run_in

pytestmark = pytest.mark.heavy

UNRELATED = (
    "src/rakuten/cli.py",
    "src/rakuten/commands/doctor.py",
    "src/rakuten/compute/parallel.py",
    "src/rakuten/config.py",
    "src/rakuten/monitoring/alerts.py",
    "src/rakuten/promotion/gate.py",
    "src/rakuten/serving/app.py",
    "src/rakuten/tracking/registry.py",
    "src/models/promote.py",
    "flows/pipeline.py",
    "docs/model.md",
    "README.md",
)
RERUN_BY = {  # a changed file -> the stages whose own dependencies have changed
    "src/models/predict_model.py": {"predict"},
    "src/rakuten/features/style.py": {"features", "finetune", "train", "predict"},
    "src/rakuten/data/images.py": {"ingest", "features", "finetune", "train", "predict"},
    "data/taxonomy.csv": {"ingest", "train", "predict"},
}


def append_comment(file: Path) -> None:
    with file.open("a", encoding="utf-8") as stream:
        stream.write("\n# a comment\n")


def stages_to_rerun(folder: Path) -> set[str]:
    return set(json.loads(run_in(folder, "dvc", "status", "--json").splitlines()[0]))


@pytest.fixture
def committed(clone: Callable[[str], Path]) -> Path:
    """A project whose lock holds its files as they are, as after `dvc repro`."""
    folder = clone("committed")
    for stage in yaml.safe_load((folder / "dvc.yaml").read_text(encoding="utf-8"))["stages"].values():
        # An output with settings is a mapping of one key.
        outputs = [out if isinstance(out, str) else next(iter(out)) for out in stage["outs"] + stage.get("metrics", [])]
        for name in [*stage["deps"], *outputs]:
            if not (folder / name).exists():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).touch()
    run_in(folder, "dvc", "commit", "--force")
    assert stages_to_rerun(folder) == set()
    return folder


def test_a_changed_comment_reruns_only_the_stages_that_use_the_file(committed: Path) -> None:
    for name in UNRELATED:
        append_comment(committed / name)
    assert stages_to_rerun(committed) == set()
    for name, stages in RERUN_BY.items():
        append_comment(committed / name)
        assert stages_to_rerun(committed) == stages, name
        run_in(committed, "git", "checkout", "--quiet", "--", name)
