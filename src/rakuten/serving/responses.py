"""Bodies of responses, as `schemas` describes them."""

import json
from typing import Any

from fastapi.responses import Response

from rakuten.data.taxonomy import LANGUAGES, Language, current_taxonomy, label_of
from rakuten.models.explain import Explanation
from rakuten.models.pyfunc_model import image_outcome
from rakuten.serving.languages import language_headers
from rakuten.serving.scorer import ScoredProducts
from rakuten.serving.training_pictures import TrainingPictures


def json_response(content: Any, language: Language | None = None) -> Response:
    """A response of JSON, with texts as they are.

    Args:
        language: of the codes' names in it; None: it has none.
    """
    body = json.dumps(content, ensure_ascii=False, allow_nan=False)
    return Response(body, media_type="application/json", headers=language_headers(language) if language else None)


def explanation_body(
    explanation: Explanation, language: Language, training_pictures: TrainingPictures
) -> dict[str, Any]:
    """The body of `schemas.ExplanationOut`, but the prediction."""
    images = [
        image
        | {
            "label": label_of(int(image["prdtypecode"]), language),
            "has_picture": training_pictures.find(image["imageid"], image["productid"]) is not None,
        }
        for image in explanation.similar_images.to_dict("records")
    ]
    return {
        "views": explanation.views.to_dict("records"),
        "spoke_for": explanation.positive_terms.to_dict("records"),
        "spoke_against": explanation.negative_terms.to_dict("records"),
        "pictures": images,
    }


def class_body(code: int, language: Language) -> dict[str, Any]:
    """The body of `schemas.ClassOut`."""
    return {
        "prdtypecode": code,
        "label": label_of(code, language),
        "names": {each: label_of(code, each) for each in LANGUAGES},
        "parent": current_taxonomy().parent_of.get(code),
    }


def prediction_body(scored: ScoredProducts, row: int, top_k: int, language: Language) -> dict[str, Any]:
    """The body of `schemas.Prediction` for one of the products."""
    top = [
        {"prdtypecode": code, "label": label_of(code, language), "confidence": confidence}
        for code, confidence in zip(scored.codes[row][:top_k], scored.confidence[row][:top_k], strict=True)
    ]
    return {
        "prediction_id": scored.prediction_ids[row],
        **top[0],
        "top": top,
        "needs_review": scored.needs_review[row],
        "parent": _parent_body(scored.parents[row], language),
        "is_novel": scored.is_novel[row],
        "novelty": scored.novelty[row],
        "picture": image_outcome(scored.image_states[row]),
    }


def _parent_body(key: str, language: Language) -> dict[str, str] | None:
    """The body of `schemas.ParentOut`; None for no parent."""
    return {"key": key, "label": current_taxonomy().parent_label(key, language)} if key else None


def model_info(scored: ScoredProducts) -> dict[str, Any]:
    """What names the model that scored products, in the bodies that have it."""
    return {"model_version": scored.model.model_version, "run_id": scored.model.metadata["run_id"]}


def single_prediction_body(scored: ScoredProducts, top_k: int, language: Language) -> dict[str, Any]:
    """The body of `schemas.PredictionOut`."""
    return prediction_body(scored, 0, top_k, language) | model_info(scored)
