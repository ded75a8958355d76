"""Which commit holds a training: digests as DVC computes them, and what is said where none does."""

import shutil
from pathlib import Path

import pytest
import yaml

from rakuten.errors import UserError
from rakuten.tracking import commits, lineage
from tests.support.project import git, run_in

STAGE = {
    "cmd": "python src/train.py",
    "deps": ["data.csv", "encoders", "src/library", "src/train.py"],
    "params": ["seed", "train.svm_c"],
    "outs": ["model"],
}


@pytest.fixture(scope="module")
def trained_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with one stage that DVC has run, and nothing of it committed but the code before a change."""
    folder = tmp_path_factory.mktemp("repository")
    for name in ("a.py", "sub/b.py", "sub/é.py"):
        (folder / "src" / "library" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "src" / "library" / name).write_text(f"# {name}\n", encoding="utf-8")
    (folder / "src" / "train.py").write_text("open('model', 'w').write('model')\n")
    (folder / "data.csv").write_text("a\n")
    (folder / "encoders").mkdir()
    (folder / "encoders" / "README.md").write_text("in Git")
    (folder / "encoders" / "own.onnx").write_text("not in Git")
    (folder / ".gitignore").write_text("*.onnx\n")
    (folder / "params.yaml").write_text("seed: 1\ntrain: {svm_c: 0.4}\n")
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"train": STAGE}}))
    git(folder, "init", "--quiet", "--initial-branch=main")
    run_in(folder, "dvc", "init", "--quiet")
    run_in(folder, "dvc", "add", "--quiet", "data.csv")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "before")
    (folder / "src" / "library" / "a.py").write_text("# changed\n")
    run_in(folder, "dvc", "repro", "--quiet")
    return folder


@pytest.fixture
def repository(trained_repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(trained_repository, tmp_path / "repository", symlinks=True)
    monkeypatch.setattr(lineage, "ROOT", tmp_path / "repository")
    return tmp_path / "repository"


def lock(repository: Path) -> dict[str, object]:
    return dict(yaml.safe_load((repository / "dvc.lock").read_text()))


def commit(repository: Path, *paths: str) -> str:
    git(repository, "add", *paths)
    git(repository, "commit", "--quiet", "--message", "a commit")
    return git(repository, "rev-parse", "HEAD")


def test_what_git_has_only_in_part_is_not_compared(repository: Path) -> None:
    commit(repository, "--all")
    assert "encoders/own.onnx" not in git(repository, "ls-files").split()
    assert commits.find_commit(lock(repository))


def test_a_commit_after_the_training_is_found(repository: Path) -> None:
    made = commit(repository, "--all")
    assert commits.find_commit(lock(repository)) == made


def test_the_newest_of_several_is_found_on_any_branch(repository: Path) -> None:
    commit(repository, "--all")
    git(repository, "switch", "--quiet", "--create", "topic")
    (repository / "dvc.lock").write_text((repository / "dvc.lock").read_text() + "\n")
    newest = commit(repository, "--all")
    git(repository, "switch", "--quiet", "main")
    assert commits.find_commit(lock(repository)) == newest


def test_before_a_commit_there_is_none(repository: Path) -> None:
    with pytest.raises(UserError, match="no commit has the dvc.lock of its training: commit the code"):
        commits.find_commit(lock(repository))


@pytest.mark.parametrize(
    ("path", "content", "difference"),
    [
        ("src/library/sub/b.py", "# another\n", "another src/library"),
        ("src/library/new.py", "", "another src/library"),
        ("src/train.py", "# another\n", "another src/train.py"),
        ("params.yaml", "seed: 2\ntrain: {svm_c: 0.4}\n", "another seed in params.yaml"),
        ("params.yaml", "seed: 1\n", "another train.svm_c in params.yaml"),
        ("data.csv.dvc", "outs: [{md5: abc, path: data.csv}]\n", "another data.csv"),
    ],
)
def test_a_commit_with_other_code_parameters_or_data_is_not_it(
    repository: Path, path: str, content: str, difference: str
) -> None:
    (repository / path).write_text(content)
    made = commit(repository, "--all")
    with pytest.raises(UserError, match=f"commit {made[:10]} has its dvc.lock, but {difference}: commit the code"):
        commits.find_commit(lock(repository))


def test_parameters_that_no_stage_reads_may_differ(repository: Path) -> None:
    (repository / "params.yaml").write_text("seed: 1\ntrain: {svm_c: 0.4}\nmonitor: {psi: 1}\n")
    made = commit(repository, "--all")
    assert commits.find_commit(lock(repository)) == made
