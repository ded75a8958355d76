import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rakuten.evaluation.calibration import threshold_at_precision
from rakuten.evaluation.novelty_flag import is_novel
from rakuten.evaluation.out_of_fold import OutOfFold
from rakuten.features.feature_set import FeatureBatch, FeatureSet
from rakuten.models.classifier import MANIFEST_FILE, MODEL_FILE, VECTORIZER_FILE, ProductClassifier
from rakuten.models.fusion import gating_context
from rakuten.models.linear import Moments, fit_lda
from rakuten.models.training import MIN_VIEW_ROWS, fit_embedding, moments_by_fold, training_rows
from rakuten.types import IMAGE, NGRAMS, TEXT
from tests.support.features import feature_table
from tests.support.project import ROOT, environment
from tests.support.training import PARAMS, fit_batch


def test_every_row_is_predicted_out_of_fold(out_of_fold: OutOfFold, batch: FeatureBatch) -> None:
    assert out_of_fold.true_codes.tolist() == batch.table["prdtypecode"].tolist()
    proba = out_of_fold.proba[:]
    assert proba.sum(axis=1) == pytest.approx(1)
    assert (proba.argmax(axis=1) == out_of_fold.y_pred).all()
    assert (proba.max(axis=1) == out_of_fold.confidence).all()
    assert out_of_fold.correct.mean() > 0.6


