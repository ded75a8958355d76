import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rakuten.commands import doctor
from rakuten.commands.doctor import FAILED, NOTE, PASSED, CheckResult
from rakuten.errors import UserError
from rakuten.tracking import lineage
from tests.support.project import git, run_in

DOCTOR = (sys.executable, "-m", "rakuten", "doctor")


def snapshot(folder: Path) -> dict[str, bytes]:
    files = (file for file in folder.rglob("*") if file.is_file() and ".git" not in file.parts)
    return {
        str(file): file.read_bytes() for file in files if "__pycache__" not in file.parts and "tmp" not in file.parts
    }


def test_a_fresh_clone_is_sound_and_stays_as_it_is(clone: Callable[[str], Path]) -> None:
    folder = clone("fresh")
    before = snapshot(folder)
    lines = run_in(folder, *DOCTOR).splitlines()
    assert sum(line.startswith("  ok      ") for line in lines) == 9
    assert "  note    DVC remote   not set yet: `make remote URL=https://dagshub.com/USER/REPO`" in "\n".join(lines)
    assert "  note    data         none in data/raw: `make run` writes a synthetic sample there" in lines
    assert any(line.startswith("INFO doctor: 11 checks, none failed (") for line in lines)
    assert snapshot(folder) == before


def test_every_failed_check_says_how_to_fix_it(clone: Callable[[str], Path]) -> None:
    folder = clone("broken")
    lock = folder / "requirements.txt"
    lock.write_text(lock.read_text().replace("\npandas==2", "\npandas==1"))
    (folder / "params.yaml").write_text("seed: 1\n")
    (folder / ".env").write_text("MLFLOW_TRACKING_URI=http://127.0.0.1:9\nMLFLOW_ANYTHING=1\nPOSTGRES_PASS=x\n")
    (folder / "data" / "raw").mkdir(parents=True)
    (folder / "data" / "raw" / "X_train_update.csv").write_text("")
    run_in(folder, sys.executable, "-m", "rakuten", "remote", str(folder / "away"))
    output = run_in(folder, *DOCTOR, code=1)
    for text in (
        "FAILED  lock         not the locked versions: pandas 2",
        "; `pip install --no-deps -r requirements.txt`",
        "note    .env         .env sets POSTGRES_PASS, which nothing here reads",
        "FAILED  params.yaml  ",
        "FAILED  compute      ",
        "FAILED  tracking     the tracking server http://127.0.0.1:9 does not answer",
        "FAILED  artifacts    the tracking server http://127.0.0.1:9 does not answer",
        "FAILED  data         X_train.csv is missing from data/raw. The challenge's own X_train_update.csv is there",
        "ERROR doctor: 6 of 11 checks failed; each line above says how to fix it",
    ):
        assert text in output
    assert "Traceback" not in output


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder as the project's root."""
    monkeypatch.setattr(doctor, "ROOT", tmp_path)
    monkeypatch.setattr(doctor, "ENV", tmp_path / ".env")
    monkeypatch.setattr(doctor, "REQUIREMENTS", tmp_path / "requirements.txt")
    monkeypatch.setattr(doctor, "PYPROJECT", tmp_path / "pyproject.toml")
    monkeypatch.setattr(doctor, "RAW", tmp_path / "data" / "raw")
    return tmp_path


def test_a_project_without_git_has_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lineage, "ROOT", tmp_path)
    monkeypatch.setattr(doctor, "ROOT", tmp_path)
    assert doctor.check_git().state == FAILED
    assert "not a Git repository" in doctor.check_git().text
    git(tmp_path, "init", "--quiet")
    assert "no commit yet" in doctor.check_git().text
    git(tmp_path, "commit", "--quiet", "--allow-empty", "--message", "start")
    assert doctor.check_git().state == PASSED
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")  # Git's own switch for its tests
    refused = doctor.check_git()
    assert refused.state == FAILED
    assert f"belongs to another user: `git config --global --add safe.directory {tmp_path}`" in refused.text


def test_a_check_that_raises_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> CheckResult:
        raise UserError("no server")

    monkeypatch.setattr(doctor, "CHECKS", {"a": refuse, "b": lambda: CheckResult(PASSED, "there")})
    assert list(doctor.run_checks()) == [("a", CheckResult(FAILED, "no server")), ("b", CheckResult(PASSED, "there"))]


@pytest.mark.parametrize(
    ("version", "state"), [((3, 10, 1), FAILED), ((3, 11, 0), PASSED), ((3, 13, 9), PASSED), ((3, 14, 0), FAILED)]
)
def test_only_supported_versions_of_python_pass(
    version: tuple[int, ...], state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor.sys, "version_info", version)
    assert doctor.check_python().state == state


