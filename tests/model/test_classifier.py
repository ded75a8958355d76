import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix

from src.config import FeatureParams, load_params
from src.errors import UserError
from src.features.ngrams import Block, NgramVectorizer
from src.features.products import product_features
from src.models import classifier as module
from src.models.classifier import MANIFEST, MODEL, VECTORIZER, Linear, ProductClassifier, align, fit_linear
from src.models.evaluation import probabilities
from src.models.raw_model import OUTPUTS, _load_pyfunc
from src.models.train_model import blocks_of, fit

PARAMS = FeatureParams(lowercase=True, strip_accents=True)


def products(titles: list[str]) -> pd.DataFrame:
    rows = {"productid": [str(n) for n in range(len(titles))], "imageid": "1", "designation": titles}
    return pd.DataFrame({**rows, "description": "", "has_image": "False"})


@pytest.fixture(scope="module")
def trained() -> ProductClassifier:
    words = {2583: "piscine pompe bâche", 2705: "roman livre poèmes", 40: "jeu console manette"}
    rng = np.random.default_rng(0)
    titles, codes = [], []
    for code, vocabulary in words.items():
        for number in range(12):
            titles.append(" ".join([*rng.choice(vocabulary.split(), 2), str(number)]))
            codes.append(code)
    table = product_features(products(titles), PARAMS).assign(prdtypecode=codes)
    return fit(table, load_params()).classifier


def test_it_learns_and_tells_alternatives(trained: ProductClassifier) -> None:
    table = product_features(products(["Pompe de piscine", "Livre de poèmes", "", "zzz"]), PARAMS)
    predicted = trained.predict(table)
    assert predicted["predicted_prdtypecode"].tolist()[:2] == [2583, 2705]
    assert predicted["label"].tolist()[0] == "piscine et spa"
    assert list(predicted.columns) == list(OUTPUTS)
    ordered = predicted[["confidence", "second_confidence", "third_confidence"]]
    assert (ordered.diff(axis=1).iloc[:, 1:] <= 0).all(axis=None)
    assert ordered.sum(axis=1).to_numpy() == pytest.approx(1, abs=2e-6)
    assert predicted["needs_review"].tolist() == (predicted["confidence"] < 0.5).tolist()
    strict = ProductClassifier(trained.vectorizer, trained.linear, trained.temperature, PARAMS, 1.01)
    assert strict.predict(table)["needs_review"].all()


