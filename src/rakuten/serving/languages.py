"""In which language a reader wants the names of codes: the header Accept-Language (RFC 9110, 12.5.4)."""

from starlette.requests import Request

from rakuten.data.taxonomy import DEFAULT_LANGUAGE, LANGUAGES, Language


def language_of(request: Request) -> Language:
    """The language of the taxonomy that the request prefers."""
    return preferred_language(request.headers.get("accept-language", ""))


def preferred_language(accept_language: str) -> Language:
    """The first of the most wanted languages that the taxonomy has; DEFAULT_LANGUAGE if none is wanted.

    A region is ignored: "en-GB" is "en". "*" is any language, so the default. What cannot be read is passed over.

    Args:
        accept_language: such as "de, en-GB;q=0.8, fr;q=0.5".
    """
    wanted: dict[Language, float] = {}
    for item in accept_language.split(","):
        tag, *parameters = item.replace(" ", "").lower().split(";")
        primary = DEFAULT_LANGUAGE if tag == "*" else tag.partition("-")[0]
        for language in LANGUAGES:
            if primary == language:
                wanted[language] = max(_quality(parameters), wanted.get(language, 0.0))
    best = max(wanted, key=lambda language: wanted[language], default=DEFAULT_LANGUAGE)
    return best if wanted.get(best) else DEFAULT_LANGUAGE


def _quality(parameters: list[str]) -> float:
    """The weight of a language, 0 to 1; 0 if it cannot be read."""
    if not parameters:
        return 1.0
    try:
        quality = float(parameters[0].removeprefix("q="))
    except ValueError:
        return 0.0
    return quality if 0 <= quality <= 1 else 0.0


def language_headers(language: Language) -> dict[str, str]:
    """The headers of a response whose names are in this language."""
    return {"content-language": language, "vary": "accept-language"}