@pytest.fixture
def lock(root: Path) -> Path:
    """An empty requirements.txt of a project that requires pip and five packages that do not exist."""
    required = ["pip>=1", *(f"no-such-package-{number}" for number in range(5))]
    (root / "pyproject.toml").write_text(
        f"[project]\ndependencies = {required[:3]}\n[project.optional-dependencies]\npipeline = {required[3:]}\n"
    )
    (root / "requirements.txt").write_text("")
    return root / "requirements.txt"


def test_installed_packages_at_the_locked_versions_pass(lock: Path) -> None:
    lock.write_text("# comment\n\n--only-binary :all:\npip>=1 \\\n    --hash=sha256:abc\n    # via x\n")
    assert doctor.check_lock().state == PASSED


def test_a_package_at_another_version_is_named(lock: Path) -> None:
    lock.write_text("pip==1.0 \\\n    --hash=sha256:abc\n")
    result = doctor.check_lock()
    assert result.state == FAILED
    assert re.fullmatch(
        r"not the locked versions: pip \S+ \(==1.0\); `pip install --no-deps -r requirements.txt`", result.text
    )


@pytest.mark.parametrize("line", ["no-such-tool==1", "no-such-package-0==1; sys_platform == 'cp/m'"])
def test_packages_that_are_not_needed_here_may_be_absent(line: str, lock: Path) -> None:
    lock.write_text(line)
    assert doctor.check_lock().state == PASSED


def test_of_many_absent_packages_the_first_three_are_shown(lock: Path) -> None:
    lock.write_text("\n".join(f"no-such-package-{number}==1" for number in range(5)))
    result = doctor.check_lock()
    assert result.state == FAILED
    assert "no-such-package-2 absent (==1) and 2 more; `pip install" in result.text


def test_no_env_is_fine(root: Path) -> None:
    assert doctor.check_env() == CheckResult(PASSED, "no .env: embedded defaults")


@pytest.fixture
def env(root: Path) -> Path:
    """A .env that Git ignores and only its owner can read."""
    git(root, "init", "--quiet")
    (root / ".gitignore").write_text(".env\n")
    (root / ".env").write_text("POSTGRES_PASSWORD=x\n")
    (root / ".env").chmod(0o600)
    return root / ".env"


def test_a_private_env_is_fine(env: Path) -> None:
    env.write_text("MLFLOW_ANYTHING=1\n")
    assert doctor.check_env() == CheckResult(PASSED, ".env sets MLFLOW_ANYTHING")


def test_an_env_that_git_would_commit_has_failed(env: Path) -> None:
    env.write_text("MLFLOW_ANYTHING=1\n")
    (env.parent / ".gitignore").write_text("")
    assert doctor.check_env().state == FAILED


@pytest.mark.skipif(os.name != "posix", reason="modes of files")
def test_an_env_that_others_can_read_is_noted(env: Path) -> None:
    env.write_text("MLFLOW_ANYTHING=1\n")
    env.chmod(0o644)
    assert doctor.check_env() == CheckResult(NOTE, ".env can be read by every user of this machine; `chmod 600 .env`")


def test_every_name_in_env_example_is_known(env: Path) -> None:
    lines = doctor.ENV_EXAMPLE.read_text(encoding="utf-8").splitlines()
    env.write_text("\n".join(line.removeprefix("#") for line in lines if "=" in line and "# " not in line))
    assert doctor.check_env().state == PASSED


def test_runs_that_wait_are_noted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pending = tmp_path / "unsent" / "abc"
    pending.mkdir(parents=True)
    (pending / "record.json").write_text("{}")
    monkeypatch.setattr(doctor, "MODELS", tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    result = doctor.check_tracking()
    assert result.state == NOTE
    assert result.text.endswith("answers; 1 run(s) not sent yet: `rakuten sync`")


def test_a_remote_that_does_not_answer_in_time_has_failed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / ".dvc").mkdir()
    (root / ".dvc" / "config").write_text("")
    monkeypatch.setattr(doctor, "LIST_REMOTE", "import time; time.sleep(600)")
    monkeypatch.setattr(doctor, "REMOTE_TIMEOUT_SECONDS", 0.5)
    result = doctor.check_remote()
    assert result == CheckResult(
        FAILED, "does not answer within 0.5 seconds: check the address in .dvc/config and the network"
    )


def test_a_remote_that_refuses_has_failed_with_its_reason(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / ".dvc").mkdir()
    (root / ".dvc" / "config").write_text("")
    monkeypatch.setattr(doctor, "LIST_REMOTE", "raise ValueError('wrong key')")
    result = doctor.check_remote()
    assert result.state == FAILED
    assert result.text.startswith("ValueError: wrong key; check .dvc/config and the keys")


