"""Paths, typed parameters and the environment. Importing this module has no side effects."""

import os
from pathlib import Path
from typing import Annotated, Literal, Self

from dotenv import load_dotenv
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError, model_validator

from rakuten.errors import UserError
from rakuten.yaml_files import NAME, SECTION, explain, read_yaml


def _project_of(tree: Path) -> Path:
    """The project that a tree belongs to: that which runs the experiment if `dvc exp run --temp` made the tree."""
    owners = [folder.parents[2] for folder in tree.parents if folder.parts[-3:] == (".dvc", "tmp", "exps")]
    return owners[0] if owners else tree


ROOT = Path(__file__).resolve().parents[2]  # of the tree that contains this file, whichever tree is installed
PROJECT = _project_of(ROOT)  # has what outlives an experiment: settings, runs, caches
SOURCE = ROOT / "src"
DATA = ROOT / "data"
RAW = DATA / "raw"
CORRECTIONS = DATA / "corrections"
TAXONOMY = DATA / "taxonomy.csv"
INTERIM = DATA / "interim"
PROCESSED = DATA / "processed"
CACHE = PROJECT / "data" / "cache"  # the embedding cache: no result depends on it, so DVC does not track it
LIVE = DATA / "live"  # the prediction log, drift reports and status files
MODELS = ROOT / "models"
REPORTS = ROOT / "reports"
PARAMS = ROOT / "params.yaml"
DVC_YAML = ROOT / "dvc.yaml"
DVC_LOCK = ROOT / "dvc.lock"
METRICS_FILE = "metrics.json"  # beside the model: the few scores that DVC lists
SCORES_FILE = "scores.json"  # beside the model: all scores, with their intervals

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(gt=0)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class DataParams(_Section):
    """Validation of the raw data."""

    max_rejected: Share
    unknown_labels: Literal["reject", "keep"]


class ImageEncoderParams(_Section):
    """An ONNX image encoder that the user provides."""

    path: str
    size: Annotated[int, Field(ge=8, le=2048)]
    normalisation: Literal["imagenet", "clip", "symmetric", "none"]


class TextEncoderParams(_Section):
    """An ONNX text encoder that the user provides, with its tokenizer in Hugging Face's tokenizer.json."""

    path: str
    tokenizer: str
    tokens: Annotated[int, Field(ge=4, le=8192)]
    prefix: str = ""


def _kind(value: object) -> str:
    """Whether a choice was written as a name or as a section, so that an error is about the one that was meant."""
    return SECTION if isinstance(value, (dict, BaseModel)) else NAME


ImageEncoderChoice = Annotated[
    Annotated[Literal["efficientnet-lite0", "none"], Tag(NAME)] | Annotated[ImageEncoderParams, Tag(SECTION)],
    Discriminator(_kind),
]
TextEncoderChoice = Annotated[
    Annotated[Literal["use-multilingual", "none"], Tag(NAME)] | Annotated[TextEncoderParams, Tag(SECTION)],
    Discriminator(_kind),
]


class FeatureParams(_Section):
    """How features are made from products."""

    lowercase: bool
    strip_accents: bool
    image_encoder: ImageEncoderChoice
    text_encoder: TextEncoderChoice


class BlockParams(_Section):
    """One block of n-grams."""

    columns: Annotated[list[Literal["designation_clean", "description_clean", "style"]], Field(min_length=1)]
    mask_digits: bool
    analyzer: Literal["word", "char", "char_wb"]
    ngram_range: Annotated[list[Count], Field(min_length=2, max_length=2)]
    max_features: Count
    weight: Positive

    @model_validator(mode="after")
    def _check_range(self) -> Self:
        shortest, longest = self.ngram_range
        if shortest > longest:
            raise ValueError(f"ngram_range: {shortest} must not exceed {longest}")
        return self


class TrainParams(_Section):
    """How the classifier is trained and scored."""

    folds: Annotated[int, Field(ge=2)]
    bootstrap: Count
    svm_c: Positive
    shard_rows: Annotated[int, Field(ge=20)]
    blocks: Annotated[list[BlockParams], Field(min_length=1)]


class ScheduleParams(_Section):
    """How a network is fine-tuned. The defaults are those of docs/finetuning.md."""

    base: Annotated[str, Field(min_length=1)]
    revision: str | None = None
    epochs: Count
    batch: Count = 32
    learning_rate: Positive
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    frozen_layers: Annotated[int, Field(ge=0)] = 0


