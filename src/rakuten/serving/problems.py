"""Error responses as application/problem+json (RFC 9457), each with a stable code, never with a stack trace."""

import json
from typing import Any

PROBLEM_TYPES = {  # code -> HTTP status and title
    "invalid_request": (422, "The request is not valid"),
    "host_not_allowed": (403, "The host is not allowed"),
    "too_slow": (408, "The request took too long to arrive"),
    "header_too_large": (431, "The header is too large"),
    "disconnected": (499, "The client has disconnected"),  # nginx's number; nobody reads it but the log
    "not_found": (404, "Not found"),
    "method_not_allowed": (405, "Method not allowed"),
    "unsupported_media_type": (415, "The body is neither JSON nor a form"),
    "unauthorized": (401, "An API key is required"),
    "forbidden": (403, "The key's role does not allow this"),
    "body_too_large": (413, "The request is too large"),
    "picture_too_large": (413, "The picture is too large"),
    "batch_too_large": (413, "Too many products at once"),
    "rate_limited": (429, "Too many requests"),
    "overloaded": (503, "The server is overloaded"),
    "not_ready": (503, "No model is loaded"),
    "review_unavailable": (503, "The review desk is not available"),
    "stopping": (503, "The server is stopping"),
    "internal": (500, "Internal server error"),
}


class Problem(Exception):  # noqa: N818  RFC 9457's word
    """Raised anywhere while a request is handled; becomes its error response.

    Args:
        code: a key of PROBLEM_TYPES.
        detail: what is wrong with this request, in words for the client.
        retry_after: seconds after which to try again; rounded, and at least 1 in the header.
    """

    def __init__(self, code: str, detail: str, retry_after: float | None = None) -> None:
        super().__init__(detail)
        self.code, self.detail, self.retry_after = code, detail, retry_after

    @property
    def status(self) -> int:
        """The HTTP status."""
        return PROBLEM_TYPES[self.code][0]

    def headers(self) -> dict[str, str]:
        """The headers of the response, but its length."""
        headers = {"content-type": "application/problem+json"}
        if self.retry_after is not None:
            headers["retry-after"] = str(max(1, round(self.retry_after)))
        if self.code == "unauthorized":
            headers["www-authenticate"] = "ApiKey"
        return headers

    def body(self, request_id: str) -> bytes:
        """The response's JSON, UTF-8."""
        status, title = PROBLEM_TYPES[self.code]
        content: dict[str, Any] = {
            "type": f"urn:rakuten-classifier:{self.code}",
            "title": title,
            "status": status,
            "detail": self.detail,
            "code": self.code,
            "request_id": request_id,
        }
        return json.dumps(content, ensure_ascii=False).encode()
