import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score

from rakuten.config import load_params
from rakuten.data.tables import write_table
from rakuten.data.taxonomy import Taxonomy
from rakuten.errors import UserError
from rakuten.evaluation.bootstrap import PairedComparison
from rakuten.promotion import gate
from rakuten.promotion.gate import PromotionDecision, VersionComparison, compare_models, decide
from rakuten.tracking import registry
from rakuten.tracking.registry import Version

PARAMS = load_params()  # lower end of the gain above 0, at most 0.05 down in a class, 250 ms, 150 MB
FAST, SMALL = 20, 30  # ms, MB


def comparison(low: float, f1_gain: dict[int, tuple[float, float, float]]) -> PairedComparison:
    """A gain of 0.02 in [low, 0.04 - low].

    Args:
        f1_gain: for each code the lower end of the interval, the gain and the upper end.
    """
    return PairedComparison(
        gain=0.02,
        interval=(low, 0.04 - low),
        f1_gain={code: gain for code, (_, gain, _) in f1_gain.items()},
        f1_interval={code: (least, most) for code, (least, _, most) in f1_gain.items()},
    )


BETTER = comparison(0.01, {10: (0.0, 0.1, 0.2)})
WORSE = comparison(-0.01, {10: (0.0, 0.1, 0.2)})


def failed(decision: PromotionDecision) -> list[str]:
    return [reason.removeprefix("FAILED ") for reason in decision.reasons if reason.startswith("FAILED ")]


@pytest.mark.parametrize(
    "gain",
    [
        None,
        BETTER,
        comparison(0.01, {10: (0.0, 0.1, 0.2), 40: (-0.09, -0.05, -0.01)}),  # a significant drop, as far as allowed
        comparison(0.01, {10: (0.0, 0.1, 0.2), 40: (-0.5, -0.2, 0.01)}),  # a large drop, but not significant
    ],
)
def test_a_challenger_that_meets_every_rule_is_promoted(gain: PairedComparison | None) -> None:
    decision = decide(gain, FAST, SMALL, PARAMS)
    assert decision.promoted
    assert failed(decision) == []


@pytest.mark.parametrize(
    ("gain", "latency_ms", "size_mb", "reason"),
    [
        (comparison(0.0, {10: (0.0, 0.1, 0.2)}), FAST, SMALL, "weighted F1 +0.0200 [+0.0000, +0.0400]"),
        (comparison(0.01, {40: (-0.09, -0.051, -0.01)}), FAST, SMALL, "F1 of class 40 -0.0510 [-0.0900, -0.0100]"),
        (None, 251, SMALL, "251 ms a product, at most 250 allowed"),
        (None, FAST, 151, "151.0 MB, at most 150 allowed"),
    ],
)
def test_one_rule_that_is_not_met_holds_a_challenger_back(
    gain: PairedComparison | None, latency_ms: float, size_mb: float, reason: str
) -> None:
    decision = decide(gain, latency_ms, size_mb, PARAMS)
    assert not decision.promoted
    (text,) = failed(decision)
    assert text.startswith(reason)
    assert decision.reasons[0] == f"FAILED {text}"


def test_the_largest_significant_drop_counts() -> None:
    """The larger drop of class 50 may be chance."""
    drops = comparison(0.01, {40: (-0.09, -0.051, -0.01), 50: (-0.5, -0.2, 0.01), 60: (-0.05, -0.02, -0.01)})
    (text,) = failed(decide(drops, FAST, SMALL, PARAMS))
    assert text.startswith("F1 of class 40")


@pytest.fixture
def predictions() -> pd.DataFrame:
    """Out-of-fold predictions of four products, all right."""
    ids = list("abcd")
    return pd.DataFrame({"productid": ids, "imageid": ids, "prdtypecode": [1, 1, 2, 2], "predicted": [1, 1, 2, 2]})


def test_models_are_compared_on_the_products_of_both(predictions: pd.DataFrame) -> None:
    """In any order; product d has another code now than when the champion was trained."""
    champion = predictions.assign(predicted=[1, 2, 2, 1], prdtypecode=[1, 1, 2, 1]).iloc[::-1]
    gain = compare_models(predictions, champion, PARAMS)
    assert gain.gain == pytest.approx(1 - f1_score([1, 1, 2], [1, 2, 2], average="weighted"))


def test_models_that_share_too_few_products_are_not_compared(predictions: pd.DataFrame) -> None:
    with pytest.raises(UserError, match="share 0 of 4 products.*use `--without-comparison`"):
        compare_models(predictions, predictions.assign(productid=list("wxyz")), PARAMS)
    assert compare_models(predictions, predictions[:2], PARAMS).gain == 0
    with pytest.raises(UserError, match="share 1 of 4 products"):
        compare_models(predictions, predictions[:1], PARAMS)


def test_models_that_share_nothing_are_not_compared(predictions: pd.DataFrame) -> None:
    with pytest.raises(UserError, match="share 0 of 0 products"):
        compare_models(predictions[:0], predictions, PARAMS)


