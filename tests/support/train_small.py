"""Train a model on 90 generated products and save it: `python -m tests.support.train_small FOLDER`."""

import sys
from pathlib import Path

import numpy as np

from rakuten.features.feature_set import FeatureBatch
from tests.support.features import feature_table
from tests.support.training import fit_batch


def main(folder: Path) -> None:
    table = feature_table([f"titre {number} {number % 3}" for number in range(90)], has_image=1)
    embeddings = np.random.default_rng(0).normal(size=(90, 700)).astype(np.float16)
    batch = FeatureBatch(table.assign(prdtypecode=[10, 40, 50] * 30), embeddings, embeddings[:, ::-1])
    classifier, _ = fit_batch(batch, folder)
    classifier.save(folder / "models")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
