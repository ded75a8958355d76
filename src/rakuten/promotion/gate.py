"""The promotion gate: the challenger becomes the champion if the rules of params.yaml allow it."""

import logging
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from PIL import Image

from rakuten.config import Params, PromoteParams
from rakuten.data.tables import read_table
from rakuten.data.taxonomy import current_taxonomy
from rakuten.errors import UserError
from rakuten.evaluation.bootstrap import PairedComparison, paired_bootstrap
from rakuten.evaluation.report import OUT_OF_FOLD_FILE
from rakuten.models.classifier import ProductClassifier
from rakuten.models.pyfunc_model import PyfuncModel
from rakuten.models.self_check import self_check
from rakuten.promotion.decided_products import decided_products, without
from rakuten.promotion.unseen_products import is_among, predict_unseen
from rakuten.tracking import registered_model, registry, server
from rakuten.tracking.registry import CHALLENGER, CHAMPION, MODEL_NAME, Version
from rakuten.tracking.signatures import NO_SIGNATURE

log = logging.getLogger(__name__)

MB = 1e6  # bytes
N_WARM_UP, N_TIMED = 3, 20  # predictions before the latency is measured, and predictions that it is the median of
EXAMPLE_TITLE = "Piscine gonflable ronde 360 cm"
EXAMPLE_DESCRIPTION = "<p>Avec pompe de filtration, liner bleu et échelle.</p>" * 5


@dataclass(frozen=True)
class PromotionDecision:
    """Whether the challenger is promoted, and a text for each rule; failed rules come first."""

    promoted: bool
    reasons: list[str]


class RuleResult(NamedTuple):
    """Whether a rule of promotion is met, and a text with the measured and the allowed value."""

    passed: bool
    text: str


def decide(gain: PairedComparison | None, latency_ms: float, size_mb: float, params: Params) -> PromotionDecision:
    """Apply the rules of params.yaml.

    Args:
        gain: of the challenger over the champion on the products of both; None if they were not compared.
        latency_ms: milliseconds for one product.
        size_mb: of the model's files, in MB.
    """
    rules = params.promote
    results = [] if gain is None else [_gain_rule(gain, rules), _class_rule(gain, rules)]
    results += [
        RuleResult(
            latency_ms <= rules.max_latency_ms,
            f"{latency_ms:.0f} ms a product, at most {rules.max_latency_ms:.0f} allowed",
        ),
        RuleResult(size_mb <= rules.max_size_mb, f"{size_mb:.1f} MB, at most {rules.max_size_mb:.0f} allowed"),
    ]
    failed = [f"FAILED {result.text}" for result in results if not result.passed]
    return PromotionDecision(not failed, failed + [result.text for result in results if result.passed])


def _gain_rule(gain: PairedComparison, rules: PromoteParams) -> RuleResult:
    """The lower end of the gain's interval must be above min_gain."""
    low, high = gain.interval
    text = f"weighted F1 {gain.gain:+.4f} [{low:+.4f}, {high:+.4f}], lower end must be above {rules.min_gain:+.4f}"
    return RuleResult(low > rules.min_gain, text)


def _class_rule(gain: PairedComparison, rules: PromoteParams) -> RuleResult:
    """The F1 of no class may drop by more than max_class_drop.

    A class of twenty products moves by more than that by chance, so a drop counts only if its whole interval is
    below zero.
    """
    significant_drops = {code: drop for code, drop in gain.f1_gain.items() if gain.f1_interval[code][1] < 0}
    code, worst = min((significant_drops or gain.f1_gain).items(), key=lambda item: item[1])
    low, high = gain.f1_interval[code]
    text = (
        f"F1 of class {code} {worst:+.4f} [{low:+.4f}, {high:+.4f}], the lowest gain of a class"
        f"{'' if significant_drops else ' (not a significant drop)'}; "
        f"a significant drop must not be below {-rules.max_class_drop:+.4f}"
    )
    return RuleResult(not significant_drops or worst >= -rules.max_class_drop, text)


