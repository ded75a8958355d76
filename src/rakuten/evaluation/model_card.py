"""The model card: what the model is, what it was trained on, how good it is, and its limits."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rakuten.config import ImageEncoderParams, Params, TextEncoderParams
from rakuten.data.taxonomy import label_of
from rakuten.types import FINETUNED_IMAGE, FINETUNED_TEXT, IMAGE

INTERVAL = "95 % interval"


def model_card(
    scores: Mapping[str, Any], params: Params, encoders: Mapping[str, str], digests: Mapping[str, str]
) -> str:
    """The model card of a training in Markdown (Mitchell et al. 2019).

    Args:
        scores: what models/scores.json holds.
        encoders: for each view that the model learnt from embeddings, the fingerprint of the encoder.
        digests: for each file that the run was trained on, its MD5 as DVC records it.
    """
    blocks = [
        "# Model card: rakuten-classifier",
        _intended(scores),
        "## Data\n\n" + _data(digests),
        "## How it was made\n\n" + _made(scores, params, encoders),
        "## Scores, out of fold\n\n" + _scores(scores),
        "### What each view gives\n\n" + _compared(scores),
        "### Parts of the catalogue\n\n" + _parts(scores),
        "### Classes\n\n" + _classes(scores),
        "## Confidence and review\n\n" + _decided(scores),
        "## Limits\n\n" + _limits(scores, encoders),
    ]
    return "\n\n".join(blocks) + "\n"


def _intended(scores: Mapping[str, Any]) -> str:
    text = (
        f"Assigns a marketplace product (title, optional description, optional image) one of "
        f"{len(scores['f1'])} product type codes, with a calibrated confidence; uncertain ones are marked for review."
    )
    if scores["synthetic"]:
        text += "\n\n**Trained on the synthetic sample catalogue: no score below says anything about real products.**"
    return text


def _data(digests: Mapping[str, str]) -> str:
    # The folders of an absolute path describe the machine, not the data.
    names = {name: Path(name).name if Path(name).is_absolute() else name for name in digests}
    return _table(("file", "MD5"), [(f"`{names[name]}`", f"`{md5}`") for name, md5 in digests.items()])


def _made(scores: Mapping[str, Any], params: Params, encoders: Mapping[str, str]) -> str:
    image, text = params.features.image_encoder, params.features.text_encoder
    shards = -(-scores["rows"] // params.train.shard_rows)
    names = {
        "text encoder": text.path if isinstance(text, TextEncoderParams) else text,
        "image encoder": image.path if isinstance(image, ImageEncoderParams) else image,
    }
    lines = [
        "- words: TF-IDF of n-grams, a linear SVM, one-vs-rest"
        + (f", averaged over {shards} shards;" if shards > 1 else ";"),
        "- meaning and picture: embeddings, discriminant analysis with a shrunk covariance;",
        *_finetuned(scores, params),
        "- fusion of their scores by a multinomial logistic regression, whose weights depend on what a product has;",
        f"- folds: {params.train.folds}, grouped by cleaned title; seed {params.seed};",
        *(f"- {name}: {value};" for name, value in names.items()),
        *(f"- fingerprint of the {view} encoder: `{fingerprint}`;" for view, fingerprint in encoders.items()),
    ]
    return "\n".join(lines)[:-1] + "."


def _finetuned(scores: Mapping[str, Any], params: Params) -> list[str]:
    """The fine-tuned networks that the fusion uses."""
    sections = {FINETUNED_TEXT: params.finetune.text, FINETUNED_IMAGE: params.finetune.picture}
    return [
        f"- {view}: {section.base}, trained on the products;"
        for view, section in sections.items()
        if section != "none" and f"without {view}" in scores["compared"]
    ]


def _scores(scores: Mapping[str, Any]) -> str:
    names = (("weighted F1", "weighted_f1"), ("macro F1", "macro_f1"), ("accuracy", "accuracy"))
    rows = [(name, _number(scores[key]), _interval(scores["interval"][key])) for name, key in names]
    rows.append(("expected calibration error", _number(scores["calibration_error"]), ""))
    return f"{scores['rows']:,} products.\n\n" + _table(("score", "value", INTERVAL), rows)


def _compared(scores: Mapping[str, Any]) -> str:
    rows = [(name, f"{other['rows']:,}", _number(other["weighted_f1"])) for name, other in scores["compared"].items()]
    rows.append(("**this model**", f"{scores['rows']:,}", _number(scores["weighted_f1"])))
    return "A single view is scored on the products that have it.\n\n" + _table(("", "rows", "weighted F1"), rows)


def _parts(scores: Mapping[str, Any]) -> str:
    rows = [
        (name, f"{part['rows']:,}", _number(part["weighted_f1"]), _interval(part["weighted_f1_interval"]))
        for name, part in scores["parts"].items()
    ]
    return _table(("products", "rows", "weighted F1", INTERVAL), rows)


def _classes(scores: Mapping[str, Any]) -> str:
    rows = [
        (code, label_of(int(code), "en"), _number(f1), _interval(scores["f1_interval"][code]))
        for code, f1 in scores["f1"].items()
    ]
    return _table(("prdtypecode", "what it is", "F1", INTERVAL), rows)


def _decided(scores: Mapping[str, Any]) -> str:
    return f"{_automatic(scores['decided'])}{_parents(scores)}\n\n{_novel(scores['novelty'])}"


def _automatic(decided: Mapping[str, Any]) -> str:
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


def _parents(scores: Mapping[str, Any]) -> str:
    parents = scores["parents"]
    if parents["coverage"] == 0:
        return ""
    return (
        f" {parents['coverage']:.1%} of the products below that get the parent of their code, where its codes have a "
        f"probability of at least {parents['threshold']:.3f} together: {parents['precision']:.1%} of these are correct."
    )


def _novel(novelty: Mapping[str, Any]) -> str:
    flagged = novelty["false_alarms"]
    if not flagged["rows"]:
        return "No product has a text or an image, so none can be called novel."
    none = novelty.get("none_of_the_codes", {"rows": 0})
    found = (
        f" Of {none['rows']:,} products that people said none of the codes fits, {none['share']:.1%} "
        f"({_interval(none['interval'])}) are, by a model that was not trained on them."
        if none["rows"]
        else ""
    )
    return (
        "A product unlike all train products is called novel and is marked for review whatever its confidence. Of "
        f"train products {flagged['share']:.1%} (95 % interval {_interval(flagged['interval'])}) are, out of fold; "
        f"{novelty['target_false_alarms']:.1%} are allowed by `predict.novelty_false_alarms`.{found}"
    )


def _limits(scores: Mapping[str, Any], encoders: Mapping[str, str]) -> str:
    worst = sorted(scores["f1"], key=lambda code: float(scores["f1"][code]))[:3]
    weakest = ", ".join(f"{code} ({label_of(int(code), 'en')})" for code in worst)
    lines = [
        "- It knows only the codes it was trained on; a product of a new kind gets one of them.",
        f"- Weakest classes: {weakest}.",
        f"- {scores['label_issues']:,} labels look wrong (`label_issues.csv`); the scores count them as they are.",
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
