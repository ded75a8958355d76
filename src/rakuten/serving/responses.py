"""Bodies of responses that several routes have."""

import json
from typing import Any

from fastapi.responses import Response

from rakuten.data.taxonomy import Language, label_of
from rakuten.models.explain import Explanation
from rakuten.serving.languages import language_headers
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
