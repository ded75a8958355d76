from pathlib import Path

import pytest
import yaml

from rakuten.files import digest
from rakuten.tracking import lineage
from tests.support.project import git


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as the project's root; no dvc.lock yet."""
    monkeypatch.setattr(lineage, "ROOT", tmp_path)
    monkeypatch.setattr(lineage, "DVC_LOCK", tmp_path / "dvc.lock")
    return tmp_path


@pytest.fixture
def repository(root: Path) -> Path:
    """A Git repository with one commit, as the project's root."""
    (root / "code.py").write_text("")
    git(root, "init", "--quiet", "--initial-branch=topic")
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", "first")
    return root


def write_lock(root: Path, stages: dict[str, object]) -> None:
    (root / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": stages}))


def test_a_model_is_identified_by_its_manifest(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    assert lineage.model_digest(tmp_path) == digest(tmp_path / "manifest.json")
    assert lineage.model_version(tmp_path) == digest(tmp_path / "manifest.json")[:12]


def test_paths_are_relative_to_the_root(root: Path) -> None:
    assert lineage.repo_relative(root / "data" / ".." / "models" / "a.json") == "models/a.json"
    assert lineage.repo_relative(Path("/elsewhere/a.json")) == "/elsewhere/a.json"


def test_links_of_the_project_are_its_own_files(root: Path) -> None:
    """DVC may link a file to its cache, and a user a folder to another disk."""
    (root / "data").symlink_to("/", target_is_directory=True)
    (root / "model").symlink_to("/dev/null")
    assert lineage.repo_relative(root / "data" / "a.csv") == "data/a.csv"
    assert lineage.repo_relative(root / "model") == "model"


def test_raw_data_is_known_for_the_features_in_dvc_lock_only(root: Path) -> None:
    features = root / "features.csv"
    features.write_text("a\n")
    raw = {"path": "data/raw/X_train.csv", "md5": "abc"}
    write_lock(
        root,
        {
            "ingest": {"deps": [raw, {"path": "src/data/make_dataset.py", "md5": "def"}]},
            "features": {"outs": [{"path": "features.csv", "md5": digest(features, "md5")}]},
        },
    )
    assert lineage.data_digests([features]) == {
        "data/raw/X_train.csv": "abc",
        "features.csv": "60b725f10c9c85c70d97880dfe8191b3",
    }
    features.write_text("b\n")
    assert lineage.data_digests([features]) == {"features.csv": digest(features, "md5")}


def test_without_dvc_lock_nothing_is_recorded(root: Path) -> None:
    assert lineage.read_dvc_lock() == {}
    assert lineage.dvc_lock_digests("train", "outs") == {}


def test_a_model_is_in_dvc_lock_until_it_changes(root: Path) -> None:
    file = root / "model.safetensors"
    file.write_bytes(b"model")
    write_lock(root, {"train": {"outs": [{"path": "model.safetensors", "md5": digest(file, "md5")}]}})
    assert lineage.is_in_dvc_lock(root)
    file.write_bytes(b"another")
    assert not lineage.is_in_dvc_lock(root)


def test_a_clean_checkout_is_recorded_by_commit_and_branch(repository: Path) -> None:
    commit = git(repository, "rev-parse", "HEAD")
    assert lineage.git_tags() == {"git_commit": commit, "git_branch": "topic", "git_dirty": "false"}


def test_what_no_stage_reads_does_not_make_a_checkout_dirty(repository: Path) -> None:
    for name in ("dvc.lock", "models/model.safetensors", "reports/a.json", ".dvc/config", "photo.jpg", "README.md"):
        (repository / name).parent.mkdir(exist_ok=True)
        (repository / name).write_text("changed")
    assert lineage.git_tags()["git_dirty"] == "false"


@pytest.mark.parametrize("name", ["src/new.py", "params.yaml", "dvc.yaml", "data/raw/X_train.csv.dvc", "uv.lock"])
def test_a_change_of_what_the_stages_read_makes_a_checkout_dirty(name: str, repository: Path) -> None:
    (repository / name).parent.mkdir(parents=True, exist_ok=True)
    (repository / name).write_text("changed")
    assert lineage.git_tags()["git_dirty"] == "true"


def test_outside_git_there_are_no_tags(root: Path) -> None:
    assert lineage.git_tags() == {}


def test_without_the_git_command_there_are_no_tags(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert lineage.git_tags() == {}
