"""The model card: what the model is, what it was trained on, how good it is, and its limits."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rakuten.config import ImageEncoderParams, Params, TextEncoderParams
from rakuten.data.schema import label_of
from rakuten.types import FINETUNED_IMAGE, FINETUNED_TEXT, IMAGE

INTERVAL = "95 % interval"


def model_card(
    metrics: Mapping[str, Any], params: Params, encoders: Mapping[str, str], digests: Mapping[str, str]
) -> str:
    """The model card of a training in Markdown (Mitchell et al. 2019).

    Args:
        metrics: what models/metrics.json holds.
        encoders: for each view that the model learnt from embeddings, the fingerprint of the encoder.
        digests: for each file that the run was trained on, its MD5 as DVC records it.
    """
    blocks = [
        "# Model card: rakuten-classifier",
        _intended(metrics),
        "## Data\n\n" + _data(digests),
        "## How it was made\n\n" + _made(metrics, params, encoders),
        "## Scores, out of fold\n\n" + _scores(metrics),
        "### What each view gives\n\n" + _compared(metrics),
        "### Parts of the catalogue\n\n" + _parts(metrics),
        "### Classes\n\n" + _classes(metrics),
        "## Confidence and review\n\n" + _decided(metrics),
        "## Limits\n\n" + _limits(metrics, encoders),
    ]
    return "\n\n".join(blocks) + "\n"


def _intended(metrics: Mapping[str, Any]) -> str:
    text = (
        f"Assigns a marketplace product (title, optional description, optional image) one of "
        f"{len(metrics['f1'])} product type codes, with a calibrated confidence; uncertain ones are marked for review."
    )
    if metrics["synthetic"]:
        text += "\n\n**Trained on the synthetic sample catalogue: no score below says anything about real products.**"
    return text


def _data(digests: Mapping[str, str]) -> str:
    # The folders of an absolute path describe the machine, not the data.
    names = {name: Path(name).name if Path(name).is_absolute() else name for name in digests}
    return _table(("file", "MD5"), [(f"`{names[name]}`", f"`{md5}`") for name, md5 in digests.items()])


def _made(metrics: Mapping[str, Any], params: Params, encoders: Mapping[str, str]) -> str:
    image, text = params.features.image_encoder, params.features.text_encoder
    shards = -(-metrics["rows"] // params.train.shard_rows)
    names = {
        "text encoder": text.path if isinstance(text, TextEncoderParams) else text,
        "image encoder": image.path if isinstance(image, ImageEncoderParams) else image,
    }
    lines = [
        "- words: TF-IDF of n-grams, a linear SVM, one-vs-rest"
        + (f", averaged over {shards} shards;" if shards > 1 else ";"),
        "- meaning and picture: embeddings, discriminant analysis with a shrunk covariance;",
        *_finetuned(metrics, params),
        "- fusion of their scores by a multinomial logistic regression, whose weights depend on what a product has;",
        f"- folds: {params.train.folds}, grouped by cleaned title; seed {params.seed};",
        *(f"- {name}: {value};" for name, value in names.items()),
        *(f"- fingerprint of the {view} encoder: `{fingerprint}`;" for view, fingerprint in encoders.items()),
    ]
    return "\n".join(lines)[:-1] + "."


def _finetuned(metrics: Mapping[str, Any], params: Params) -> list[str]:
    """The fine-tuned networks that the fusion uses."""
    sections = {FINETUNED_TEXT: params.finetune.text, FINETUNED_IMAGE: params.finetune.picture}
    return [
        f"- {view}: {section.base}, trained on the products;"
        for view, section in sections.items()
        if section != "none" and f"without {view}" in metrics["compared"]
    ]


def _scores(metrics: Mapping[str, Any]) -> str:
    names = (("weighted F1", "weighted_f1"), ("macro F1", "macro_f1"), ("accuracy", "accuracy"))
    rows = [(name, _number(metrics[key]), _interval(metrics["interval"][key])) for name, key in names]
    rows.append(("expected calibration error", _number(metrics["calibration_error"]), ""))
    return f"{metrics['rows']:,} products.\n\n" + _table(("score", "value", INTERVAL), rows)


def _compared(metrics: Mapping[str, Any]) -> str:
    rows = [
        (name, f"{scores['rows']:,}", _number(scores["weighted_f1"])) for name, scores in metrics["compared"].items()
    ]
    rows.append(("**this model**", f"{metrics['rows']:,}", _number(metrics["weighted_f1"])))
    return "A single view is scored on the products that have it.\n\n" + _table(("", "rows", "weighted F1"), rows)


def _parts(metrics: Mapping[str, Any]) -> str:
    rows = [
        (name, f"{part['rows']:,}", _number(part["weighted_f1"]), _interval(part["weighted_f1_interval"]))
        for name, part in metrics["parts"].items()
    ]
    return _table(("products", "rows", "weighted F1", INTERVAL), rows)


def _classes(metrics: Mapping[str, Any]) -> str:
    rows = [
        (code, label_of(int(code)), _number(f1), _interval(metrics["f1_interval"][code]))
        for code, f1 in metrics["f1"].items()
    ]
    return _table(("prdtypecode", "what it is", "F1", INTERVAL), rows)


def _decided(metrics: Mapping[str, Any]) -> str:
    decided = metrics["decided"]
    if decided["coverage"] == 0:
        return (
            f"No confidence reaches the target precision of {decided['target_precision']:.2f} out of fold: "
            "every product is marked for review."
        )
    return (
        f"For a target precision of {decided['target_precision']:.2f}, products with a confidence of at least "
        f"{decided['threshold']:.3f} are decided automatically: {decided['coverage']:.1%} of them out of fold, "
        f"of which {decided['precision']:.1%} are correct. The rest is marked for review."
    )


def _limits(metrics: Mapping[str, Any], encoders: Mapping[str, str]) -> str:
    worst = sorted(metrics["f1"], key=lambda code: float(metrics["f1"][code]))[:3]
    lines = [
        "- It knows only the codes it was trained on; a product of a new kind gets one of them.",
        f"- Weakest classes: {', '.join(f'{code} ({label_of(int(code))})' for code in worst)}.",
        f"- {metrics['label_issues']:,} labels look wrong (`label_issues.csv`); the scores count them as they are.",
        "- Intervals account for the sampling of products, not for the choice of settings or changes of the catalogue.",
    ]
    if IMAGE not in encoders:
        lines.append("- It does not use images.")
    return "\n".join(lines)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _number(value: float) -> str:
    return f"{value:.4f}"


def _interval(bounds: Sequence[float]) -> str:
    return f"{bounds[0]:.3f} to {bounds[1]:.3f}"
