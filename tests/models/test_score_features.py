from pathlib import Path

import pytest

from rakuten.errors import UserError
from rakuten.features.feature_set import FeatureBatch, FeatureSet
from rakuten.models.classifier import CHOICE_COLUMNS, ProductClassifier
from rakuten.models.score_features import chunk_label, score_chunk
from rakuten.tracking.lineage import model_version


def test_chunks_are_scored_with_their_own_embeddings(
    classifier: ProductClassifier, batch: FeatureBatch, tmp_path: Path
) -> None:
    classifier.save(tmp_path)
    expected, features = classifier.predict(batch), FeatureSet.from_batch(batch)
    for chunk in features.table_chunks(50):
        scored = score_chunk(tmp_path, model_version(tmp_path), features, chunk)
        assert list(scored.columns) == ["productid", "imageid", *expected.columns]
        assert scored["productid"].tolist() == [str(row) for row in chunk.index]
        codes = [code for code, _ in CHOICE_COLUMNS]
        assert scored[codes].equals(expected.loc[chunk.index, codes])
        assert (scored["confidence"] - expected.loc[chunk.index, "confidence"]).abs().max() < 1.5e-6


def test_another_version_is_refused(classifier: ProductClassifier, batch: FeatureBatch, tmp_path: Path) -> None:
    classifier.save(tmp_path)
    with pytest.raises(UserError, match="the model was replaced during the run"):
        score_chunk(tmp_path, "0" * 12, FeatureSet.from_batch(batch), batch.table)


def test_a_chunk_is_named_by_its_rows(batch: FeatureBatch) -> None:
    assert chunk_label(batch.table[50:100]) == "test rows 51-100"