@pytest.mark.parametrize(
    ("names", "state", "text"),
    [
        (["X_train.csv", "Y_train.csv", "X_test.csv"], PASSED, "in data/raw, without images"),
        (
            ["X_train.csv", "Y_train.csv", "X_test.csv", "images/image_train/image_1_product_1.jpg"],
            PASSED,
            "with images",
        ),
        (["X_train.csv.dvc", "Y_train.csv", "X_test.csv"], FAILED, "X_train.csv under DVC but not here: `dvc pull`"),
        (["Y_train.csv", "X_test.csv"], FAILED, "X_train.csv is missing from data/raw"),
        ([], NOTE, "none in data/raw: `make run` writes a synthetic sample there"),
    ],
)
def test_what_is_missing_from_the_raw_data_is_named(names: list[str], state: str, text: str, root: Path) -> None:
    for name in names:
        path = root / "data" / "raw" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    result = doctor.check_data()
    assert result.state == state
    assert text in result.text


TAXONOMY_HEADER = "prdtypecode,fr,en,parent,merged_into\n"
TWO_CODES = TAXONOMY_HEADER + "10,occasion,second-hand,,\n20,neufs,new,,\n30,vieux,old,,10\n"


@pytest.fixture
def taxonomy(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The taxonomy of a project: two codes, and a third that was merged."""
    path = root / "taxonomy.csv"
    path.write_text(TWO_CODES, encoding="utf-8")
    monkeypatch.setattr(doctor, "taxonomy_file", lambda: path)
    return path


def test_a_valid_taxonomy_passes(taxonomy: Path) -> None:
    assert doctor.check_taxonomy() == CheckResult(PASSED, "taxonomy.csv has 2 codes and 1 that were merged")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("10,a,b,,\n10,c,d,,\n", "line 3, column prdtypecode: 10 is on line 2 already; remove one of the rows"),
        ("10,a,b,,20\n", "line 2, column merged_into: there is no code 20"),
        ("10,a,b,,20\n20,a,b,,10\n", "line 2, column merged_into: 20 was merged into 10 itself"),
        ("10,a,b,books,\n", "line 2, column parent: no row names the parent 'books'"),
        ("10,a,,,\n", "line 2, column en: the name is missing"),
        ('10,"a,b,,\n', "the record that begins on line 2 is broken"),
    ],
)
def test_a_wrong_taxonomy_has_failed_with_its_line(
    rows: str, message: str, taxonomy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taxonomy.write_text(TAXONOMY_HEADER + rows, encoding="utf-8")
    monkeypatch.setattr(doctor, "CHECKS", {"taxonomy": doctor.CHECKS["taxonomy"]})
    ((_, result),) = doctor.run_checks()
    assert result.state == FAILED
    assert f"{taxonomy}: {message}" in result.text


def test_a_missing_taxonomy_has_failed(taxonomy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taxonomy.unlink()
    monkeypatch.setattr(doctor, "CHECKS", {"taxonomy": doctor.CHECKS["taxonomy"]})
    ((_, result),) = doctor.run_checks()
    assert (result.state, "no such file; get it back with `git checkout" in result.text) == (FAILED, True)


def test_codes_of_the_train_labels_that_the_taxonomy_has_not_are_noted(
    taxonomy: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = root / "data" / "raw" / "Y_train.csv"
    labels.parent.mkdir(parents=True)
    codes = ["10", "030.0", "20.0", "", "abc", "41", "40", "40.0", "42", "43"]
    lines = [f"{index},{code}" for index, code in enumerate(codes)]
    labels.write_text("\n".join([",prdtypecode", *lines]) + "\n", encoding="utf-8")
    result = doctor.check_taxonomy()
    assert result.state == NOTE
    assert "codes that taxonomy.csv has not: 40 (2 rows), 41 (1 rows), 42 (1 rows) and 1 more; ingest" in result.text
    taxonomy.write_text(TWO_CODES + "".join(f"{code},a,b,,\n" for code in range(40, 44)), encoding="utf-8")
    assert doctor.check_taxonomy().state == PASSED
    taxonomy.write_text(TWO_CODES, encoding="utf-8")
    params = doctor.load_params()
    keep = params.model_copy(update={"data": params.data.model_copy(update={"unknown_labels": "keep"})})
    monkeypatch.setattr(doctor, "load_params", lambda: keep)
    assert doctor.check_taxonomy().state == PASSED  # every code is a class