def compare_models(challenger: pd.DataFrame, champion: pd.DataFrame, params: Params) -> PairedComparison:
    """The gain of the challenger over the champion on the products that both have, judged by out-of-fold predictions.

    Args:
        challenger, champion: productid, imageid, prdtypecode, predicted.

    Raises:
        UserError: they share less than half of the challenger's products with the same prdtypecode.
    """
    keys = ["productid", "imageid", "prdtypecode"]
    shared = challenger.merge(champion, on=keys, suffixes=("", "_champion"))
    if not len(shared) or 2 * len(shared) < len(challenger):
        raise UserError(
            f"challenger and champion share {len(shared):,} of {len(challenger):,} products with the same code: too "
            "few to compare them; train the champion's code on today's data, or use `--without-comparison`"
        )
    log.info("compared on %s products, each predicted by models that were not trained on it", f"{len(shared):,}")
    y_true = shared["prdtypecode"].to_numpy(dtype=np.int64)
    challenger_pred = shared["predicted"].to_numpy(dtype=np.int64)
    champion_pred = shared["predicted_champion"].to_numpy(dtype=np.int64)
    return paired_bootstrap(y_true, challenger_pred, champion_pred, params.train.bootstrap, params.seed)


class Cost(NamedTuple):
    """What a version's model costs."""

    latency_ms: float  # from one raw product to its prediction
    size_mb: float  # of its files


def measure_cost(version: Version, require_signature: str) -> Cost:
    """Download a version's model and time it. Only its files are read: code that the registry holds is never run.

    Raises:
        UserError: the model cannot be fetched, was altered, is not signed, or cannot be read by this code.
    """
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "model"
        registered_model.download_model(version, folder, require_signature)
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        model = PyfuncModel(ProductClassifier.load(folder))
        self_check(model)  # as the API does
        return Cost(median_latency_ms(model), size / MB)


def median_latency_ms(model: PyfuncModel) -> float:
    """Median milliseconds from one raw product with text and image to its prediction, one at a time, after warm-up."""
    rng = np.random.default_rng(0)
    image = BytesIO()
    Image.fromarray(rng.integers(0, 255, (500, 500, 3), dtype=np.uint8)).save(image, "JPEG")
    seconds = []
    for number in range(N_WARM_UP + N_TIMED):
        product = pd.DataFrame(
            {
                "designation": [f"{EXAMPLE_TITLE} {number}"],
                "description": [EXAMPLE_DESCRIPTION],
                "picture": [image.getvalue()],
            }
        )
        started = time.perf_counter()
        model.predict(product)
        seconds.append(time.perf_counter() - started)
    return 1000 * float(np.median(seconds[N_WARM_UP:]))


def promote_challenger(params: Params, dry_run: bool, with_comparison: bool = True) -> str:
    """Decide about the challenger and, unless this is a dry run, act on the decision.

    Args:
        with_comparison: whether the challenger must be better than the champion.

    Returns:
        The decision in one line.

    Raises:
        UserError: there is no challenger, it was rolled back, cannot be traced, or cannot be compared.
    """
    challenger, champion = registry.get_by_alias(CHALLENGER), registry.get_by_alias(CHAMPION)
    if challenger is None:
        raise UserError(f"{MODEL_NAME} has no challenger on {server.redacted_uri()}: train one with `dvc repro`")
    if champion is not None and champion.number == challenger.number:
        return f"nothing to decide: version {champion.number} is both challenger and champion"
    if challenger.rolled_back:
        raise UserError(f"version {challenger.number} was rolled back: train another challenger")
    commit = registry.check_traceable(challenger)
    cost = measure_cost(challenger, params.models.require_signature)
    comparison = _compare_versions(challenger, champion, params) if champion is not None and with_comparison else None
    decision = decide(comparison and comparison.gain, cost.latency_ms, cost.size_mb, params)
    reasons = [*decision.reasons, *(comparison.notes() if comparison else ())]
    for reason in reasons:
        log.info("version %s: %s", challenger.number, reason)
    text = f"{_now()}: version {challenger.number} {_outcome(decision, champion)}"
    if dry_run:
        return f"dry run, nothing was promoted; {text}"
    if commit is not None:
        registry.tag_commit(challenger, commit)
    if decision.promoted:
        registry.promote(challenger, champion)
    for version in filter(None, (challenger, champion)):
        registry.tag_decision(version, "; ".join([text, *reasons]))
    return text


