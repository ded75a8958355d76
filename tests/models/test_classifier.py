import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rakuten.errors import UserError
from rakuten.features.encoders.finetuned import NETWORKS_FOLDER, NetworkFolder
from rakuten.features.feature_set import FeatureBatch
from rakuten.features.ngrams import NgramVectorizer
from rakuten.files import digest
from rakuten.models import classifier as module
from rakuten.models.classifier import (
    CHOICE_COLUMNS,
    MANIFEST_FILE,
    MODEL_FILE,
    VECTORIZER_FILE,
    ModelConfig,
    ProductClassifier,
    load_cached,
)
from rakuten.models.fusion import CONTEXT, N_TERMS, Fusion
from rakuten.models.linear import LinearModel
from rakuten.models.neighbours import N_COMPONENTS, ImageNeighbours
from rakuten.models.parents import ParentFallback
from rakuten.models.pyfunc_model import PREDICTIONS
from rakuten.models.training import ngram_blocks
from rakuten.types import FINETUNED_TEXT, IMAGE, NGRAMS, TEXT
from tests.support.features import TEXT_ONLY, feature_table
from tests.support.project import ROOT, environment
from tests.support.training import PARAMS, fit_batch


def test_predictions_are_codes_in_descending_order(classifier: ProductClassifier) -> None:
    table = feature_table(["Pompe de piscine", "Livre de poèmes", "", "zzz"]).set_index(np.array([7, 3, 5, 1]))
    predicted = classifier.predict(FeatureBatch(table))
    assert predicted.index.tolist() == [7, 3, 5, 1]
    assert list(predicted.columns) == list(PREDICTIONS)
    assert predicted["predicted_prdtypecode"].tolist()[:2] == [2583, 2705]
    assert predicted["label"].tolist()[0] == "piscine et spa"
    codes, confidence = (predicted[list(columns)] for columns in zip(*CHOICE_COLUMNS, strict=True))
    assert codes.notna().to_numpy().tolist() == confidence.notna().to_numpy().tolist() == [[True] * 3 + [False] * 2] * 4
    confidence = confidence.iloc[:, :3]  # the model has three classes
    assert (confidence.diff(axis=1).iloc[:, 1:] <= 0).all(axis=None)
    assert confidence.sum(axis=1).to_numpy() == pytest.approx(1, abs=2e-6)
    assert (codes.nunique(axis=1) == 3).all()


def test_a_product_to_review_has_its_parent_where_that_is_sure(
    classifier: ProductClassifier, batch: FeatureBatch, tmp_path: Path
) -> None:
    config = classifier.config._replace(threshold=0.9)
    unsure = ProductClassifier(classifier.vectorizer, classifier.linear, classifier.fusion, config)
    assert (unsure.predict(batch)["parent"] == "").all()
    unsure.parents = ParentFallback({40: "leisure", 2705: "leisure"}, 0.8)
    unsure.save(tmp_path)
    predicted, proba = ProductClassifier.load(tmp_path).predict(batch), unsure.predict_proba(batch)
    leisure = proba[:, np.isin(unsure.classes, [40, 2705])].sum(axis=1) >= 0.8
    assert (predicted["parent"] == np.where(predicted["needs_review"] & leisure, "leisure", "")).all()
    assert set(predicted["parent"]) == {"", "leisure"}


@pytest.mark.parametrize(
    "parents",
    [
        {"threshold": 1.2, "of": {}},
        {"threshold": float("nan"), "of": {}},
        {"threshold": 1, "of": {"7": "x"}},
        {"of": {}},
    ],
)
def test_parents_that_do_not_belong_to_the_model(
    classifier: ProductClassifier, tmp_path: Path, parents: dict[str, object]
) -> None:
    classifier.save(tmp_path)
    manifest = json.loads((tmp_path / MANIFEST_FILE).read_text(encoding="utf-8"))
    (tmp_path / MANIFEST_FILE).write_text(json.dumps(manifest | {"parents": parents}), encoding="utf-8")
    with pytest.raises(UserError, match="not a readable model"):
        ProductClassifier.load(tmp_path)


def test_predictions_agree_with_the_probabilities(classifier: ProductClassifier, batch: FeatureBatch) -> None:
    proba, predicted = classifier.predict_proba(batch), classifier.predict(batch)
    assert (predicted["confidence"] == proba.max(axis=1).round(6)).all()
    assert (predicted["predicted_prdtypecode"] == classifier.classes[proba.argmax(axis=1)]).all()
    assert (predicted["third_confidence"] == proba.min(axis=1).round(6)).all()


