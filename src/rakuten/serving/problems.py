"""Errors as application/problem+json (RFC 9457), each with a stable code and never a stack trace."""

import json
from typing import Any

TITLES = {
    "invalid_request": (422, "The request is not understood"),
    "host_not_allowed": (403, "Not for this host"),
    "too_slow": (408, "The request came too slowly"),
    "not_found": (404, "There is nothing here"),
    "method_not_allowed": (405, "This method is not for this address"),
    "unsupported_media_type": (415, "Neither JSON nor a form"),
    "unauthorized": (401, "An API key is asked for"),
    "body_too_large": (413, "The request is too large"),
    "picture_too_large": (413, "The picture is too large"),
    "batch_too_large": (413, "Too many products at once"),
    "rate_limited": (429, "Too many requests"),
    "overloaded": (503, "More is asked than can be scored"),
    "not_ready": (503, "No model is loaded"),
    "stopping": (503, "The server is stopping"),
    "internal": (500, "Something went wrong here"),
}


class Problem(Exception):  # noqa: N818  the field's own word
    """An answer that is not the one asked for."""

    def __init__(self, code: str, detail: str, retry_after: float | None = None) -> None:
        super().__init__(detail)
        self.code, self.detail, self.retry_after = code, detail, retry_after

    @property
    def status(self) -> int:
        return TITLES[self.code][0]

    def headers(self) -> dict[str, str]:
        found = {"content-type": "application/problem+json"}
        if self.retry_after is not None:
            found["retry-after"] = str(max(1, round(self.retry_after)))
        if self.code == "unauthorized":
            found["www-authenticate"] = "ApiKey"
        return found

    def body(self, request_id: str) -> bytes:
        status, title = TITLES[self.code]
        content: dict[str, Any] = {
            "type": f"urn:rakuten-classifier:{self.code}",
            "title": title,
            "status": status,
            "detail": self.detail,
            "code": self.code,
            "request_id": request_id,
        }
        return json.dumps(content, ensure_ascii=False).encode()
