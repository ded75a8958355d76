from pathlib import Path

import pytest

from rakuten import config
from rakuten.config import PARAMS, load_env, load_params
from rakuten.errors import UserError


def test_the_projects_own_params_are_valid_and_flat() -> None:
    flat = load_params().flat()
    assert flat["data.unknown_labels"] == "reject"
    assert "train" not in flat


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seed: 42", "seed: -1", "seed: Input should be greater than or equal to 0"),
        ("seed: 42", "sead: 42", "seed: Field required"),
        ("folds: 5", "folds: five", "train.folds: Input should be a valid integer"),
        ("folds: 5", "folds: 5\n  fold: 3", "train.fold: Extra inputs are not permitted"),
        ("unknown_labels: reject", "unknown_labels: drop", "data.unknown_labels: Input should be 'reject' or 'keep'"),
        ("seed: 42", "seed: [", "not valid YAML"),
        ("shortest: 2, longest: 5", "shortest: 6, longest: 5", r"train.blocks.1: .*shortest \(6\) must not exceed"),
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


def test_the_real_environment_wins_over_dotenv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("MLFLOW_EXPERIMENT_NAME=from-file\nRAKUTEN_TEST_ONLY=from-file\n")
    monkeypatch.setattr(config, "ROOT", tmp_path)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "from-shell")
    monkeypatch.setenv("RAKUTEN_TEST_ONLY", "")
    monkeypatch.delenv("RAKUTEN_TEST_ONLY")
    load_env()
    assert config.os.environ["MLFLOW_EXPERIMENT_NAME"] == "from-shell"
    assert config.os.environ["RAKUTEN_TEST_ONLY"] == "from-file"