def _outcome(decision: PromotionDecision, champion: Version | None) -> str:
    if champion is None:
        return f"{'promoted over' if decision.promoted else 'not promoted,'} no champion"
    verb = "promoted over" if decision.promoted else "not promoted, champion stays"
    return f"{verb} version {champion.number}"


class VersionComparison(NamedTuple):
    """The gain of the challenger over the champion, and how many of its products were left out of the comparison."""

    gain: PairedComparison
    n_decided: int  # which people decided, and near-duplicates of these

    def notes(self) -> list[str]:
        """What was left out, as a text for the decision."""
        left_out = f"{self.n_decided:,} products that people decided, or near-duplicates of them, were left out"
        return [left_out] if self.n_decided else []


def _compare_versions(challenger: Version, champion: Version, params: Params) -> VersionComparison:
    if registry.get_run(champion.run_id) is None:
        raise UserError(
            f"version {champion.number}, the champion, cannot be compared: its run was deleted in MLflow, and its "
            "out-of-fold predictions with it; use `--without-comparison`"
        )
    challenger_oof, champion_oof = _download_out_of_fold(challenger), _download_out_of_fold(champion)
    unseen = predict_unseen(challenger, champion, champion_oof, params)
    if len(unseen):
        log.info("the champion was not trained on %s of these products; it predicts them now", f"{len(unseen):,}")
    decided = decided_products(challenger)
    champion_predictions = without(pd.concat([champion_oof, unseen]), decided)
    gain = compare_models(without(challenger_oof, decided), champion_predictions, params)
    return VersionComparison(gain, int(is_among(challenger_oof, decided).sum()))


def roll_back_champion(params: Params, dry_run: bool) -> str:
    """Make the previous champion the champion again; returns what was done in one line.

    Raises:
        UserError: there is no previous champion, it was deleted, or the API would refuse it for want of a signature.
    """
    champion = registry.get_by_alias(CHAMPION)
    if champion is None or champion.previous_champion is None:
        raise UserError(f"{MODEL_NAME} on {server.redacted_uri()} has no previous champion to go back to")
    previous = registry.get_by_number(champion.previous_champion)
    if previous is None:
        raise UserError(f"version {champion.previous_champion}, champion before version {champion.number}, was deleted")
    if params.models.require_signature != NO_SIGNATURE:
        with tempfile.TemporaryDirectory() as folder:
            registered_model.download_model(previous, Path(folder) / "model", params.models.require_signature)
    text = f"{_now()}: version {champion.number} rolled back to version {previous.number}"
    if dry_run:
        return f"dry run, nothing was changed; {text}"
    registry.roll_back(champion, previous)
    for version in (champion, previous):
        registry.tag_decision(version, text)
    return text


def _download_out_of_fold(version: Version) -> pd.DataFrame:
    """The out-of-fold predictions of a version's run: productid, imageid, prdtypecode, predicted, in today's codes."""
    with tempfile.TemporaryDirectory() as folder:
        path = registry.download(version.run_id, f"reports/{OUT_OF_FOLD_FILE}", Path(folder))
        return current_taxonomy().follow_codes(read_table(path, integers=("prdtypecode", "predicted")))


def _now() -> str:
    return f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