def test_a_row_is_scored_alike_alone_and_in_a_batch(
    trained: ProductClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = product_features(products([f"jeu {n}" for n in range(7)]), PARAMS)
    whole = trained.predict_proba(table)
    monkeypatch.setattr(module, "BATCH", 2)
    assert (trained.predict_proba(table) == whole).all()
    assert trained.predict_proba(table[:0]).shape == (0, 3)


def test_what_is_saved_is_what_is_loaded(trained: ProductClassifier, tmp_path: Path) -> None:
    trained.save(tmp_path / "a")
    again = ProductClassifier.load(tmp_path / "a")
    again.save(tmp_path / "b")
    for name in (MODEL, VECTORIZER, MANIFEST):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    table = product_features(products(["pompe", "roman 3"]), PARAMS)
    assert again.predict(table).equals(trained.predict(table))
    assert again.features == PARAMS


def test_loading_unpickles_nothing(trained: ProductClassifier, tmp_path: Path) -> None:
    trained.save(tmp_path)
    script = (
        "import sys; from pathlib import Path; from src.models.classifier import ProductClassifier\n"
        "def refuse(event, _):\n"
        "    if event == 'pickle.find_class': raise RuntimeError('a pickle was opened')\n"
        "sys.addaudithook(refuse)\n"
        "ProductClassifier.load(Path(sys.argv[1]))\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True, timeout=120)


@pytest.mark.parametrize("name", [MODEL, VECTORIZER, MANIFEST])
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
        ("format", 99, "model format 99, this code reads 1"),
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
    manifest = json.loads((tmp_path / MANIFEST).read_text())
    (tmp_path / MANIFEST).write_text(json.dumps({**manifest, key: value}))
    with pytest.raises(UserError, match=message):
        ProductClassifier.load(tmp_path)


def test_two_classes_have_two_scores() -> None:
    linear = fit_linear(csr_matrix(np.eye(4, dtype=np.float32)), np.array([10, 10, 40, 40]), 1.0, 0)
    scores = linear.decision(csr_matrix(np.eye(4, dtype=np.float32)))
    assert scores.shape == (4, 2)
    assert linear.classes[scores.argmax(axis=1)].tolist() == [10, 10, 40, 40]
    vectorizer = NgramVectorizer([Block(("style",), False, "word", 1, 1, 9, 1.0)], [["a", "b", "c", "d"]], [np.ones(4)])
    two = ProductClassifier(vectorizer, linear, 1.0, PARAMS, 0.5)
    predicted = two.predict(pd.DataFrame({"style": ["a", "d"]}))
    assert predicted["predicted_prdtypecode"].tolist() == [10, 40]
    assert predicted["third_prdtypecode"].isna().all()
    assert predicted["third_confidence"].isna().all()


def test_a_class_that_a_fold_never_saw_scores_below_all() -> None:
    scores = align(np.array([[0.5, -2.0]]), np.array([1, 2, 3]), np.array([1, 3]))
    assert scores.tolist() == [[0.5, -3.0, -2.0]]
    assert probabilities(scores, 1.0).argmin() == 1


def test_a_class_with_one_title_is_kept() -> None:
    table = product_features(products([f"jeu {n}" for n in range(20)] + ["piscine"]), PARAMS)
    training = fit(table.assign(prdtypecode=[10] * 20 + [2583]), load_params())
    assert training.classifier.classes.tolist() == [10, 2583]
    assert training.metrics["f1"]["2583"] == 0


def test_the_model_takes_raw_products(trained: ProductClassifier, tmp_path: Path) -> None:
    trained.save(tmp_path)
    raw = pd.DataFrame({"designation": ["<b>B&acirc;che</b> de PISCINE", None], "other": 1})
    predicted = _load_pyfunc(str(tmp_path)).predict(raw)
    clean = product_features(products(["<b>B&acirc;che</b> de PISCINE", ""]), PARAMS)
    assert predicted.equals(trained.predict(clean))


def test_the_model_stays_small_at_full_size(tmp_path: Path) -> None:
    """As many terms as the blocks may keep, for the 27 classes."""
    rng, blocks = np.random.default_rng(0), blocks_of(load_params().train)
    terms = [[f"{at:x}{block.analyzer}" for at in range(block.limit)] for block in blocks]
    idf = [rng.random(block.limit, dtype=np.float32) for block in blocks]
    width = sum(block.limit for block in blocks)
    linear = Linear(np.arange(27), rng.random((27, width), dtype=np.float32), rng.random(27, dtype=np.float32))
    ProductClassifier(NgramVectorizer(blocks, terms, idf), linear, 1.0, PARAMS, 0.5).save(tmp_path)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 150e6


def test_bytes_do_not_hang_on_the_process(tmp_path: Path) -> None:
    script = (
        "import sys, pandas as pd; from pathlib import Path\n"
        "from src.config import load_params; from src.models.train_model import fit\n"
        "rows = pd.DataFrame({'designation_clean': [f'titre {n} {n % 3}' for n in range(30)]})\n"
        "rows = rows.assign(description_clean='', style='a', productid='1', imageid='1')\n"
        "rows = rows.assign(prdtypecode=[10, 40, 50] * 10)\n"
        "fit(rows, load_params()).classifier.save(Path(sys.argv[1]))\n"
    )
    for seed in ("1", "2"):
        environment = {"PYTHONHASHSEED": seed, "OMP_NUM_THREADS": seed, "OPENBLAS_NUM_THREADS": seed}
        command = [sys.executable, "-c", script, str(tmp_path / seed)]
        subprocess.run(command, check=True, env={**os.environ, **environment}, timeout=120)
    for name in (MODEL, VECTORIZER, MANIFEST):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()
