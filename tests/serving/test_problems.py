"""Error responses: status, title and headers of each code."""

import json

import pytest

from rakuten.serving.problems import PROBLEM_TYPES, Problem


@pytest.mark.parametrize("code", sorted(PROBLEM_TYPES))
def test_a_body_has_the_members_of_rfc_9457_and_the_code(code: str) -> None:
    problem = Problem(code, "the détail")
    body = json.loads(problem.body("request-1"))
    assert body == {
        "type": f"urn:rakuten-classifier:{code}",
        "title": PROBLEM_TYPES[code][1],
        "status": problem.status,
        "detail": "the détail",
        "code": code,
        "request_id": "request-1",
    }
    assert 400 <= problem.status < 600


@pytest.mark.parametrize(("seconds", "header"), [(None, None), (0.0, "1"), (0.4, "1"), (2.6, "3"), (59.9, "60")])
def test_retry_after_is_whole_seconds_and_at_least_one(seconds: float | None, header: str | None) -> None:
    assert Problem("overloaded", "", seconds).headers().get("retry-after") == header


def test_only_a_missing_key_names_the_scheme_to_authenticate_with() -> None:
    assert Problem("unauthorized", "").headers()["www-authenticate"] == "ApiKey"
    assert "www-authenticate" not in Problem("not_found", "").headers()
