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


IMAGE_ENCODER = "image_encoder: efficientnet-lite0"
OWN_ENCODER = "image_encoder: {path: a, size: 224, "


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seed: 42", "seed: -1", "seed must be a whole number of at least 0 and below 4294967296, not -1"),
        ("seed: 42", "sead: 42", "sead is unknown, did you mean seed?"),
        ("seed: 42", "", "seed is missing, it must be a whole number of at least 0 and below 4294967296"),
        ("folds: 5", "folds: five", "train.folds must be a whole number of at least 2, not 'five'"),
        ("folds: 5", "folds: 5\n  fold: 3", "train.fold is unknown, did you mean folds?"),
        (
            "folds: 5",
            "folds: 5\n  epochs: 3",
            "train.epochs is unknown, train may have folds, bootstrap, svm_c, shard_rows, blocks",
        ),
        ("unknown_labels: reject", "unknown_labels: drop", "data.unknown_labels must be reject or keep, not 'drop'"),
        ("ngram_range: [2, 5]", "ngram_range: [6, 5]", "train.blocks.1: ngram_range: 6 must not exceed 5"),
        (
            "ngram_range: [2, 5]",
            "ngram_range: [5]",
            "train.blocks.1.ngram_range must be a list of 2, each a whole number above 0, not a list of 1",
        ),
        (
            "text: none",
            "text: some",
            "finetune.text must be none or a section with base, revision, epochs, batch, learning_rate, layer_decay, "
            "frozen_layers, tokens, frozen_embeddings, not 'some'",
        ),
        (
            "text: none",
            "text: {base: e5, epochs: 0}",
            "finetune.text.epochs must be a whole number above 0, not 0",
        ),
        ("text: none", "text: {epochs: 3}", "finetune.text.base is missing, it must be text"),
        (
            IMAGE_ENCODER,
            f"{OWN_ENCODER}normalization: clip}}",
            "features.image_encoder.normalization is unknown, did you mean normalisation?",
        ),
        (
            IMAGE_ENCODER,
            f"{OWN_ENCODER}normalisation: clip, section: 3}}",
            "features.image_encoder.section is unknown, features.image_encoder may have path, size, normalisation",
        ),
        (
            IMAGE_ENCODER,
            "image_encoder:",
            "features.image_encoder must be efficientnet-lite0, none or a section with path, size, normalisation, "
            "not empty",
        ),
        ("svm_c: 0.4", "svm_c: 0", "train.svm_c must be a number above 0, not 0"),
        ("svm_c: 0.4", "svm_c: .inf", "train.svm_c must be a number above 0, not inf"),
        ("svm_c: 0.4", "svm_c: .nan", "train.svm_c must be a number above 0, not nan"),
        (
            "max_rejected: 0.05",
            "max_rejected: 5",
            "data.max_rejected must be a number of at least 0 and of at most 1, not 5",
        ),
        ("lowercase: true", "lowercase: 'yes'", "features.lowercase must be true or false, not 'yes'"),
        (
            "columns: [style]",
            "columns: [title]",
            "train.blocks.4.columns.0 must be designation_clean, description_clean or style, not 'title'",
        ),
        (
            "require_signature: none",
            "require_signature: RW",
            "models.require_signature must be none or a public key of minisign (RW...), not 'RW'",
        ),
        ("seed: 42", "sead: 42\nsvm_c: 1", "sead is unknown, did you mean seed?; svm_c is unknown, the file may have "),
    ],
)
def test_a_wrong_parameter_is_named_with_what_it_may_be(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(PARAMS.read_text(encoding="utf-8").replace(old, new, 1), encoding="utf-8")
    with pytest.raises(UserError) as caught:
        load_params(path)
    assert str(caught.value).startswith(f"{path}: {message}")


@pytest.mark.parametrize(("content", "seen"), [("", "empty"), ("- seed", "a list of 1"), ("seed", "'seed'")])
def test_a_file_without_keys_is_told_those_it_must_have(tmp_path: Path, content: str, seen: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(content)
    with pytest.raises(UserError, match=rf"the file must be a section with seed, data, .*, compute, not {seen}$"):
        load_params(path)


def test_of_many_wrong_parameters_the_first_are_named(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("seed: 42\n")
    with pytest.raises(UserError, match=r"data is missing.*; features is missing.*; and 5 more$"):
        load_params(path)


def test_a_number_may_be_written_as_dvc_writes_it(tmp_path: Path) -> None:
    """`dvc exp run --set-param train.svm_c=0.00001` writes 1e-05, which is text in YAML 1.1."""
    path = tmp_path / "params.yaml"
    path.write_text(PARAMS.read_text(encoding="utf-8").replace("svm_c: 0.4", "svm_c: 1e-05"), encoding="utf-8")
    assert load_params(path).train.svm_c == 1e-5


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


def test_a_nul_byte_is_an_error_with_the_file(dotenv: Path) -> None:
    dotenv.write_bytes(b"A=1\nRAKUTEN_TEST=a\0b\n")
    with pytest.raises(UserError, match=r"\.env: embedded null byte; save it as UTF-8 text"):
        load_env()


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
