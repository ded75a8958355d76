import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score

from rakuten.config import FeatureParams, Params, load_params
from rakuten.errors import UserError
from rakuten.features.feature_set import FeatureBatch, FeatureSet
from rakuten.features.ngrams import NgramVectorizer
from rakuten.features.text_features import text_feature_table, texts_to_embed
from rakuten.models import classifier as module
from rakuten.models import fusion, fusion_selection, training
from rakuten.models.classifier import MANIFEST_FILE, MODEL_FILE, VECTORIZER_FILE, ModelConfig, ProductClassifier
from rakuten.models.explain import explain
from rakuten.models.fusion import CONTEXT, N_TERMS, Fusion
from rakuten.models.linear import LinearModel
from rakuten.models.neighbours import ImageNeighbours
from rakuten.models.pyfunc_model import OUTPUTS, PyfuncModel, _load_pyfunc
from rakuten.models.training import ngram_blocks
from rakuten.types import IMAGE, NGRAMS

PARAMS = load_params()
FEATURES: FeatureParams = PARAMS.features.model_copy(update={"image_encoder": "none", "text_encoder": "none"})
SCRATCH = Path(tempfile.mkdtemp())
RED, GREEN = np.array([3.0, 0, 0, 1]), np.array([0, 3.0, 0, 1])


def fit(given: FeatureBatch, params: Params, encoders: dict[str, str]) -> training.TrainingResult:
    catalogue = FeatureSet.of([given.table], given.texts, given.pictures)
    return training.fit(catalogue, params, encoders, Path(tempfile.mkdtemp(dir=SCRATCH)))


def products(titles: list[str]) -> pd.DataFrame:
    rows = {"productid": [str(n) for n in range(len(titles))], "imageid": "1", "designation": titles}
    return pd.DataFrame({**rows, "description": "", "has_image": "False"})


def described(titles: list[str]) -> pd.DataFrame:
    return text_feature_table(products(titles), FEATURES)


@pytest.fixture(scope="module", autouse=True)
def scratch() -> Iterator[None]:
    yield
    shutil.rmtree(SCRATCH)


@pytest.fixture(scope="module")
def learnt() -> tuple[training.TrainingResult, FeatureBatch]:
    """A hundred and twenty products of three codes: words tell most, pictures tell one code from the others."""
    words = {2583: "piscine pompe bâche", 2705: "roman livre poèmes", 40: "jeu console manette"}
    rng = np.random.default_rng(0)
    titles, codes, pictures = [], [], []
    for code, vocabulary in words.items():
        for number in range(40):
            telling = [*rng.choice(vocabulary.split(), 2)] if number % 3 else ["objet neuf"]
            titles.append(" ".join([*telling, str(number)]))
            codes.append(code)
            pictures.append((RED if code == 2583 else GREEN) + rng.normal(size=4) * 0.5)
    table = described(titles).assign(prdtypecode=codes, has_image=1)
    vectors = np.array(pictures, dtype=np.float16)
    vectors[::5] = np.nan
    given = FeatureBatch(table, None, vectors)
    return fit(given, PARAMS, {IMAGE: "abc"}), given


@pytest.fixture(scope="module")
def trained(learnt: tuple[training.TrainingResult, FeatureBatch]) -> ProductClassifier:
    return learnt[0].classifier


def test_it_learns_and_tells_alternatives(trained: ProductClassifier) -> None:
    predicted = trained.predict(FeatureBatch(described(["Pompe de piscine", "Livre de poèmes", "", "zzz"])))
    assert predicted["predicted_prdtypecode"].tolist()[:2] == [2583, 2705]
    assert predicted["label"].tolist()[0] == "piscine et spa"
    assert list(predicted.columns) == list(OUTPUTS)
    ordered = predicted[["confidence", "second_confidence", "third_confidence"]]
    assert (ordered.diff(axis=1).iloc[:, 1:] <= 0).all(axis=None)
    assert ordered.sum(axis=1).to_numpy() == pytest.approx(1, abs=2e-6)
    assert predicted["needs_review"].tolist() == (predicted["confidence"] < trained.settings.threshold).tolist()
    strict = trained.settings._replace(threshold=1.1)
    never = ProductClassifier(trained.vectorizer, trained.linear, trained.fusion, strict)
    assert never.predict(FeatureBatch(described(["pompe"])))["needs_review"].all()


