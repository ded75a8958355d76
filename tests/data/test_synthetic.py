import csv
import hashlib
import io
import json
import random
import tracemalloc
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image
from rakuten.data.make_dataset import ingest

from rakuten.config import DataParams, load_params
from rakuten.data.schema import LABELS, X_COLUMNS, image_name, is_synthetic
from rakuten.data.synthetic import _words, balanced_codes, main, synthetic_products, write_catalogue
from rakuten.data.synthetic_images import draw_image
from rakuten.data.tables import read_raw
from rakuten.errors import UserError


def tree(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_same_arguments_same_bytes(sample: Path, tmp_path: Path) -> None:
    write_catalogue(300, 60, 7, tmp_path / "again")
    assert tree(tmp_path / "again") == tree(sample)
    write_catalogue(300, 60, 8, tmp_path / "other")
    assert tree(tmp_path / "other") != tree(sample)


def test_it_is_a_sound_catalogue_in_the_challenges_format(sample: Path, tmp_path: Path) -> None:
    with (sample / "X_train.csv").open(encoding="utf-8", newline="") as stream:
        assert next(csv.reader(stream)) == ["", "designation", "description", "productid", "imageid"]
    test = read_raw(sample / "X_test.csv", X_COLUMNS)
    assert test["index"].tolist() == [str(index) for index in range(300, 360)]
    params = load_params()
    none = params.model_copy(update={"data": DataParams(max_rejected=0.0, unknown_labels="reject")})
    ingest(none, sample, tmp_path, tmp_path)
    quality = json.loads((tmp_path / "data_quality.json").read_text())
    assert quality["synthetic"]
    assert quality["train"]["rows_out"] == 300
    assert quality["train"]["missing_picture"] == quality["test"]["missing_picture"] == 0
    assert quality["pictures"] == {"files": 360, "not_referenced": 0, "unusable": {}, "unusual": {}}
    assert is_synthetic(test)


def test_pictures_are_500_by_500_rgb_jpegs(sample: Path) -> None:
    for path in sorted((sample / "images").rglob("*.jpg"))[::40]:
        with Image.open(path) as picture:
            assert (picture.format, picture.size, picture.mode) == ("JPEG", (500, 500), "RGB")


def test_codes_keep_the_real_proportions() -> None:
    counts = Counter(balanced_codes(84_916, 1))
    assert counts == {int(code): spec["share"] for code, spec in _words()["classes"].items()}
    small = Counter(balanced_codes(1000, 1))
    assert set(small) == set(LABELS)
    assert small[2583] == 120
    assert sum(small.values()) == 1000
    assert balanced_codes(1000, 1) != balanced_codes(1000, 2)


def test_texts_resemble_the_real_catalogue() -> None:
    made = list(synthetic_products(balanced_codes(20_000, 3), 0, 3))
    described = Counter(product.true_code for product in made if product.description)
    everyone = Counter(product.true_code for product in made)
    for code, spec in _words()["classes"].items():
        assert described[int(code)] / everyone[int(code)] == pytest.approx(spec["described"], abs=0.09)
    titles = [product.designation for product in made]
    assert 0.02 < 1 - len(set(titles)) / len(titles) < 0.08
    wrong = sum(product.prdtypecode != product.true_code for product in made) / len(made)
    assert wrong == pytest.approx(0.03, abs=0.005)
    text = " ".join(product.description for product in made)
    assert all(mark in text for mark in ("<li>", "&eacute;", "&#39;", "é", "Color: as the picture", "Maße"))
    assert any("Ã" in title for title in titles)
    assert len({product.productid for product in made}) == len({product.imageid for product in made}) == len(made)


def test_a_picture_tells_something_but_not_everything() -> None:
    def drawn(rank: int, seed: int) -> bytes:
        return draw_image(rank, random.Random(seed))

    assert drawn(4, 1) == drawn(4, 1)
    # Ranks 0 and 9 have the same shape in other colours; some pictures do not tell the colour.
    same = sum(drawn(0, seed) == drawn(9, seed) for seed in range(60))
    assert 5 < same < 35
    assert drawn(0, 1) != drawn(0, 2)
    white = sum(Image.open(io.BytesIO(drawn(0, seed))).getpixel((0, 0)) == (255, 255, 255) for seed in range(40))
    assert 20 < white < 40


def test_memory_does_not_grow_with_the_rows() -> None:
    codes = balanced_codes(8000, 1)
    tracemalloc.start()
    characters = sum(len(product.description) for product in synthetic_products(codes, 0, 1))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < characters / 4


def test_it_never_writes_over_somebodys_files(raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = tree(raw)
    with pytest.raises(UserError, match="already there"):
        write_catalogue(30, 3, 1, raw)
    assert main(["--out", str(raw), "--if-absent"]) == 0
    assert "nothing written" in capsys.readouterr().err
    assert main(["--out", str(raw)]) == 1
    (raw / "Y_train.csv").rename(raw / "Y_train_CVw08PX.csv")
    assert main(["--out", str(raw), "--if-absent"]) == 1
    assert "rename it to Y_train.csv" in capsys.readouterr().err
    (raw / "Y_train_CVw08PX.csv").rename(raw / "Y_train.csv")
    (raw / "X_train.csv").rename(raw / "X_train_update.csv")
    (raw / "Y_train.csv").unlink()
    (raw / "X_test.csv").unlink()
    assert main(["--out", str(raw), "--if-absent"]) == 1
    assert "rename it to X_train.csv" in capsys.readouterr().err
    assert set(tree(raw)) == {"X_train_update.csv"}
    (raw / "X_train_update.csv").rename(raw / "kept.csv")
    (raw / "images" / "image_train" / "image_1_product_2.jpg").write_bytes(b"mine")
    assert main(["--out", str(raw), "--if-absent"]) == 1
    assert "a picture that is not the sample's (image_1_product_2.jpg)" in capsys.readouterr().err
    (raw / "kept.csv").rename(raw / "X_train_update.csv")
    assert before["X_train.csv"] == tree(raw)["X_train_update.csv"]


def test_the_command_says_what_it_wrote(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--rows", "30", "--test-rows", "5", "--seed", "2", "--out", str(tmp_path)]) == 0
    assert "wrote the synthetic sample there (30 + 5 products)" in capsys.readouterr().err
    first = next(iter(synthetic_products(balanced_codes(30, 2), 0, 2)))
    assert (tmp_path / "images" / "image_train" / image_name(str(first.imageid), str(first.productid))).is_file()
    assert main(["--rows", "0", "--out", str(tmp_path)]) == 1
