import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tokenizers import Tokenizer

from rakuten.config import Params
from rakuten.data.tables import write_table
from rakuten.data.taxonomy import current_taxonomy
from rakuten.errors import UntrustedModelError, UserError
from rakuten.features.encoders.finetuned import NETWORK_FOLDERS, NETWORKS_FOLDER, NetworkFolder, save_network
from rakuten.features.encoders.finetuned_text import text_input
from rakuten.features.encoders.onnx import PackagedTextEncoder, packaged_text_fingerprint
from rakuten.features.feature_set import (
    GROUPS_FILE,
    TRAIN,
    FeatureBatch,
    FeaturePaths,
    FeatureSet,
    title_hashes,
)
from rakuten.files import digest
from rakuten.models.classifier import ProductClassifier
from rakuten.promotion import unseen_products
from rakuten.promotion.unseen_products import is_unseen, predict_unseen
from rakuten.tracking import lineage, registered_model, trace
from rakuten.tracking.registry import Version
from rakuten.types import FINETUNED_TEXT, TEXT
from tests.support.features import TEXT_ONLY, feature_table
from tests.support.onnx_graphs import score_graph, word_tokenizer
from tests.support.training import PARAMS, fit_batch

CHALLENGER, CHAMPION = (Version(number, f"run {number}", 0, None, False) for number in ("2", "1"))
TEXT_PARAMS: Params = PARAMS.model_copy(update={"features": TEXT_ONLY})


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> ProductClassifier:
    """The champion: a model of titles alone."""
    titles = [f"jeu {number}" for number in range(20)] + [f"piscine {number}" for number in range(20)]
    batch = FeatureBatch(feature_table(titles).assign(prdtypecode=[10] * 20 + [2583] * 20))
    return fit_batch(batch, tmp_path_factory.mktemp("unseen"), TEXT_PARAMS)[0]