def test_a_picture_alone_classifies_and_a_picture_beside_words_helps(trained: ProductClassifier) -> None:
    table = described(["", "", "objet"]).assign(has_image=1)
    vectors = np.array([RED, GREEN, RED], dtype=np.float16)
    seen = trained.predict(FeatureBatch(table, None, vectors))
    assert seen["predicted_prdtypecode"].tolist()[0] == 2583
    assert seen["predicted_prdtypecode"].tolist()[1] != 2583
    unseen = trained.predict_proba(FeatureBatch(table, None, np.full((3, 4), np.nan, dtype=np.float16)))
    place = trained.classes.tolist().index(2583)
    assert trained.predict_proba(FeatureBatch(table, None, vectors))[2, place] > unseen[2, place] + 0.2


def test_a_row_is_scored_alike_alone_and_in_a_batch(
    trained: ProductClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = FeatureBatch(described([f"jeu {n}" for n in range(7)]), None, np.tile(RED, (7, 1)).astype(np.float16))
    whole = trained.predict_proba(given)
    monkeypatch.setattr(module, "BATCH", 2)
    assert trained.predict_proba(given) == pytest.approx(whole, abs=1e-12)
    assert trained.predict_proba(given.part(slice(0, 0))).shape == (0, 3)


def test_what_is_saved_is_what_is_loaded(learnt: tuple[training.TrainingResult, FeatureBatch], tmp_path: Path) -> None:
    trained, given = learnt[0].classifier, learnt[1]
    trained.save(tmp_path / "a")
    again = ProductClassifier.load(tmp_path / "a")
    again.save(tmp_path / "b")
    for name in (MODEL_FILE, VECTORIZER_FILE, MANIFEST_FILE):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert again.predict(given).equals(trained.predict(given))
    assert again.settings == trained.settings
    assert again.settings.encoders == {IMAGE: "abc"}


def test_out_of_fold_it_is_no_worse_than_text_alone(learnt: tuple[training.TrainingResult, FeatureBatch]) -> None:
    fitted = learnt[0]
    assert set(fitted.compared) == {NGRAMS, IMAGE, "equal average", "text alone"}
    assert fitted.compared[IMAGE].rows.sum() == 96
    text = fitted.compared["text alone"].predicted == fitted.true_index
    assert (fitted.likely.argmax(axis=1) == fitted.true_index).sum() >= text.sum()


def test_pictures_that_mislead_are_left_out(learnt: tuple[training.TrainingResult, FeatureBatch]) -> None:
    """Pictures of noise, on products with text: the fusion may not fall below text alone."""
    rng = np.random.default_rng(1)
    table = learnt[1].table
    for seed in range(3):
        noise = rng.normal(size=(len(table), 30)).astype(np.float16)
        fitted = fit(FeatureBatch(table, None, noise), PARAMS.model_copy(update={"seed": seed}), {})
        text = (fitted.compared["text alone"].predicted == fitted.true_index).mean()
        assert (fitted.likely.argmax(axis=1) == fitted.true_index).mean() >= text


@pytest.mark.parametrize("pictures", [0, 10, 60, 120])
def test_any_number_of_pictures_will_do(learnt: tuple[training.TrainingResult, FeatureBatch], pictures: int) -> None:
    table, vectors = learnt[1].table, np.array(learnt[1].pictures)
    vectors[pictures:] = np.nan
    fitted = fit(FeatureBatch(table, None, vectors), PARAMS, {})
    assert (IMAGE in fitted.classifier.linear) == (np.isfinite(vectors[:, 0]).sum() >= training.MIN_VIEW_ROWS)
    assert np.isfinite(fitted.likely).all()


def test_products_of_pictures_alone_make_a_model(learnt: tuple[training.TrainingResult, FeatureBatch]) -> None:
    table = described([""] * 120).assign(
        prdtypecode=learnt[1].table["prdtypecode"].to_numpy(),
        productid=[str(n) for n in range(120)], imageid="1", has_image=1,
    )  # fmt: skip
    vectors = np.array(learnt[1].pictures)
    fitted = fit(FeatureBatch(table, None, vectors), PARAMS, {})
    assert list(fitted.classifier.linear) == [IMAGE]
    there = np.isfinite(vectors[:, 0])
    assert (fitted.likely.argmax(axis=1) == fitted.true_index)[there].mean() > 0.5
    assert len(np.unique(fitted.fold)) == 5


def test_products_of_nothing_get_what_is_common() -> None:
    table = described([""] * 30).assign(prdtypecode=[10] * 20 + [40] * 10, productid=[str(n) for n in range(30)])
    model = fit(FeatureBatch(table), PARAMS, {}).classifier
    assert (model.predict(FeatureBatch(table))["predicted_prdtypecode"] == 10).all()


def test_an_explanation_adds_up_and_names_what_spoke(learnt: tuple[training.TrainingResult, FeatureBatch]) -> None:
    trained = learnt[0].classifier
    given = FeatureBatch(described(["Pompe roman 3"]).assign(has_image=1), None, RED[None].astype(np.float16))
    why = explain(trained, given)
    assert why.prdtypecode == trained.predict(given)["predicted_prdtypecode"].iloc[0]
    assert why.confidence == pytest.approx(trained.predict_proba(given).max())
    assert why.views["view"].tolist() == [NGRAMS, IMAGE]
    assert why.views["share"].sum() == pytest.approx(1)
    pool = explain(trained, given, 2583)
    assert "pompe" in pool.spoke_for["term"].tolist()
    assert any("rom" in term for term in pool.spoke_against["term"])
    assert (pool.spoke_for["contribution"].diff().iloc[1:] <= 0).all()
    assert (pool.spoke_against["contribution"] < 0).all()
    assert pool.views.set_index("view")["contribution"][IMAGE] > 0
    assert (pool.pictures["prdtypecode"] == 2583).all()
    assert pool.pictures["similarity"].is_monotonic_decreasing
    known = set(learnt[1].table["productid"].astype(int))
    assert set(pool.pictures["productid"]) <= known
    bare = explain(trained, FeatureBatch(described([""])))
    assert bare.spoke_for.empty
    assert bare.pictures.empty


def test_loading_unpickles_nothing(trained: ProductClassifier, tmp_path: Path) -> None:
    trained.save(tmp_path)
    script = (
        "import sys; from pathlib import Path; from rakuten.models.classifier import ProductClassifier\n"
        "def refuse(event, _):\n"
        "    if event == 'pickle.find_class': raise RuntimeError('a pickle was opened')\n"
        "sys.addaudithook(refuse)\n"
        "ProductClassifier.load(Path(sys.argv[1]))\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True, timeout=120)


@pytest.mark.parametrize("name", [MODEL_FILE, VECTORIZER_FILE, MANIFEST_FILE])
@pytest.mark.parametrize("damage", ["missing", "truncated", "tampered", "empty"])
def test_a_damaged_file_gives_one_clear_error(
    trained: ProductClassifier, tmp_path: Path, name: str, damage: str
) -> None:
    trained.save(tmp_path)
    data = (tmp_path / name).read_bytes()
    changed = bytearray(data)
    changed[len(data) // 2] ^= 1
    (tmp_path / name).unlink()
    if damage != "missing":
        (tmp_path / name).write_bytes({"truncated": data[: len(data) // 2], "tampered": changed, "empty": b""}[damage])
    with pytest.raises(UserError, match="run `dvc repro`") as caught:
        ProductClassifier.load(tmp_path)
    assert str(tmp_path) in str(caught.value)


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
def test_a_foreign_manifest_is_refused(
    trained: ProductClassifier, tmp_path: Path, key: str, value: object, message: str
) -> None:
    trained.save(tmp_path)
    manifest = json.loads((tmp_path / MANIFEST_FILE).read_text())
    (tmp_path / MANIFEST_FILE).write_text(json.dumps({**manifest, key: value}))
    with pytest.raises(UserError, match=message):
        ProductClassifier.load(tmp_path)


def test_with_two_classes_the_third_choice_stays_empty() -> None:
    table = described([f"jeu {n}" for n in range(20)] + [f"piscine {n}" for n in range(20)])
    two = fit(FeatureBatch(table.assign(prdtypecode=[10] * 20 + [2583] * 20)), PARAMS, {}).classifier
    predicted = two.predict(FeatureBatch(described(["jeu", "piscine"])))
    assert predicted["predicted_prdtypecode"].tolist() == [10, 2583]
    assert predicted["third_prdtypecode"].isna().all()
    assert predicted["third_confidence"].isna().all()


def test_a_class_with_one_title_is_kept() -> None:
    table = described([f"jeu {n}" for n in range(20)] + ["piscine"])
    fitted = fit(FeatureBatch(table.assign(prdtypecode=[10] * 20 + [2583])), PARAMS, {})
    assert fitted.classifier.classes.tolist() == [10, 2583]
    assert fitted.likely.argmax(axis=1)[20] == 0


def test_the_model_takes_raw_products(tmp_path: Path) -> None:
    table = described([f"jeu {n}" for n in range(20)] + [f"piscine {n}" for n in range(20)])
    params = PARAMS.model_copy(update={"features": FEATURES})
    model = fit(FeatureBatch(table.assign(prdtypecode=[10] * 20 + [2583] * 20)), params, {}).classifier
    model.save(tmp_path)
    raw = pd.DataFrame({"designation": ["<b>B&acirc;che</b> de PISCINE", None], "other": 1, "picture": [b"none", None]})
    predicted = _load_pyfunc(str(tmp_path)).predict(raw)
    assert predicted.equals(model.predict(FeatureBatch(described(["<b>B&acirc;che</b> de PISCINE", ""]))))


def test_a_model_of_another_encoder_is_refused(trained: ProductClassifier) -> None:
    with pytest.raises(UserError, match="another picture encoder"):
        PyfuncModel(trained)


def test_title_and_description_are_embedded_together() -> None:
    rows = products(["Bâche", "", "x"]).assign(description=["<p>Été</p>", "seul", ""])
    assert texts_to_embed(text_feature_table(rows, FEATURES)) == ["bache ete", "seul", "x"]


def test_the_model_stays_small_at_full_size(tmp_path: Path) -> None:
    """As many terms as the blocks may keep, for the 27 classes."""
    rng, blocks = np.random.default_rng(0), ngram_blocks(PARAMS)
    terms = [[f"{at:x}{block.analyzer}" for at in range(block.limit)] for block in blocks]
    idf = [rng.random(block.limit, dtype=np.float32) for block in blocks]
    width = sum(block.limit for block in blocks)

    def linear(columns: int) -> LinearModel:
        return LinearModel(np.arange(27), rng.random((27, columns), dtype=np.float32), rng.random(27, dtype=np.float32))

    views = {NGRAMS: linear(width), "meaning": linear(512), IMAGE: linear(2432)}
    trust, own = np.zeros((3, N_TERMS, len(CONTEXT))), np.zeros((3, N_TERMS, 27))
    fused = Fusion(tuple(views), np.arange(27), np.zeros(27), np.zeros(27), np.ones(3), trust, own)
    ids = np.arange(85_000)
    near = ImageNeighbours(
        rng.random((2432, 64), dtype=np.float32), np.zeros(2432, dtype=np.float32),
        rng.random((85_000, 64)).astype(np.float16), ids, ids, ids,
    )  # fmt: skip
    settings = ModelConfig(FEATURES, {}, 0.95, 0.9)
    ProductClassifier(NgramVectorizer(blocks, terms, idf), views, fused, settings, near).save(tmp_path)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 150e6


def test_bytes_do_not_hang_on_the_process(tmp_path: Path) -> None:
    script = (
        "import sys, numpy as np, pandas as pd; from pathlib import Path\n"
        "from rakuten.config import load_params\n"
        "from rakuten.models.catalogue import Catalogue; from rakuten.models.fitting import fit\n"
        "rows = pd.DataFrame({'designation_clean': [f'titre {n} {n % 3}' for n in range(90)]})\n"
        "rows = rows.assign(description_clean='', style='a', productid=[str(n) for n in range(90)], imageid='1')\n"
        "rows = rows.assign(designation_len=9, description_len=0, has_description=0, has_image=1)\n"
        "rows = rows.assign(prdtypecode=[10, 40, 50] * 30)\n"
        "vectors = np.random.default_rng(0).normal(size=(90, 700)).astype(np.float16)\n"
        "catalogue = Catalogue.of([rows], vectors, vectors[:, ::-1])\n"
        "fit(catalogue, load_params(), {}, Path(sys.argv[1] + 'scratch')).classifier.save(Path(sys.argv[1]))\n"
    )
    for seed in ("1", "2"):
        environment = {"PYTHONHASHSEED": seed, "OMP_NUM_THREADS": seed, "OPENBLAS_NUM_THREADS": seed}
        command = [sys.executable, "-c", script, str(tmp_path / seed)]
        subprocess.run(command, check=True, env={**os.environ, **environment}, timeout=120)
    for name in (MODEL_FILE, VECTORIZER_FILE, MANIFEST_FILE):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()


def test_where_pictures_do_not_help_they_wait_for_products_without_text(caplog: pytest.LogCaptureFixture) -> None:
    """Pictures of noise: whatever the draw, out of fold the model is no worse than its text."""
    rng = np.random.default_rng(0)
    truth, fold, has_text = rng.integers(0, 4, 200), np.arange(200) % 5, np.arange(200) % 10 > 0
    table = described(["un titre"] * 200).assign(has_image=1)
    where, codes = fusion.gating_context(table), np.array([10, 40, 50, 60])
    left_out = 0
    for seed in range(8):
        words = rng.normal(size=(200, 4))
        words[np.arange(200), truth] += 1
        words[~has_text] = np.nan
        scores = {NGRAMS: words, IMAGE: rng.normal(size=(200, 4))}
        caplog.clear()
        fused, found, _, compared = fusion_selection.select_fusion(
            scores, where, truth, codes, fold, has_text, seed, np.empty((200, 4))
        )
        kept, text = (f1_score(truth[has_text], p[has_text], average="weighted")
                      for p in (found, compared["text alone"].predicted))  # fmt: skip
        assert kept >= text
        if "do not help" in caplog.text:
            left_out += 1
            assert not fused.parts(scores, where)[IMAGE].any()
    assert left_out
