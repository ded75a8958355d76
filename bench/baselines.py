"""What the costs of the stages are compared with; bench.stages runs each in a process of its own."""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from joblib import Parallel, cpu_count, delayed
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from bench.text_features import CountedTable
from rakuten.config import PARAMS, load_params
from rakuten.data.image_decoding import decode
from rakuten.data.images import ImageFiles
from rakuten.data.synthetic import proportional_codes, synthetic_products
from rakuten.data.tables import read_raw, read_table
from rakuten.features.embedding import write_image_embeddings
from rakuten.features.encoders.factory import image_encoder
from rakuten.features.encoders.onnx import ImageEncoder
from rakuten.features.encoders.preprocessing import prepare_image
from rakuten.models.classifier import ProductClassifier
from rakuten.models.linear import fit_svm
from rakuten.models.pyfunc_model import PyfuncModel
from rakuten.models.training import ngram_blocks
from rakuten.types import NGRAMS

N_IMAGES, N_PRODUCTS = 2000, 300
SAMPLE_SEED = 1  # the default of `rakuten sample`
X_COLUMNS = ("index", "designation", "description", "productid", "imageid")


def text_fit(folder: Path) -> dict[str, Any]:
    """One fit of the n-gram model: counting, TF-IDF, the linear SVM."""
    params = load_params(PARAMS)
    table = read_table(folder / "processed" / "train_features.csv", integers=("prdtypecode",))
    codes, blocks = table["prdtypecode"].to_numpy(dtype=np.int64), ngram_blocks(params)
    started = time.process_time()
    rows = np.arange(len(table))
    (matrix,) = CountedTable(table, blocks).tfidf(rows, rows)
    fit_svm(matrix, codes, params.train.svm_c, params.seed)
    return {"fit_cpu_s": round(time.process_time() - started, 1)}


def rival(folder: Path) -> dict[str, Any]:
    """The best-known pipeline's settings: 20,000 word (1,2) TF-IDF columns, logistic regression, 200 iterations."""
    table = read_table(folder / "processed" / "train_features.csv", integers=("prdtypecode",))
    texts = table["designation_clean"] + " " + table["description_clean"]
    started = time.process_time()
    matrix = TfidfVectorizer(max_features=20_000, ngram_range=(1, 2)).fit_transform(texts)
    LogisticRegression(max_iter=200).fit(matrix, table["prdtypecode"])
    return {"fit_cpu_s": round(time.process_time() - started, 1)}


def encoder_loop(folder: Path) -> dict[str, Any]:
    """Images a second on all cores: the bare loop over the encoder, and the features stage's way to the file."""
    config = load_params(PARAMS).features.image_encoder
    paths: Sequence[Path | None] = list(ImageFiles(folder / "raw" / "images").values())[:N_IMAGES]
    parts = np.array_split(np.arange(len(paths)), cpu_count())
    workers = Parallel(n_jobs=len(parts))
    workers(delayed(_loop)(config, paths[:2]) for _ in parts)  # sessions made, pages read
    started = time.perf_counter()
    workers(delayed(_loop)(config, [paths[row] for row in part]) for part in parts)
    bare = time.perf_counter() - started
    cache, output = folder / "loop-cache", folder / "loop.npy"
    for old in cache.glob("*"):
        old.unlink()
    started = time.perf_counter()
    write_image_embeddings(lambda: paths, len(paths), config, cache, output, "images")
    stage = time.perf_counter() - started
    return {
        "bare_per_s": round(len(paths) / bare, 1),
        "stage_per_s": round(len(paths) / stage, 1),
        "ratio": round(bare / stage, 3),
        "one_image_ms": _one_image(image_encoder(config), [path for path in paths[:50] if path]),
    }


def _loop(config: Any, paths: Sequence[Path | None]) -> None:
    encoder = image_encoder(config)
    for path in paths:
        if path is not None:
            encoder.encode(path.read_bytes())


def _one_image(encoder: ImageEncoder, paths: Sequence[Path]) -> dict[str, float]:
    files = [path.read_bytes() for path in paths]
    images = [decode(data) for data in files]
    pixels = [prepare_image(image, 256) for image in images]
    return {
        "decode": _median(decode, files),
        "prepare": _median(lambda image: prepare_image(image, 256), images),
        "model": _median(encoder.encode_pixels, pixels),
    }