def test_what_people_decided_is_left_out_for_both_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """Product 4 was added by a decision, and only the challenger was trained on it; product 3 had its label changed."""
    ids = [1, 2, 3, 4]
    challenger = pd.DataFrame({"productid": ids, "imageid": ids, "prdtypecode": [10, 40, 10, 40], "predicted": 10})
    champion = challenger[:3].assign(predicted=[10, 40, 40])
    unseen = challenger[3:].assign(predicted=10)
    monkeypatch.setattr(registry, "get_run", {"run 1": "its run"}.get)
    monkeypatch.setattr(gate, "_download_out_of_fold", {version(2): challenger, version(1): champion}.get)
    monkeypatch.setattr(gate, "predict_unseen", lambda *_: unseen)
    monkeypatch.setattr(gate, "decided_products", lambda _: pd.DataFrame({"productid": ["3", "4"], "imageid": [3, 4]}))
    compared = gate._compare_versions(version(2), version(1), PARAMS)
    assert compared.n_decided == 2
    # Of products 1 and 2 the challenger has one right, the champion both.
    assert compared.gain.gain == pytest.approx(f1_score([10, 40], [10, 10], average="weighted") - 1)


def test_out_of_fold_predictions_of_before_a_merger_are_in_todays_codes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, predictions: pd.DataFrame
) -> None:
    """40 was merged into 1, and 50 into 2, after the champion was trained; the challenger knows neither."""
    path = tmp_path / "out_of_fold.csv"
    write_table(predictions.replace({"prdtypecode": {1: 40}, "predicted": {1: 40, 2: 50}}), path)
    monkeypatch.setattr(registry, "download", lambda *_: path)
    taxonomy = Taxonomy(names={}, parents={}, parent_of={}, merged_into={40: 1, 50: 2})
    monkeypatch.setattr(gate, "current_taxonomy", lambda: taxonomy)
    champion = gate._download_out_of_fold(version(1))
    assert champion[["prdtypecode", "predicted"]].to_numpy().tolist() == [[1, 1], [1, 1], [2, 2], [2, 2]]
    assert compare_models(predictions, champion, PARAMS).gain == 0


def test_the_decision_says_how_many_products_were_left_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    Registry(monkeypatch, version(1), version(2), challenger="2", champion="1")
    tags: list[str] = []
    monkeypatch.setattr(registry, "tag_decision", lambda _, text: tags.append(text))
    monkeypatch.setattr(gate, "_compare_versions", lambda *_: VersionComparison(BETTER, 1234))
    with caplog.at_level(logging.INFO):
        gate.promote_challenger(PARAMS, dry_run=False)
    left_out = "1,234 products that people decided, or near-duplicates of them, were left out"
    assert f"version 2: {left_out}" in caplog.messages
    assert [text.split("; ")[-1] for text in tags] == [left_out, left_out]
    monkeypatch.setattr(gate, "_compare_versions", lambda *_: VersionComparison(BETTER, 0))
    gate.promote_challenger(PARAMS, dry_run=False)
    assert "left out" not in tags[-1]


class StubModel:
    """A model that keeps what it was asked, and a clock that makes its n-th prediction take n seconds."""

    def __init__(self) -> None:
        self.products: list[pd.DataFrame] = []
        self.now, self.size = 0.0, 1_000_000

    def predict(self, products: pd.DataFrame) -> None:
        self.products.append(products)
        self.now += len(self.products)

    def perf_counter(self) -> float:
        return self.now


def test_the_latency_is_the_median_after_a_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    model = StubModel()
    monkeypatch.setattr(gate.time, "perf_counter", model.perf_counter)
    latency = gate.median_latency_ms(model)  # type: ignore[arg-type]
    assert latency == 1000 * np.median(range(gate.N_WARM_UP + 1, gate.N_WARM_UP + gate.N_TIMED + 1))
    assert all(len(products) == 1 for products in model.products)
    assert len({products["designation"].iloc[0] for products in model.products}) == len(model.products)
    assert all(isinstance(products["picture"].iloc[0], bytes) for products in model.products)


def version(number: int, **more: object) -> Version:
    defaults = {"started": 0, "previous_champion": None, "rolled_back": False}
    return Version(**{"number": str(number), "run_id": f"run {number}"} | defaults | more)  # type: ignore[arg-type]


