"""Which version of rakuten-classifier answers: the challenger becomes champion by the rules of params.yaml."""

import logging
import tempfile
import time
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from PIL import Image

from rakuten.config import Params
from rakuten.data.tables import read_table
from rakuten.errors import UserError
from rakuten.evaluation.bootstrap import PairedComparison, paired_bootstrap
from rakuten.evaluation.report import OUT_OF_FOLD_FILE
from rakuten.promotion.unseen_products import predict_unseen
from rakuten.tracking import registry, server
from rakuten.tracking.registry import CHALLENGER, CHAMPION, MODEL_NAME, DownloadedModel, Version

log = logging.getLogger(__name__)

N_TIMED = 20  # products behind the latency
EXAMPLE = ("Piscine gonflable ronde 360 cm", "<p>Avec pompe de filtration, liner bleu et échelle.</p>" * 5)


class PromotionDecision(NamedTuple):
    """Whether the challenger may answer, and each thing that was looked at, in words."""

    promoted: bool
    reasons: list[str]


def decide(gain: PairedComparison | None, latency_ms: float, size_mb: float, params: Params) -> PromotionDecision:
    """The rules.

    Args:
        gain: of the challenger over the champion on the products they share; None where there is no champion.
    """
    rules = params.promote
    passed: list[str] = []
    failed: list[str] = []

    def rule(holds: bool, text: str) -> None:
        (passed if holds else failed).append(text)

    if gain is not None:
        low, high = gain.interval
        rule(
            low > rules.min_gain,
            f"weighted F1 {gain.gain:+.4f} [{low:+.4f}, {high:+.4f}], lower end must be above {rules.min_gain:+.4f}",
        )
        # A class of twenty products moves by more than that by chance: it counts where its interval lies below zero.
        surely = {code: fall for code, fall in gain.f1_gain.items() if gain.f1_interval[code][1] < 0}
        code, worst = min((surely or gain.f1_gain).items(), key=lambda each: each[1])
        low, high = gain.f1_interval[code]
        rule(
            not surely or worst >= -rules.max_class_drop,
            f"F1 of class {code} {worst:+.4f} [{low:+.4f}, {high:+.4f}], the most that one "
            f"{'surely ' if surely else ''}moves down, at most {-rules.max_class_drop:+.4f} allowed beyond chance",
        )
    rule(
        latency_ms <= rules.max_latency_ms, f"{latency_ms:.0f} ms a product, at most {rules.max_latency_ms:.0f} allowed"
    )
    rule(size_mb <= rules.max_size_mb, f"{size_mb:.1f} MB, at most {rules.max_size_mb:.0f} allowed")
    return PromotionDecision(not failed, [f"FAILED {text}" for text in failed] + passed)


def compare_models(challenger: pd.DataFrame, champion: pd.DataFrame, params: Params) -> PairedComparison:
    """Both models' out-of-fold predictions (productid, imageid, prdtypecode, predicted) on the rows of both.

    Raises:
        UserError: they share less than half of the challenger's products, or judge them by other labels.
    """
    keys = ["productid", "imageid", "prdtypecode"]
    both = challenger.merge(champion, on=keys, suffixes=("", "_champion"))
    if 2 * len(both) < len(challenger):
        raise UserError(
            f"challenger and champion share {len(both):,} of {len(challenger):,} products with the same code: too few "
            "to compare them; train the champion's code on today's data, or promote by `--without-comparison`"
        )
    log.info("compared on %s products, each judged by models that were not trained on it", f"{len(both):,}")
    names = ("prdtypecode", "predicted", "predicted_champion")
    true, ours, theirs = (both[name].to_numpy(dtype=np.int64) for name in names)
    return paired_bootstrap(true, ours, theirs, params.train.bootstrap, params.seed)


def median_latency_ms(model: DownloadedModel) -> float:
    """Median milliseconds from one raw product with text and picture to its prediction, one by one, warm."""
    rng = np.random.default_rng(0)
    picture = BytesIO()
    Image.fromarray(rng.integers(0, 255, (500, 500, 3), dtype=np.uint8)).save(picture, "JPEG")
    title, description = EXAMPLE
    taken = []
    for number in range(N_TIMED + 3):
        product = pd.DataFrame(
            {"designation": [f"{title} {number}"], "description": [description], "picture": [picture.getvalue()]}
        )
        started = time.perf_counter()
        model.predict(product)
        taken.append(time.perf_counter() - started)
    return 1000 * float(np.median(taken[3:]))


def promote_challenger(params: Params, dry_run: bool, compared: bool = True) -> str:
    """Judge the challenger and, unless this is a dry run, act on it. Returns the closing line."""
    challenger, champion = registry.get_by_alias(CHALLENGER), registry.get_by_alias(CHAMPION)
    if challenger is None:
        raise UserError(f"{MODEL_NAME} has no challenger on {server.redacted_uri()}: train one with `dvc repro`")
    if champion is not None and champion.number == challenger.number:
        return f"nothing to decide: version {champion.number} is challenger and champion"
    if challenger.rolled_back:
        raise UserError(f"version {challenger.number} was rolled back: train another challenger")
    registry.check_traceable(challenger)
    gain = None
    if champion is not None and compared:
        ours, theirs = _download_out_of_fold(challenger), _download_out_of_fold(champion)
        new = predict_unseen(challenger, champion, theirs, params)
        if len(new):
            log.info("the champion never saw %s of the challenger's products: it is asked for them", f"{len(new):,}")
        gain = compare_models(ours, pd.concat([theirs, new]), params)
    model = DownloadedModel(challenger)
    verdict = decide(gain, median_latency_ms(model), model.size / 1e6, params)
    against = f"version {champion.number}" if champion else "no champion"
    decided = "promoted over" if verdict.promoted else "not promoted, champion stays" if champion else "not promoted,"
    for reason in verdict.reasons:
        log.info("version %s: %s", challenger.number, reason)
    text = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC: version {challenger.number} {decided} {against}"
    if dry_run:
        return f"dry run, nothing was changed; {text}"
    if verdict.promoted:
        registry.promote(challenger, champion)
    for version in filter(None, (challenger, champion)):
        registry.tag_decision(version, "; ".join([text, *verdict.reasons]))
    return text


def roll_back_champion(dry_run: bool) -> str:
    """Give the crown back to the champion before this one."""
    champion = registry.get_by_alias(CHAMPION)
    if champion is None or champion.previous is None:
        raise UserError(f"{MODEL_NAME} on {server.redacted_uri()} has no champion that followed another")
    former = registry.get_by_number(champion.previous)
    if former is None:
        raise UserError(f"version {champion.previous}, champion before version {champion.number}, was deleted")
    text = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC: version {champion.number} rolled back to version {former.number}"
    if dry_run:
        return f"dry run, nothing was changed; {text}"
    registry.roll_back(champion, former)
    for version in (champion, former):
        registry.tag_decision(version, text)
    return text


def _download_out_of_fold(version: Version) -> pd.DataFrame:
    with tempfile.TemporaryDirectory() as folder:
        path = registry.download(version.run_id, f"reports/{OUT_OF_FOLD_FILE}", Path(folder))
        return read_table(path, integers=("prdtypecode", "predicted"))
