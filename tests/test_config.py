import os
from pathlib import Path

import pytest

from rakuten import config
from rakuten.config import PARAMS, load_env, load_params
from rakuten.errors import UserError


def test_the_projects_own_params_are_valid_and_flat() -> None:
    flat = load_params().flat()
    assert flat["data.unknown_labels"] == "reject"
    assert "train" not in flat


def test_the_params_for_fine_tuning_differ_in_nothing_else() -> None:
    params, finetune = load_params(), load_params(PARAMS.parent / "bench" / "params-finetune.yaml")
    assert params.finetune.text == "none" != finetune.finetune.text
    assert finetune.model_copy(update={"finetune": params.finetune}) == params


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seed: 42", "seed: -1", "seed: Input should be greater than or equal to 0"),
        ("seed: 42", "sead: 42", "seed: Field required"),
        ("folds: 5", "folds: five", "train.folds: Input should be a valid integer"),
        ("folds: 5", "folds: 5\n  fold: 3", "train.fold: Extra inputs are not permitted"),
        ("unknown_labels: reject", "unknown_labels: drop", "data.unknown_labels: Input should be 'reject' or 'keep'"),
        ("seed: 42", "seed: [", "not valid YAML"),
        ("ngram_range: [2, 5]", "ngram_range: [6, 5]", r"train.blocks.1: .*ngram_range: 6 must not exceed 5"),
        ("text: none", "text: some", "finetune.text: Input should be 'none'"),
        ("text: none", "text: {base: e5, epochs: 0}", "finetune.text.epochs: Input should be greater than 0"),
        ("text: none", "text: {epochs: 3}", "finetune.text.base: Field required"),
        (
            "image_encoder: efficientnet-lite0",
            "image_encoder: {path: a}",
            "features.image_encoder.size: Field required",
        ),
        ("text_encoder: use-multilingual", "text_encoder: bert", "features.text_encoder: Input should be 'use-multi"),
        ("svm_c: 0.4", "svm_c: 0", "train.svm_c: Input should be greater than 0"),
        ("columns: [style]", "columns: [title]", "train.blocks.4.columns.0: Input should be 'designation_clean'"),
    ],
)
def test_a_wrong_parameter_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(PARAMS.read_text(encoding="utf-8").replace(old, new, 1), encoding="utf-8")
    with pytest.raises(UserError, match=message) as caught:
        load_params(path)
    assert str(path) in str(caught.value)


def test_missing_params_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="none.yaml: cannot be read"):
        load_params(tmp_path / "none.yaml")


def test_the_tree_of_an_experiment_belongs_to_the_project_that_runs_it() -> None:
    project = Path("/home/me/project")
    assert config._project_of(project / ".dvc" / "tmp" / "exps" / "standalone" / "tmpabc") == project
    assert config._project_of(project / ".dvc" / "tmp" / "exps" / "tmpabc") == project
    assert config._project_of(project) == project
    assert config._project_of(Path("/home/me/exps/project")) == Path("/home/me/exps/project")


@pytest.fixture
def dotenv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A .env that sets RAKUTEN_TEST, which the environment does not have."""
    (tmp_path / ".env").write_text("RAKUTEN_TEST=from-file\n")
    monkeypatch.setattr(config, "PROJECT", tmp_path)
    for name in ("RAKUTEN_TEST", "DO_NOT_TRACK"):  # set first, so that they are restored at the end
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    return tmp_path / ".env"


def test_dotenv_sets_what_is_not_set(dotenv: Path) -> None:
    load_env()
    assert os.environ["RAKUTEN_TEST"] == "from-file"


def test_the_environment_goes_before_dotenv(dotenv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAKUTEN_TEST", "from-shell")
    load_env()
    assert os.environ["RAKUTEN_TEST"] == "from-shell"


def test_usage_statistics_are_off_unless_they_were_set(dotenv: Path) -> None:
    load_env()
    assert os.environ["DO_NOT_TRACK"] == "1"
    os.environ["DO_NOT_TRACK"] = "0"
    load_env()
    assert os.environ["DO_NOT_TRACK"] == "0"


def test_an_env_file_in_another_encoding_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_bytes("MLFLOW_TRACKING_USERNAME=Andr\u00e9\n".encode("cp1252"))
    monkeypatch.setattr(config, "PROJECT", tmp_path)
    with pytest.raises(UserError, match=r"\.env: not UTF-8 \(byte 29\); save it as UTF-8"):
        config.load_env()


def test_an_env_file_with_a_byte_order_mark_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAKUTEN_TEST_NAME", "")
    monkeypatch.delenv("RAKUTEN_TEST_NAME")
    (tmp_path / ".env").write_bytes(b"\xef\xbb\xbfRAKUTEN_TEST_NAME=value\n")
    monkeypatch.setattr(config, "PROJECT", tmp_path)
    config.load_env()
    assert os.environ["RAKUTEN_TEST_NAME"] == "value"
