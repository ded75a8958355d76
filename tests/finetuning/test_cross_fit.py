from pathlib import Path

import numpy as np
import pytest

from rakuten.config import FinetuneParams, TextFinetuneParams
from rakuten.errors import UserError
from rakuten.features.encoders.finetuned import NetworkFolder
from rakuten.finetuning import cross_fit
from rakuten.finetuning.cross_fit import FinetunedView, Labels, choose_precision, finetune_view
from rakuten.finetuning.text_view import TextView, score_texts

Products = tuple[list[tuple[str, str]], np.ndarray]


def params(base: Path, **settings: object) -> FinetuneParams:
    text = TextFinetuneParams.model_validate(
        {"base": str(base), "epochs": 30, "learning_rate": 5e-3, "tokens": 16, "batch": 8, "frozen_embeddings": False}
        | settings
    )
    return FinetuneParams(text=text, picture="none", folds=2, device="cpu")


def finetune(texts: list[tuple[str, str]], labels: Labels, params: FinetuneParams, folder: Path) -> FinetunedView:
    assert params.text != "none"
    return finetune_view(TextView(texts, params.text), labels, params, 1, folder / "work", folder / "network")


def finetune_products(products: Products, base: Path, folder: Path) -> FinetunedView:
    """Fine-tune on the products, of which two have no text."""
    texts, y = list(products[0]), products[1]
    texts[4] = texts[5] = ("", "")
    return finetune(texts, Labels(y, 3, np.arange(len(y)) // 3 % 2), params(base), folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("learnt")


@pytest.fixture(scope="module")
def view(tiny_base: Path, products: Products, folder: Path) -> FinetunedView:
    return finetune_products(products, tiny_base, folder)


def test_it_learns_what_the_words_tell(view: FinetunedView, products: Products, folder: Path) -> None:
    texts, y = products
    assert view.scores.shape == (60, 3)
    has_text = np.isfinite(view.scores).all(axis=1)
    assert (view.scores.argmax(axis=1) == y)[has_text].mean() > 0.9
    assert view.measured["float32"] > 0.9
    network = NetworkFolder.of(folder / "network").text()
    assert (network.scores(texts).argmax(axis=1) == y).mean() > 0.9
    assert (network.scores([("roman", ""), ("console", "")]).argmax(axis=1) == [1, 2]).all()


def test_products_without_text_have_no_scores(view: FinetunedView, folder: Path) -> None:
    assert np.flatnonzero(np.isnan(view.scores).all(axis=1)).tolist() == [4, 5]
    assert np.isfinite(np.delete(view.scores, [4, 5], axis=0)).all()
    assert np.isnan(score_texts(folder / "network", [("", "")], "texts")).all()


def test_the_network_that_scores_a_fold_never_saw_it(tiny_base: Path, tmp_path: Path) -> None:
    """Words stand in the titles of one fold alone, each with one class; no other word tells a class. A network that had
    seen the fold would know the classes of its titles; the one on all rows does."""
    rng = np.random.default_rng(0)
    y, fold = np.arange(90) % 3, np.arange(90) // 3 % 2
    planted = {0: "secret", 1: "bleu", 2: "rouge"}
    texts = [
        (f"{planted[label] if number == 0 else 'avec'} {rng.integers(10)}", "")
        for label, number in zip(y, fold, strict=True)
    ]
    view = finetune(texts, Labels(y, 3, fold), params(tiny_base), tmp_path)
    of_fold = fold == 0
    assert (view.scores[of_fold].argmax(axis=1) == y[of_fold]).mean() < 0.6
    final = NetworkFolder.of(tmp_path / "network").text().scores([texts[row] for row in np.flatnonzero(of_fold)])
    assert (final.argmax(axis=1) == y[of_fold]).mean() > 0.9


def test_the_same_settings_give_the_same_bytes(
    tiny_base: Path, products: Products, view: FinetunedView, folder: Path, tmp_path: Path
) -> None:
    again = finetune_products(products, tiny_base, tmp_path)
    assert again.scores.tobytes() == view.scores.tobytes()
    assert again.curves.equals(view.curves)
    assert NetworkFolder.of(tmp_path / "network").sha256 == NetworkFolder.of(folder / "network").sha256


def test_the_curves_say_how_each_network_learnt(view: FinetunedView) -> None:
    curves = view.curves
    assert curves["fit"].unique().tolist() == ["text without fold 0", "text without fold 1", "text on all rows"]
    first = curves[curves["fit"] == "text without fold 0"]
    assert first["step"].is_monotonic_increasing and first["step"].iloc[-1] == 120  # 29 rows, 4 batches, 30 epochs
    assert first["epoch"].iloc[-1] == 30
    assert first["loss"].iloc[-1] < first["loss"].iloc[0] / 2
    assert first["weighted_f1"].notna().sum() == 30 and first["weighted_f1"].iloc[-1] > 0.7
    assert curves.loc[curves["fit"] == "text on all rows", "weighted_f1"].isna().all()


@pytest.mark.parametrize(("integers", "chosen"), [(0.81, "int8"), (0.7985, "int8"), (0.797, "float32")])
def test_eight_bit_integers_are_used_only_if_they_cost_little(integers: float, chosen: str) -> None:
    assert choose_precision({"float32": 0.8, "int8": integers}) == chosen


def test_only_the_trained_networks_are_kept_for_another_run(view: FinetunedView, folder: Path) -> None:
    names = ["all-rows.safetensors", "without-fold-0.safetensors", "without-fold-1.safetensors"]
    assert sorted(path.name for path in (folder / "work").iterdir()) == names


def test_what_is_written_has_the_precision_that_was_chosen(view: FinetunedView, folder: Path) -> None:
    is_integer = b"MatMulNBits" in (folder / "network" / "network.onnx").read_bytes()
    assert is_integer == (view.precision == "int8")
    assert NetworkFolder.of(folder / "network").settings()["precision"] == view.precision


def test_one_class_with_text_is_an_error_for_the_user(tiny_base: Path, tmp_path: Path) -> None:
    texts, labels = [("roman", "")] * 9 + [("", "")] * 9, Labels(np.repeat([0, 1], 9), 2, np.arange(18) % 3)
    with pytest.raises(UserError, match=r"finetune\.text: fewer than two classes have products with a text"):
        finetune(texts, labels, params(tiny_base), tmp_path)


def test_no_network_is_used_before_its_graph_is_compared_with_torch(
    tiny_base: Path, products: Products, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def differs(*_: object) -> None:
        raise UserError("the graph differs")

    monkeypatch.setattr(cross_fit, "check_graph", differs)
    labels = Labels(products[1], 3, np.arange(60) // 3 % 2)
    with pytest.raises(UserError, match="the graph differs"):
        finetune(products[0], labels, params(tiny_base, epochs=1), tmp_path)
    assert not (tmp_path / "network").exists()