class Registry:
    """The registry's functions, on versions in memory."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *versions: Version, **aliases: str) -> None:
        self.versions = {version.number: version for version in versions}
        self.aliases = aliases
        self.actions: list[tuple[str, ...]] = []
        monkeypatch.setattr(registry, "get_by_alias", lambda alias: self.versions.get(self.aliases.get(alias, "")))
        monkeypatch.setattr(registry, "get_by_number", self.versions.get)
        monkeypatch.setattr(registry, "check_traceable", lambda _: None)
        for name in ("promote", "roll_back", "tag_decision"):
            monkeypatch.setattr(registry, name, self._recorder(name))
        monkeypatch.setattr(gate, "measure_cost", lambda *_: gate.Cost(FAST, 1.0))

    def _recorder(self, name: str) -> object:
        def record(*arguments: object) -> None:
            self.actions.append((name, *(each.number if isinstance(each, Version) else "-" for each in arguments)))

        return record

    def names(self) -> Sequence[str]:
        return [name for name, *_ in self.actions]


def test_without_a_challenger_there_is_nothing_to_promote(monkeypatch: pytest.MonkeyPatch) -> None:
    Registry(monkeypatch)
    with pytest.raises(UserError, match="has no challenger on .*train one with `dvc repro`"):
        gate.promote_challenger(PARAMS, dry_run=False)


def test_the_first_version_is_promoted_over_no_champion(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = Registry(monkeypatch, version(1), challenger="1")
    assert gate.promote_challenger(PARAMS, dry_run=False).endswith("UTC: version 1 promoted over no champion")
    assert versions.actions == [("promote", "1", "-"), ("tag_decision", "1", "-")]


def test_a_better_challenger_becomes_champion_and_both_are_tagged(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = Registry(monkeypatch, version(1), version(2), challenger="2", champion="1")
    monkeypatch.setattr(gate, "_compare_versions", lambda *_: VersionComparison(BETTER, 0))
    assert gate.promote_challenger(PARAMS, dry_run=False).endswith("version 2 promoted over version 1")
    assert versions.actions == [("promote", "2", "1"), ("tag_decision", "2", "-"), ("tag_decision", "1", "-")]


def test_a_worse_challenger_is_tagged_only(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = Registry(monkeypatch, version(1), version(2), challenger="2", champion="1")
    monkeypatch.setattr(gate, "_compare_versions", lambda *_: VersionComparison(WORSE, 0))
    line = gate.promote_challenger(PARAMS, dry_run=False)
    assert line.endswith("version 2 not promoted, champion stays version 1")
    assert versions.names() == ["tag_decision", "tag_decision"]


def test_a_dry_run_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = Registry(monkeypatch, version(1), challenger="1")
    line = gate.promote_challenger(PARAMS, dry_run=True)
    assert line.startswith("dry run, nothing was promoted; ")
    assert line.endswith("version 1 promoted over no champion")
    assert versions.actions == []


def test_without_comparison_the_champion_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    Registry(monkeypatch, version(1), version(2), challenger="2", champion="1")
    monkeypatch.setattr(gate, "_compare_versions", lambda *_: pytest.fail("they were compared"))
    line = gate.promote_challenger(PARAMS, dry_run=True, with_comparison=False)
    assert line.endswith("version 2 promoted over version 1")


def test_a_champion_whose_run_was_deleted_is_replaced_without_comparison(monkeypatch: pytest.MonkeyPatch) -> None:
    Registry(monkeypatch, version(1), version(2), challenger="2", champion="1")
    monkeypatch.setattr(registry, "get_run", {"run 2": "its run"}.get)
    with pytest.raises(UserError, match="version 1, the champion, cannot be compared: .*use `--without-comparison`"):
        gate.promote_challenger(PARAMS, dry_run=True)
    line = gate.promote_challenger(PARAMS, dry_run=True, with_comparison=False)
    assert line.endswith("version 2 promoted over version 1")


def test_a_champion_is_not_compared_with_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    Registry(monkeypatch, version(1), challenger="1", champion="1")
    line = gate.promote_challenger(PARAMS, dry_run=False)
    assert line == "nothing to decide: version 1 is both challenger and champion"


def test_a_version_that_was_rolled_back_is_not_promoted_again(monkeypatch: pytest.MonkeyPatch) -> None:
    Registry(monkeypatch, version(1), version(2, rolled_back=True), challenger="2", champion="1")
    with pytest.raises(UserError, match="version 2 was rolled back: train another challenger"):
        gate.promote_challenger(PARAMS, dry_run=False)


def test_a_champion_is_rolled_back_to_the_one_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = Registry(monkeypatch, version(1), version(2, previous_champion="1"), champion="2")
    assert gate.roll_back_champion(PARAMS, dry_run=True).startswith("dry run, nothing was changed; ")
    assert versions.actions == []
    assert gate.roll_back_champion(PARAMS, dry_run=False).endswith("UTC: version 2 rolled back to version 1")
    assert versions.actions == [("roll_back", "2", "1"), ("tag_decision", "2", "-"), ("tag_decision", "1", "-")]


@pytest.mark.parametrize("versions", [(), (version(1),)])
def test_without_a_previous_champion_there_is_no_way_back(
    versions: Sequence[Version], monkeypatch: pytest.MonkeyPatch
) -> None:
    Registry(monkeypatch, *versions, champion="1")
    with pytest.raises(UserError, match="has no previous champion to go back to"):
        gate.roll_back_champion(PARAMS, dry_run=False)


def test_a_previous_champion_that_was_deleted_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    Registry(monkeypatch, version(2, previous_champion="1"), champion="2")
    with pytest.raises(UserError, match="version 1, champion before version 2, was deleted"):
        gate.roll_back_champion(PARAMS, dry_run=False)