class TextFinetuneParams(ScheduleParams):
    """A text encoder to fine-tune."""

    epochs: Count = 12
    learning_rate: Positive = 1e-4
    tokens: Annotated[int, Field(ge=8, le=8192)] = 96
    frozen_embeddings: bool = True


class PictureFinetuneParams(ScheduleParams):
    """A picture encoder to fine-tune."""

    epochs: Count = 20
    learning_rate: Positive = 3e-4
    size: Annotated[int, Field(ge=32, le=1024, multiple_of=32)] = 224


FinetuneDevice = Literal["auto", "cpu", "cuda", "mps"]


class FinetuneParams(_Section):
    """The encoders that are fine-tuned, and what it may cost."""

    text: Annotated[
        Annotated[Literal["none"], Tag(NAME)] | Annotated[TextFinetuneParams, Tag(SECTION)], Discriminator(_kind)
    ]
    picture: Annotated[
        Annotated[Literal["none"], Tag(NAME)] | Annotated[PictureFinetuneParams, Tag(SECTION)], Discriminator(_kind)
    ]
    folds: Annotated[int, Field(ge=2)]
    device: FinetuneDevice


class PredictParams(_Section):
    """When a prediction needs no review."""

    target_precision: Share
    novelty_false_alarms: Annotated[float, Field(ge=0, lt=1)]


class ModelsParams(_Section):
    """Which models of the registry are trusted."""

    require_signature: Annotated[
        str, Field(pattern=r"^(none|RW[0-9A-Za-z+/]{54})$", description="none or a public key of minisign (RW...)")
    ]


class PromoteParams(_Section):
    """The rules of promotion."""

    min_gain: Annotated[float, Field(ge=-1, le=1)]
    max_class_drop: Share
    max_latency_ms: Positive
    max_size_mb: Positive


class ReviewParams(_Section):
    """How people's decisions are collected."""

    agreement: Annotated[int, Field(ge=1, le=5)]
    audit_share: Annotated[float, Field(ge=0, lt=1)]
    new_code_rows: Count


class ComputeParams(_Section):
    """Where heavy work runs."""

    engine: Literal["local", "dask"]


class MonitorParams(_Section):
    """The limits of the drift monitoring."""

    window: Count
    min_rows: Count
    psi: Positive
    js: Positive
    max_review_rise: Share
    max_f1_drop: Share
    min_labels: Count
    min_audited: Count
    cool_down_hours: Annotated[float, Field(ge=0)]


class Params(_Section):
    """params.yaml as typed values; the comments in that file explain each one."""

    seed: Annotated[int, Field(ge=0, lt=2**32)]
    data: DataParams
    features: FeatureParams
    finetune: FinetuneParams
    train: TrainParams
    predict: PredictParams
    models: ModelsParams
    promote: PromoteParams
    monitor: MonitorParams
    review: ReviewParams
    compute: ComputeParams

    def flat(self) -> dict[str, object]:
        """The values by dotted name, as DVC and MLflow show them."""
        return dict(_leaves(self.model_dump(), ""))


def _leaves(tree: dict[str, object], prefix: str) -> list[tuple[str, object]]:
    leaves: list[tuple[str, object]] = []
    for key, value in tree.items():
        name = f"{prefix}{key}"
        leaves += _leaves(value, f"{name}.") if isinstance(value, dict) else [(name, value)]
    return leaves


def load_params(path: Path = PARAMS) -> Params:
    """Read params.yaml.

    Raises:
        UserError: the file is missing, is not YAML, or a value is missing, unknown or out of range. The message names
            every such value with what it may be.
    """
    try:
        return Params.model_validate(read_yaml(path))
    except ValidationError as error:
        raise UserError(f"{path}: {explain(error, Params)}") from error


def load_env() -> None:
    """Set the variables of the project's .env, except those that are set already.

    Raises:
        UserError: .env is not UTF-8, has a NUL byte, or cannot be read.
    """
    path = PROJECT / ".env"
    try:
        load_dotenv(path, override=False, encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 (byte {error.start}); save it as UTF-8") from error
    except ValueError as error:  # a NUL byte
        raise UserError(f"{path}: {error}; save it as UTF-8 text") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    # No usage statistics from MLflow, Evidently and Prefect, unless the user has set this otherwise.
    os.environ.setdefault("DO_NOT_TRACK", "1")