def test_a_product_below_the_threshold_needs_review(classifier: ProductClassifier, batch: FeatureBatch) -> None:
    confidence = classifier.predict(batch)["confidence"]
    for threshold in (0.0, float(confidence[60]), 1.1):  # a confidence at the threshold needs no review
        config = classifier.config._replace(threshold=threshold)
        strict = ProductClassifier(classifier.vectorizer, classifier.linear, classifier.fusion, config)
        assert (strict.predict(batch)["needs_review"] == (confidence < threshold)).all()


def test_with_two_classes_the_other_choices_are_missing(tmp_path: Path) -> None:
    table = feature_table([f"jeu {number}" for number in range(20)] + [f"piscine {number}" for number in range(20)])
    classifier, _ = fit_batch(FeatureBatch(table.assign(prdtypecode=[10] * 20 + [2583] * 20)), tmp_path)
    predicted = classifier.predict(FeatureBatch(feature_table(["jeu", "piscine"])))
    assert predicted["predicted_prdtypecode"].tolist() == [10, 2583]
    assert predicted["second_prdtypecode"].tolist() == [2583, 10]
    assert predicted[[name for choice in CHOICE_COLUMNS[2:] for name in choice]].isna().all(axis=None)


def test_with_six_classes_the_five_likeliest_are_given(classifier: ProductClassifier) -> None:
    proba = [0.1, 0.3, 0.02, 0.25, 0.18, 0.15]
    fusion = Fusion(
        (), np.array([10, 40, 50, 60, 1280, 2583]), np.log(proba), np.zeros(6), np.array([]), np.array([]), np.array([])
    )
    without_views = ProductClassifier(classifier.vectorizer, {}, fusion, classifier.config)
    (row,) = without_views.predict(FeatureBatch(feature_table(["jeu"]))).to_dict("records")
    assert [row[name] for choice in CHOICE_COLUMNS for name in choice] == [
        40, 0.3, 60, 0.25, 1280, 0.18, 2583, 0.15, 10, 0.1,
    ]  # fmt: skip
    assert [*row] == [*PREDICTIONS]


def test_top_k_gives_as_many_codes_as_requested(classifier: ProductClassifier, batch: FeatureBatch) -> None:
    assert classifier.top_k(batch, 1).codes.shape == (120, 1)
    assert classifier.top_k(batch, 99).codes.shape == (120, 3)


def test_codes_of_the_same_probability_are_in_ascending_order(classifier: ProductClassifier) -> None:
    fusion = Fusion(
        (), np.array([10, 40, 50]), np.log([0.2, 0.4, 0.4]), np.zeros(3), np.array([]), np.array([]), np.array([])
    )
    without_views = ProductClassifier(classifier.vectorizer, {}, fusion, classifier.config)
    assert without_views.top_k(FeatureBatch(feature_table(["jeu"])), 3).codes.tolist() == [[40, 50, 10]]


def test_an_image_alone_is_enough(classifier: ProductClassifier, red: np.ndarray, green: np.ndarray) -> None:
    batch = FeatureBatch(feature_table(["", ""], has_image=1), None, np.vstack([red, green]))
    code = classifier.predict(batch)["predicted_prdtypecode"]
    assert code[0] == 2583
    assert code[1] != 2583


def test_an_image_adds_to_what_the_title_tells(classifier: ProductClassifier, red: np.ndarray) -> None:
    table, column = feature_table(["objet"], has_image=1), classifier.classes.tolist().index(2583)
    with_image = classifier.predict_proba(FeatureBatch(table, None, red))[0, column]
    missing = classifier.predict_proba(FeatureBatch(table, None, np.full((1, 4), np.nan, dtype=np.float16)))[0, column]
    assert with_image > missing + 0.2
    assert classifier.predict_proba(FeatureBatch(table))[0, column] == missing


def test_a_missing_view_has_no_scores(classifier: ProductClassifier, red: np.ndarray) -> None:
    embeddings = np.vstack([red, np.full((1, 4), np.nan)]).astype(np.float16)
    scores = classifier.scores(FeatureBatch(feature_table(["", "jeu"]), None, embeddings))
    assert np.isnan(scores[NGRAMS]).all(axis=1).tolist() == [True, False]
    assert np.isnan(scores[IMAGE]).all(axis=1).tolist() == [False, True]