def latency(folder: Path) -> dict[str, Any]:
    """Milliseconds from one raw product (and its image's bytes) to a prediction; the model's loading time and size."""
    models = folder / "models"
    started = time.perf_counter()
    classifier = ProductClassifier.load(models)
    loaded = time.perf_counter() - started
    raw = read_raw(folder / "raw" / "X_test.csv", X_COLUMNS)[:N_PRODUCTS]
    files = ImageFiles(folder / "raw" / "images")
    names = [f"image_{i}_product_{p}.jpg" for i, p in zip(raw["imageid"], raw["productid"], strict=True)]
    text = [pd.DataFrame([row]) for row in raw[["designation", "description"]].to_dict("records")]
    both = [row.assign(picture=[files[name].read_bytes()]) for row, name in zip(text, names, strict=True)]
    started = time.perf_counter()
    model = PyfuncModel(classifier)
    encoders = time.perf_counter() - started
    quick = PyfuncModel(ngrams_only(classifier))
    timings = {}
    cases = {"words_only": (quick, text), "default_text": (model, text), "with_picture": (model, both)}
    for name, (case_model, products) in cases.items():
        case_model.predict(products[0])
        spent = _spent(case_model.predict, products)
        timings[name] = {
            "median_ms": round(float(np.median(spent)), 2),
            "p99_ms": round(float(np.quantile(spent, 0.99)), 2),
        }
    size = sum(path.stat().st_size for path in models.iterdir()) / 1e6
    return {**timings, "load_s": round(loaded, 2), "encoders_load_s": round(encoders, 2), "model_mb": round(size, 1)}


def labels(folder: Path) -> dict[str, Any]:
    """How many of the wrong labels that were planted in the sample catalogue the run found."""
    table = read_table(folder / "processed" / "train_features.csv")
    doubted = read_table(folder / "reports" / "label_issues.csv")["productid"]
    catalogue = synthetic_products(proportional_codes(len(table), SAMPLE_SEED), 0, SAMPLE_SEED)
    planted = {str(product.productid) for product in catalogue if product.prdtypecode != product.true_code}
    found = doubted.isin(planted)
    first = found.head(len(planted))
    return {
        "planted": len(planted),
        "doubted": len(doubted),
        "recall": round(float(found.sum() / len(planted)), 3),
        "precision": round(float(found.mean()), 3),
        "precision_of_worst": round(float(first.mean()), 3),  # among as many as were planted
    }


def ngrams_only(classifier: ProductClassifier) -> ProductClassifier:
    """The same model with text_encoder and image_encoder none: n-grams only."""
    fusion, row = classifier.fusion, classifier.fusion.views.index(NGRAMS)
    arrays = {name: getattr(fusion, name)[[row]] for name in ("temperature", "view_weights", "class_offsets")}
    features = classifier.config.features.model_copy(update={"text_encoder": "none", "image_encoder": "none"})
    config = classifier.config._replace(features=features, encoders={})
    linear = {NGRAMS: classifier.linear[NGRAMS]}
    return ProductClassifier(classifier.vectorizer, linear, replace(fusion, views=(NGRAMS,), **arrays), config)


def _spent(call: Callable[[Any], Any], items: Sequence[Any]) -> list[float]:
    """Milliseconds of each call."""
    spent = []
    for item in items:
        started = time.perf_counter()
        call(item)
        spent.append(1000 * (time.perf_counter() - started))
    return spent


def _median(call: Callable[[Any], Any], items: Sequence[Any]) -> float:
    return round(float(np.median(_spent(call, items))), 2)


MEASURES = {"text-fit": text_fit, "rival": rival, "encoder-loop": encoder_loop, "latency": latency, "labels": labels}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.baselines", description=__doc__)
    parser.add_argument("what", choices=MEASURES)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.out.write_text(json.dumps(MEASURES[arguments.what](arguments.folder)) + "\n", encoding="utf-8")
    sys.exit(0)