def test_out_of_fold_a_title_that_tells_nothing_is_right_by_chance_only(tmp_path: Path) -> None:
    """A leak between folds would show: a model that is trained on these titles knows them by heart."""
    rng = np.random.default_rng(0)
    titles = ["".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz"), 12)) for _ in range(200)]
    batch = FeatureBatch(feature_table(titles).assign(prdtypecode=rng.choice([10, 40], 200)))
    classifier, out_of_fold = fit_batch(batch, tmp_path)
    y_pred = classifier.scores(batch)[NGRAMS].argmax(axis=1)
    assert (y_pred == out_of_fold.y).mean() > 0.9
    assert (out_of_fold.baselines[NGRAMS].y_pred == out_of_fold.y).mean() < 0.65
    assert out_of_fold.correct.mean() < 0.65


def test_the_threshold_is_that_of_the_out_of_fold_predictions(
    classifier: ProductClassifier, out_of_fold: OutOfFold
) -> None:
    target, false_alarms = PARAMS.predict.target_precision, PARAMS.predict.novelty_false_alarms
    assert classifier.config.target_precision == target
    assert classifier.config.novelty_false_alarms == false_alarms
    ordinary = ~is_novel(out_of_fold.novelty, false_alarms)
    expected = threshold_at_precision(out_of_fold.confidence[ordinary], out_of_fold.correct[ordinary], target)
    assert classifier.config.threshold == expected
    assert classifier.config.encoders == {IMAGE: "abc"}


def test_baselines_are_each_view_their_mean_and_text_alone(out_of_fold: OutOfFold) -> None:
    assert set(out_of_fold.baselines) == {NGRAMS, IMAGE, "equal average", "text alone"}
    assert out_of_fold.baselines[IMAGE].mask.sum() == 96


def test_images_that_help_are_used(out_of_fold: OutOfFold) -> None:
    text_alone = out_of_fold.baselines["text alone"].y_pred == out_of_fold.y
    assert out_of_fold.correct.sum() > text_alone.sum()


def test_images_that_mislead_do_not_lower_the_score(batch: FeatureBatch, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    for seed in range(3):
        noise = rng.normal(size=(len(batch), 30)).astype(np.float16)
        params = PARAMS.model_copy(update={"seed": seed})
        _, out_of_fold = fit_batch(FeatureBatch(batch.table, None, noise), tmp_path, params)
        text_alone = out_of_fold.baselines["text alone"].y_pred == out_of_fold.y
        assert out_of_fold.correct.mean() >= text_alone.mean()


@pytest.mark.parametrize("n_rows", [0, 10, 24, 25, 120])  # one in five has no image: 8, 19, 20, 96 are left
def test_a_view_needs_a_minimum_of_products(batch: FeatureBatch, tmp_path: Path, n_rows: int) -> None:
    embeddings = np.array(batch.image_embeddings)
    embeddings[n_rows:] = np.nan
    n_images = np.isfinite(embeddings[:, 0]).sum()
    classifier, out_of_fold = fit_batch(FeatureBatch(batch.table, None, embeddings), tmp_path)
    assert (IMAGE in classifier.linear) == (n_images >= MIN_VIEW_ROWS)
    assert (classifier.neighbours is None) == (n_images < MIN_VIEW_ROWS)
    assert np.isfinite(out_of_fold.proba[:]).all()


def test_neighbours_are_the_images_and_not_the_texts(
    batch: FeatureBatch, classifier: ProductClassifier, tmp_path: Path
) -> None:
    assert classifier.neighbours is not None
    rows = np.flatnonzero(np.isfinite(np.asarray(batch.image_embeddings)[:, 0]))
    assert classifier.neighbours.productid.tolist() == rows.tolist()
    text_only, _ = fit_batch(FeatureBatch(batch.table, batch.image_embeddings), tmp_path)
    assert set(text_only.linear) == {NGRAMS, TEXT}
    assert text_only.neighbours is None


def test_products_with_images_alone_make_a_model(batch: FeatureBatch, tmp_path: Path) -> None:
    table = feature_table([""] * 120, has_image=1).assign(prdtypecode=batch.table["prdtypecode"])
    classifier, out_of_fold = fit_batch(FeatureBatch(table, None, batch.image_embeddings), tmp_path)
    assert list(classifier.linear) == [IMAGE]
    has_image = np.isfinite(np.asarray(batch.image_embeddings)[:, 0])
    assert out_of_fold.correct[has_image].mean() > 0.5


def test_products_without_text_and_image_get_the_most_common_code(tmp_path: Path) -> None:
    table = feature_table([""] * 30).assign(prdtypecode=[10] * 20 + [40] * 10)
    classifier, _ = fit_batch(FeatureBatch(table), tmp_path)
    assert classifier.linear == {}
    assert (classifier.predict(FeatureBatch(table))["predicted_prdtypecode"] == 10).all()


def test_a_class_with_one_title_is_kept(tmp_path: Path) -> None:
    table = feature_table([f"jeu {number}" for number in range(20)] + ["piscine"])
    classifier, out_of_fold = fit_batch(FeatureBatch(table.assign(prdtypecode=[10] * 20 + [2583])), tmp_path)
    assert classifier.classes.tolist() == [10, 2583]
    assert out_of_fold.predicted_codes[20] == 10


def test_rows_of_one_title_are_in_the_same_fold() -> None:
    table = feature_table([f"titre {number % 40}" for number in range(120)]).assign(prdtypecode=[10, 40] * 60)
    rows = training_rows(FeatureSet.from_batch(FeatureBatch(table)), PARAMS)
    assert rows.classes.tolist() == [10, 40]
    assert rows.y.tolist() == [0, 1] * 60
    assert len(np.unique(rows.fold)) == PARAMS.train.folds
    assert (rows.fold.reshape(3, 40) == rows.fold[:40]).all()
    assert rows.seed == PARAMS.seed


def test_the_discriminant_analysis_that_scores_a_fold_is_fitted_to_the_other_folds(
    batch: FeatureBatch, tmp_path: Path
) -> None:
    embeddings = np.asarray(batch.image_embeddings)
    present = np.isfinite(embeddings[:, 0])
    rows = training_rows(FeatureSet.from_batch(batch), PARAMS)
    moments = moments_by_fold(embeddings, present, rows, IMAGE)
    view = fit_embedding(embeddings, present, rows, moments, tmp_path / "scores.npy")
    scores = view.scores[:]
    assert (np.isnan(scores).all(axis=1) == ~present).all()
    for fold in range(PARAMS.train.folds):
        train, held_out = np.flatnonzero(present & (rows.fold != fold)), present & (rows.fold == fold)
        expected = fit_lda(Moments.from_rows(embeddings, train, rows.y[train], 3), rows.classes)
        values = embeddings[held_out].astype(np.float32)
        assert scores[held_out] == pytest.approx(expected.decision_function(values), rel=1e-4, abs=1e-4)
    all_rows = np.flatnonzero(present)
    on_all_rows = fit_lda(Moments.from_rows(embeddings, all_rows, rows.y[all_rows], 3), rows.classes)
    assert view.linear.coef == pytest.approx(on_all_rows.coef, rel=1e-4, abs=1e-4)


def test_the_fusion_weighs_both_views(classifier: ProductClassifier, batch: FeatureBatch) -> None:
    contributions = classifier.fusion.contributions(classifier.scores(batch), gating_context(batch.table))
    assert all(added.std() > 0 for added in contributions.values())


def test_the_bytes_of_a_model_do_not_depend_on_the_process(tmp_path: Path) -> None:
    """Neither on the seed of hashes nor on the number of threads."""
    for seed in ("1", "2"):
        variables = environment(ROOT, PYTHONHASHSEED=seed, OMP_NUM_THREADS=seed, OPENBLAS_NUM_THREADS=seed)
        (tmp_path / seed).mkdir()
        command = [sys.executable, "-m", "tests.support.train_small", str(tmp_path / seed)]
        subprocess.run(command, cwd=ROOT, check=True, env=variables, timeout=300)
    for name in (MODEL_FILE, VECTORIZER_FILE, MANIFEST_FILE):
        assert (tmp_path / "1" / "models" / name).read_bytes() == (tmp_path / "2" / "models" / name).read_bytes()