@pytest.fixture
def processed(tmp_path: Path, classifier: ProductClassifier, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the challenger's features of five products, ids 0 to 4; the champion is `classifier`."""
    folder = tmp_path / "processed"
    folder.mkdir()
    paths = FeaturePaths.of(folder, TRAIN)
    table = feature_table(["jeu a", "piscine b", "jeu c", "Jeu A", "piscine e"])
    write_table(table.assign(prdtypecode=[10, 2583, 10, 10, 2583]), paths.table)
    for path in (paths.text_embeddings, paths.image_embeddings):
        np.save(path, np.empty((5, 0), dtype=np.float16))
    np.save(folder / GROUPS_FILE, title_hashes(table))
    inputs = {lineage.repo_relative(path): digest(path, "md5") for path in paths}
    monkeypatch.setattr(trace, "inputs_of_run", {CHALLENGER.run_id: inputs}.get)
    monkeypatch.setattr(registered_model, "download_model", lambda version, folder, key: classifier.save(folder))
    return folder


def seen(*ids: int) -> pd.DataFrame:
    return pd.DataFrame({"productid": ids, "imageid": ids})


Predict = Callable[..., pd.DataFrame]


@pytest.fixture
def predict(processed: Path) -> Predict:
    """`predict(seen, params)`."""
    return lambda seen, params=TEXT_PARAMS: predict_unseen(CHALLENGER, CHAMPION, seen, params, processed.parent)


def test_neither_a_product_nor_another_one_of_its_title_is_unseen() -> None:
    titles = ["piscine", "chaise", "Piscine", "lampe", "", "chaise longue"]
    products = FeatureSet.from_batch(FeatureBatch(feature_table(titles).assign(prdtypecode=10))).metadata
    products["imageid"] += 10
    # Row 0 has the title of row 2, which was seen; product 3 was seen with another image.
    seen = pd.DataFrame({"productid": ["1", "2", "3"], "imageid": ["11", "12", "99"]})
    assert is_unseen(products, seen).tolist() == [False, False, False, True, True, True]


def test_the_champion_predicts_what_it_never_saw(predict: Predict) -> None:
    predictions = predict(seen(0, 1))
    assert list(predictions.columns) == ["productid", "imageid", "prdtypecode", "predicted"]
    assert predictions["productid"].tolist() == ["2", "4"]  # 3 has the title of 0
    assert predictions["prdtypecode"].tolist() == predictions["predicted"].tolist() == [10, 2583]


def test_a_champion_of_before_a_merger_predicts_todays_codes(predict: Predict, monkeypatch: pytest.MonkeyPatch) -> None:
    taxonomy = replace(current_taxonomy(), merged_into={2583: 2585})
    monkeypatch.setattr(unseen_products, "current_taxonomy", lambda: taxonomy)
    assert predict(seen(0, 1))["predicted"].tolist() == [10, 2585]


def test_every_chunk_of_the_features_is_read(predict: Predict, monkeypatch: pytest.MonkeyPatch) -> None:
    chunks = FeatureSet.table_chunks
    monkeypatch.setattr(FeatureSet, "table_chunks", lambda self: chunks(self, 2))
    assert predict(seen(1))["productid"].tolist() == ["0", "2", "3", "4"]


def test_a_champion_that_saw_all_predicts_nothing(predict: Predict, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registered_model, "download_model", lambda *_: pytest.fail("the champion was downloaded"))
    assert predict(seen(0, 1, 2, 3, 4)).empty


@pytest.mark.parametrize("error", [UntrustedModelError("not signed"), UserError("the server does not answer")])
def test_a_champion_that_is_not_trusted_predicts_nothing_and_one_that_cannot_be_fetched_is_an_error(
    error: UserError, predict: Predict, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise error

    monkeypatch.setattr(registered_model, "download_model", refuse)
    if isinstance(error, UntrustedModelError):
        assert predict(seen(1)).empty
    else:
        with pytest.raises(UserError, match="does not answer"):
            predict(seen(1))


@pytest.mark.parametrize("change", [lambda path: path.unlink(), lambda path: path.write_bytes(b"x")])
def test_features_of_another_model_are_not_predicted(
    change: Callable[[Path], object], processed: Path, predict: Predict, caplog: pytest.LogCaptureFixture
) -> None:
    change(FeaturePaths.of(processed, TRAIN).text_embeddings)
    with caplog.at_level(logging.INFO):
        assert predict(seen(0)).empty
    assert "the challenger's features are not here" in caplog.text


@pytest.mark.parametrize("parameter", ["lowercase", "strip_accents"])
def test_features_made_with_other_parameters_are_not_predicted(
    parameter: str, predict: Predict, caplog: pytest.LogCaptureFixture
) -> None:
    features = TEXT_ONLY.model_copy(update={parameter: not getattr(TEXT_ONLY, parameter)})
    with caplog.at_level(logging.INFO):
        assert predict(seen(0), PARAMS.model_copy(update={"features": features})).empty
    assert "the champion's features were made with other parameters" in caplog.text


def test_features_of_another_encoder_are_not_predicted(
    predict: Predict, monkeypatch: pytest.MonkeyPatch, classifier: ProductClassifier
) -> None:
    monkeypatch.setattr(classifier, "config", classifier.config._replace(encoders={"picture": "another"}))
    assert predict(seen(0)).empty


def test_features_of_todays_version_of_the_encoder_are_predicted(
    predict: Predict, monkeypatch: pytest.MonkeyPatch, classifier: ProductClassifier
) -> None:
    """The champion was trained with the encoder's first version, whose embeddings are the same up to rounding."""
    encoders = {TEXT: packaged_text_fingerprint("1")}
    monkeypatch.setattr(classifier, "config", classifier.config._replace(encoders=encoders))
    monkeypatch.setattr(unseen_products, "encoder_fingerprints", lambda _: {TEXT: PackagedTextEncoder.fingerprint})
    assert len(predict(seen(0, 1))) == 2


def test_a_champion_that_cannot_be_loaded_predicts_nothing(
    predict: Predict, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(_: Path) -> None:
        raise UserError("model format 1")

    monkeypatch.setattr(unseen_products.ProductClassifier, "load", refuse)
    with caplog.at_level(logging.INFO):
        assert predict(seen(0)).empty
    assert "the champion cannot be loaded (model format 1)" in caplog.text


def test_a_champion_with_a_fine_tuned_network_reads_the_texts_as_they_were_written(
    predict: Predict, processed: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The champion's titles say nothing, and its network gives the second class ten times as much for b as for a."""
    codes = [10] * 30 + [2583] * 30
    scores = np.random.default_rng(0).normal(size=(60, 2)).astype(np.float32)
    scores[np.arange(60), np.array(codes) // 2583] += 4
    table = feature_table([f"objet {number}" for number in range(60)]).assign(prdtypecode=codes)
    classifier, _ = fit_batch(FeatureBatch(table, finetuned={FINETUNED_TEXT: scores}), tmp_path, TEXT_PARAMS)

    def download(version: Version, folder: Path, require_signature: str) -> None:
        network = folder / NETWORKS_FOLDER / NETWORK_FOLDERS[FINETUNED_TEXT]
        folder.mkdir()
        (folder / "graph.onnx").write_bytes(score_graph())
        text = text_input(Tokenizer.from_str(word_tokenizer()), {"tokens": 16, "prefix": "query query "})
        save_network(network, folder / "graph.onnx", text, {})
        classifier.networks = {FINETUNED_TEXT: NetworkFolder.of(network)}
        classifier.save(folder)

    monkeypatch.setattr(registered_model, "download_model", download)
    titles = ["b", "query", "b b", "query query", "b"]
    products = pd.DataFrame({"designation": titles, "description": "", "productid": range(5), "imageid": range(5)})
    (tmp_path / "interim").mkdir()
    write_table(products.assign(has_image="False"), tmp_path / "interim" / "merged_train.csv")
    predictions = predict(seen(1))
    assert predictions["productid"].tolist() == ["0", "2", "3", "4"]
    assert predictions["predicted"].tolist() == [2583, 2583, 10, 2583]