def test_a_row_has_the_same_scores_alone_and_in_a_batch(
    classifier: ProductClassifier, red: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = FeatureBatch(feature_table([f"jeu {number}" for number in range(7)]), None, np.tile(red, (7, 1)))
    at_once = classifier.predict_proba(batch)
    monkeypatch.setattr(module, "CHUNK_ROWS", 2)
    assert classifier.predict_proba(batch) == pytest.approx(at_once, abs=1e-12)
    assert classifier.predict_proba(batch[0:0]).shape == (0, 3)


def test_a_saved_model_predicts_the_same(classifier: ProductClassifier, batch: FeatureBatch, tmp_path: Path) -> None:
    classifier.save(tmp_path)
    loaded = ProductClassifier.load(tmp_path)
    assert loaded.predict(batch).equals(classifier.predict(batch))
    assert loaded.config == classifier.config
    assert loaded.neighbours is not None
    assert classifier.neighbours is not None
    for stored, array in zip(loaded.neighbours, classifier.neighbours, strict=True):
        assert (stored == array).all()


def test_a_loaded_model_is_saved_as_the_same_bytes(classifier: ProductClassifier, tmp_path: Path) -> None:
    classifier.save(tmp_path / "a")
    ProductClassifier.load(tmp_path / "a").save(tmp_path / "b")
    for name in (MODEL_FILE, VECTORIZER_FILE, MANIFEST_FILE):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_model_names_the_digest_of_its_fine_tuned_network(classifier: ProductClassifier, tmp_path: Path) -> None:
    network = NetworkFolder(tmp_path / NETWORKS_FOLDER / "text", "0" * 64)
    parts = (classifier.vectorizer, classifier.linear, classifier.fusion, classifier.config, classifier.neighbours)
    ProductClassifier(*parts, {FINETUNED_TEXT: network}).save(tmp_path)
    assert ProductClassifier.load(tmp_path).networks == {FINETUNED_TEXT: network}
    classifier.save(tmp_path)
    assert ProductClassifier.load(tmp_path).networks == {}
    assert "networks" not in json.loads((tmp_path / MANIFEST_FILE).read_text())


def test_loading_unpickles_nothing(classifier: ProductClassifier, tmp_path: Path) -> None:
    classifier.save(tmp_path)
    script = (
        "import sys; from pathlib import Path; from rakuten.models.classifier import ProductClassifier\n"
        "def refuse(event, _):\n"
        "    if event == 'pickle.find_class': raise RuntimeError('a pickle was opened')\n"
        "sys.addaudithook(refuse)\n"
        "ProductClassifier.load(Path(sys.argv[1]))\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    subprocess.run(command, env=environment(ROOT), check=True, timeout=120)


@pytest.mark.parametrize("name", [MODEL_FILE, VECTORIZER_FILE, MANIFEST_FILE])
@pytest.mark.parametrize("damage", ["missing", "truncated", "changed", "empty"])
def test_a_damaged_file_is_one_clear_error(
    classifier: ProductClassifier, tmp_path: Path, name: str, damage: str
) -> None:
    classifier.save(tmp_path)
    data = (tmp_path / name).read_bytes()
    changed = bytearray(data)
    changed[len(data) // 2] ^= 1
    (tmp_path / name).unlink()
    if damage != "missing":
        (tmp_path / name).write_bytes({"truncated": data[: len(data) // 2], "changed": changed, "empty": b""}[damage])
    with pytest.raises(UserError, match="run `dvc repro`") as caught:
        ProductClassifier.load(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_a_manifest_that_is_nested_deeply_is_refused(classifier: ProductClassifier, tmp_path: Path) -> None:
    classifier.save(tmp_path)
    (tmp_path / MANIFEST_FILE).write_text("[" * 100_000)
    with pytest.raises(UserError, match="not a readable model"):
        ProductClassifier.load(tmp_path)


def test_a_vocabulary_with_another_letter_is_refused(classifier: ProductClassifier, tmp_path: Path) -> None:
    """Nothing but the digest shows it."""
    classifier.save(tmp_path)
    path = tmp_path / VECTORIZER_FILE
    terms = path.read_text(encoding="utf-8")
    path.write_text(terms.replace('"pompe"', '"bombe"'), encoding="utf-8", newline="\n")
    assert path.read_text(encoding="utf-8") != terms
    with pytest.raises(UserError, match="vectorizer.json: damaged or from another model"):
        ProductClassifier.load(tmp_path)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("format", 1, "model format 1, this code reads 2"),
        ("features", {"lowercase": "yes"}, "not a readable model"),
        ("sha256", {}, "damaged or from another model"),
        ("sha256", {"../escape": "0"}, "damaged or from another model"),
        ("sha256", None, "not a readable model"),
    ],
)
def test_a_manifest_of_another_kind_is_refused(
    classifier: ProductClassifier, tmp_path: Path, key: str, value: object, message: str
) -> None:
    classifier.save(tmp_path)
    manifest = json.loads((tmp_path / MANIFEST_FILE).read_text())
    (tmp_path / MANIFEST_FILE).write_text(json.dumps({**manifest, key: value}))
    with pytest.raises(UserError, match=message):
        ProductClassifier.load(tmp_path)


def test_a_cached_model_must_have_the_expected_version(classifier: ProductClassifier, tmp_path: Path) -> None:
    classifier.save(tmp_path)
    version = digest(tmp_path / MANIFEST_FILE)[:12]
    assert load_cached(tmp_path, version) is load_cached(tmp_path, version)
    with pytest.raises(UserError, match="the model was replaced during the run"):
        load_cached(tmp_path, "0" * 12)


def test_the_model_stays_small_at_full_size(tmp_path: Path) -> None:
    """As many terms as the blocks may keep, 27 classes and 85,000 images."""
    rng, blocks = np.random.default_rng(0), ngram_blocks(PARAMS)
    terms = [[f"{number:x}{block.analyzer}" for number in range(block.max_features)] for block in blocks]
    idf = [rng.random(block.max_features, dtype=np.float32) for block in blocks]

    def linear(width: int) -> LinearModel:
        return LinearModel(np.arange(27), rng.random((27, width), dtype=np.float32), rng.random(27, dtype=np.float32))

    views = {NGRAMS: linear(sum(map(len, terms))), TEXT: linear(512), IMAGE: linear(2432)}
    fusion = Fusion(
        views=tuple(views),
        classes=np.arange(27),
        prior=np.zeros(27),
        bias=np.zeros(27),
        temperature=np.ones(3),
        view_weights=np.zeros((3, N_TERMS, len(CONTEXT))),
        class_offsets=np.zeros((3, N_TERMS, 27)),
    )
    ids = np.arange(85_000)
    neighbours = ImageNeighbours(
        components=rng.random((2432, N_COMPONENTS), dtype=np.float32),
        mean=np.zeros(2432, dtype=np.float32),
        vectors=rng.random((85_000, N_COMPONENTS)).astype(np.float16),
        productid=ids,
        imageid=ids,
        prdtypecode=ids,
    )
    config = ModelConfig(TEXT_ONLY, {}, 0.95, 0.9)
    ProductClassifier(NgramVectorizer(blocks, terms, idf), views, fusion, config, neighbours).save(tmp_path)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 150e6


def test_a_novel_product_needs_review_however_sure_the_model_is(
    classifier: ProductClassifier, batch: FeatureBatch
) -> None:
    config = classifier.config._replace(threshold=0.0, novelty_false_alarms=0.1)
    lenient = ProductClassifier(classifier.vectorizer, classifier.linear, classifier.fusion, config)
    assert not lenient.predict(batch)["is_novel"].any()  # a model of before the novelty was measured
    assert lenient.predict(batch)["novelty"].isna().all()
    lenient.novelty = classifier.novelty
    table = pd.concat([batch.table.drop(columns="prdtypecode"), feature_table([""])], ignore_index=True)
    predicted = lenient.predict(FeatureBatch(table))
    assert predicted["novelty"].isna().tolist() == [False] * 120 + [True]  # the last has nothing to judge it by
    assert predicted["is_novel"].tolist() == (predicted["novelty"] >= 0.9).tolist()
    assert 0 < predicted["is_novel"].mean() < 0.5
    assert (predicted["needs_review"] == predicted["is_novel"]).all()
    assert lenient.predict(batch[0:0])["novelty"].tolist() == []


def test_a_novel_product_has_no_parent(classifier: ProductClassifier, batch: FeatureBatch) -> None:
    """It is unlike all products of the parent as well."""
    config = classifier.config._replace(threshold=1.01, novelty_false_alarms=0.1)
    unsure = ProductClassifier(classifier.vectorizer, classifier.linear, classifier.fusion, config)
    unsure.novelty = classifier.novelty
    unsure.parents = ParentFallback(dict.fromkeys(classifier.classes.tolist(), "all"), 0.0)
    predicted = unsure.predict(batch)
    assert predicted["is_novel"].any()
    assert predicted["needs_review"].all()
    assert ((predicted["parent"] == "") == predicted["is_novel"]).all()


def test_a_model_of_before_the_novelty_is_loaded_without_it(classifier: ProductClassifier, tmp_path: Path) -> None:
    old = ProductClassifier(
        classifier.vectorizer, classifier.linear, classifier.fusion, classifier.config, classifier.neighbours
    )
    old.save(tmp_path)
    manifest = json.loads((tmp_path / MANIFEST_FILE).read_text(encoding="utf-8"))
    del manifest["novelty_false_alarms"]
    (tmp_path / MANIFEST_FILE).write_text(json.dumps(manifest), encoding="utf-8")
    loaded = ProductClassifier.load(tmp_path)
    assert loaded.novelty is None
    assert loaded.config.novelty_false_alarms == 0
