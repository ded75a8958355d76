"""The page in a real Chromium, on a real API: one product, a CSV file, errors, languages, keyboard, small screens."""

import csv
import io
import itertools
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Route, expect, sync_playwright

from tests.support.api import Api
from tests.support.chromium import ARGUMENTS, find_chromium

Open = Callable[..., Page]

TIMEOUT_MS = 60_000  # the cores may be busy with other tests
POOL, POOL_TEXT = "Piscine gonflable ronde 366 x 76 cm", "<p>Avec pompe de filtration</p>"
ADDED = ["prdtypecode", "label", "confidence", "needs_review", "model_version", "error"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = find_chromium()
    if chromium is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    expect.set_options(timeout=TIMEOUT_MS)
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        yield launched
        launched.close()


@pytest.fixture
def visit(browser: Browser, api: Api) -> Iterator[Open]:
    """Open the page: `visit(locale="en-GB", width=390)`; at the end no other host was called and no error logged."""
    hosts: set[str] = set()
    errors: list[str] = []
    contexts = []

    def on_console(message: ConsoleMessage) -> None:
        # The browser logs each response with an error status; that is no error of the page.
        if message.type in ("error", "warning") and not message.text.startswith("Failed to load resource"):
            errors.append(message.text)

    def make(locale: str = "fr-FR", width: int = 1280, height: int = 900, ready: bool = True, **more: Any) -> Page:
        context = browser.new_context(locale=locale, viewport={"width": width, "height": height}, **more)
        contexts.append(context)
        context.set_default_timeout(TIMEOUT_MS)
        context.on("request", lambda request: hosts.add(urlsplit(request.url).netloc))
        page = context.new_page()
        page.on("console", on_console)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(f"{api.url}/")
        if ready:
            page.locator("#model").wait_for()
        return page

    yield make
    for context in contexts:
        context.close()
    assert hosts <= {urlsplit(api.url).netloc, ""}  # "" is blob: and data:
    assert errors == []


@pytest.fixture(scope="module")
def picture(sample: Path) -> Path:
    return min((sample / "images" / "image_train").glob("*.jpg"))


def classify(page: Page, title: str = POOL, description: str = "") -> dict[str, Any]:
    """Classify a product on the page; return the API's answer."""
    page.fill("#title", title)
    page.fill("#description", description)
    with page.expect_response("**/explain") as waited:
        page.click("#classify")
    answer: dict[str, Any] = waited.value.json()
    expect(page.locator("#answer-heading")).to_be_focused()
    return answer


def fetch_model(page: Page) -> dict[str, Any]:
    """The body of /model."""
    answer: dict[str, Any] = page.evaluate("fetch('/model').then((answer) => answer.json())")
    return answer


def choose(page: Page, data: bytes, name: str = "produits.csv") -> None:
    page.click("#tab-file")
    page.set_input_files("#file", {"name": name, "mimeType": "text/csv", "buffer": data})


def score(page: Page, data: bytes) -> bytes:
    """Classify a CSV file on the page; return the file with the codes."""
    choose(page, data)
    page.click("#file-start")
    expect(page.locator("#file-result-heading")).to_be_focused()
    return downloaded(page)


def downloaded(page: Page) -> bytes:
    with page.expect_download() as waited:
        page.click("#file-download")
    assert waited.value.suggested_filename == "produits_prdtypecode.csv"
    return Path(waited.value.path()).read_bytes()


def rows_of(data: bytes, separator: str = ",") -> list[list[str]]:
    return list(csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), delimiter=separator))


def products_of(route: Route) -> list[dict[str, Any]]:
    """The products in a request to /predict/batch."""
    return list(json.loads(route.request.post_data or "")["products"])


def problem(status: int, code: str, detail: str = "", **headers: str) -> dict[str, Any]:
    """An answer for `route.fulfill`."""
    body = {"status": status, "code": code, "detail": detail, "title": code, "type": "x", "request_id": "r-42"}
    return {"status": status, "content_type": "application/problem+json", "headers": headers, "body": json.dumps(body)}


def answer_first(count: int, answer: dict[str, Any]) -> Callable[[Route], None]:
    """A route handler that gives this answer to the first `count` requests and lets later ones through."""
    numbers = itertools.count()

    def handle(route: Route) -> None:
        route.fulfill(**answer) if next(numbers) < count else route.continue_()

    return handle


# one product


def test_a_text_is_classified_with_confidence_and_explanation(visit: Open) -> None:
    page = visit()
    answer = classify(page, POOL, POOL_TEXT)
    prediction = answer["prediction"]
    expect(page.locator("#answer-heading")).to_have_text(f"{prediction['prdtypecode']} {prediction['label']}")
    expect(page.locator(".state")).to_have_text("À vérifier" if prediction["needs_review"] else "Automatique")
    shown = float(page.locator(".confidence strong").inner_text().strip("<>% \u00a0\u202f").replace(",", "."))
    assert shown == pytest.approx(100 * prediction["confidence"], abs=0.11)
    ranked = page.locator(".ranking li .code").all_inner_texts()
    assert ranked == [str(choice["prdtypecode"]) for choice in prediction["top"]]
    assert len(ranked) == 5
    expect(page.locator(".views li")).to_have_count(len(answer["views"]))
    assert "piscine titre" in page.locator(".terms").first.inner_text()
    assert page.locator(".terms").count() + page.get_by_text("Rien de connu du modèle").count() == 2
    expect(page.get_by_text("Aucune image : réponse fondée sur le texte seul.")).to_be_visible()


def test_the_lists_of_words_add_up_to_the_terms_of_the_api(visit: Open) -> None:
    page = visit()
    answer = classify(page, POOL, POOL_TEXT)
    for column, side in enumerate(("spoke_for", "spoke_against")):
        weights = page.locator(".words > div").nth(column).locator(".number").all_inner_texts()
        shown = [float(weight.replace(",", ".").replace("\u2212", "-")) for weight in weights]
        assert sum(shown) == pytest.approx(sum(term["contribution"] for term in answer[side]), abs=0.0006 * len(shown))


def test_an_answer_is_shown_as_text_never_as_html_and_translated(visit: Open) -> None:
    page = visit()
    choice = {"prdtypecode": 7, "label": "<b>x</b>", "confidence": 0.9999}
    style = {"columns": "style", "analyzer": "word", "contribution": -0.2}
    piece = {"columns": "designation_clean", "analyzer": "char_wb", "contribution": -1.5}
    answer = {
        "prediction": choice
        | {"top": [choice], "needs_review": False, "picture": "unusable: <i>", "model_version": "new", "run_id": None},
        "views": [
            {"view": "words", "contribution": -1, "share": 0.8}, {"view": "new", "contribution": 1, "share": 0.2},
        ],
        "spoke_for": [],
        "spoke_against": [
            piece | {"term": " pis"}, piece | {"term": "cine "}, piece | {"term": "<u>"},
            *(style | {"term": term} for term in ("title_u45", "letters9", "tag_b", "new")),
        ],
        "pictures": [{"productid": 1, "imageid": 2, "prdtypecode": 7, "label": "<s>", "similarity": -0.1}],
    }  # fmt: skip
    page.route("**/explain", answer_first(1, {"json": answer}))
    with page.expect_response("**/model"):  # the version is another one: the model's facts are asked for again
        page.fill("#title", POOL)
        page.click("#classify")
    expect(page.locator("#answer-heading")).to_have_text("7 <b>x</b>")
    expect(page.locator(".confidence strong")).to_have_text(re.compile(r"> 99,9\s%"))
    expect(page.get_by_text("(<i>)")).to_be_visible()
    expect(page.locator(".views li.against")).to_contain_text("Mots contre")
    assert page.locator(".terms .term").all_inner_texts() == [
        "fragments de mots\u00a0: pis…, …cine, …<u>…",
        "«\u00a0-\u00a0» dans le titre",
        "longueur du titre",
        "balise HTML <b>",
        "new",
    ]
    expect(page.locator(".terms .number").first).to_have_text("\u22124,500")
    expect(page.get_by_text("Rien que le modèle reconnaisse.")).to_be_visible()
    assert page.locator("#answer").locator("b, i, s, u").count() == 0


def test_a_chosen_picture_is_shown_used_and_can_be_removed(visit: Open, picture: Path) -> None:
    page = visit()
    page.set_input_files("#picture", picture)
    expect(page.locator("#picture-name")).to_have_text(picture.name)
    page.wait_for_function("document.getElementById('preview').naturalWidth > 0")
    answer = classify(page)
    expect(page.get_by_text("L'image a été utilisée.")).to_be_visible()
    assert answer["pictures"]
    expect(page.locator(".why tbody tr")).to_have_count(len(answer["pictures"]))
    expect(page.locator(".why tbody tr").first).to_contain_text(str(answer["pictures"][0]["productid"]))
    page.click("#picture-remove")
    expect(page.locator("#picture-shown")).to_be_hidden()
    assert classify(page)["prediction"]["picture"] == "none"


@pytest.mark.parametrize("way", ["drop", "paste"])
def test_a_picture_can_be_dropped_and_pasted(visit: Open, picture: Path, way: str) -> None:
    page = visit()
    page.evaluate(
        """([way, bytes]) => {
          const data = new DataTransfer();
          data.items.add(new File([new Uint8Array(bytes)], "photo.jpg", { type: "image/jpeg" }));
          const drop = new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true });
          const paste = new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true });
          document.getElementById("picture-drop").dispatchEvent(way === "drop" ? drop : paste);
        }""",
        [way, list(picture.read_bytes())],
    )
    expect(page.locator("#product-status")).to_have_text("Image ajoutée : photo.jpg")
    assert classify(page)["prediction"]["picture"] == "used"


def test_cells_of_a_spreadsheet_are_pasted_as_text(visit: Open) -> None:
    page = visit()
    taken = page.evaluate(
        """() => {
          const data = new DataTransfer();
          data.setData("text/plain", "Piscine");
          data.items.add(new File([new Uint8Array(9)], "image.png", { type: "image/png" }));
          const paste = new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true });
          document.getElementById("title").dispatchEvent(paste);
          return paste.defaultPrevented;
        }"""
    )
    assert not taken
    expect(page.locator("#picture-shown")).to_be_hidden()


def test_an_unusable_picture_is_reported(visit: Open, picture: Path) -> None:
    page = visit()
    cut = picture.read_bytes()[:2000]
    page.set_input_files("#picture", {"name": "coupée.jpg", "mimeType": "image/jpeg", "buffer": cut})
    classify(page)
    expect(page.get_by_text("L'image n'a pas pu être utilisée (fichier tronqué)")).to_be_visible()


def test_a_file_that_is_no_picture_is_refused_at_once(visit: Open) -> None:
    page = visit()
    page.set_input_files("#picture", {"name": "a.txt", "mimeType": "text/plain", "buffer": b"text"})
    expect(page.locator("#product-error")).to_have_text("Ce fichier n'est pas une image.")
    expect(page.locator("#picture-shown")).to_be_hidden()


def test_an_empty_product_is_refused_and_the_example_is_classified(visit: Open) -> None:
    page = visit()
    page.click("#classify")
    expect(page.locator("#product-error")).to_have_text("Donnez un titre, une description ou une image.")
    page.click("#example")
    page.keyboard.press("Enter")
    expect(page.locator("#answer-heading")).to_be_focused()
    page.click("button[type=reset]")
    expect(page.locator("#answer-heading")).to_have_count(0)
    expect(page.locator("#title")).to_have_value("")


# languages, the model, the key


def test_the_language_follows_the_browser_is_switched_and_kept(visit: Open) -> None:
    page = visit("en-US")
    assert page.evaluate("document.documentElement.lang") == "en"
    answer = classify(page)
    state = "review" if answer["prediction"]["needs_review"] else "decided"
    expect(page.locator(".state")).to_have_text({"review": "To review", "decided": "Automatic"}[state])
    page.click("#language")
    assert page.evaluate("document.documentElement.lang") == "fr"
    expect(page.locator(".state")).to_have_text({"review": "À vérifier", "decided": "Automatique"}[state])
    expect(page.locator(".confidence strong")).to_have_text(re.compile(r"^(> )?\d+(,\d+)?[\u00a0\u202f]%$"))
    page.reload()
    expect(page.locator("h1")).to_have_text("Classification des produits")
    expect(page).to_have_title("Classification des produits")


def placeholders(text: str) -> list[str]:
    """The {names} in a text of the page, but the ending of a plural."""
    return sorted(re.findall(r"\{\w+\}", text.replace("{s}", "")))


def test_both_languages_have_every_text(visit: Open) -> None:
    texts = visit().evaluate("import('/static/texts.js').then((module) => module.TEXTS)")
    assert all(len(both) == 2 and all(both) for both in texts.values())
    for french, english in texts.values():
        assert placeholders(french) == placeholders(english)


def test_the_model_is_shown_with_a_warning_if_it_is_synthetic(visit: Open) -> None:
    page = visit()
    model = fetch_model(page)
    facts = page.locator("#model-facts").inner_text()
    assert model["model_version"] in facts
    assert re.search(r"F1 pondéré\s+\d\d?(,\d)?\s%\s+de \d\d?(,\d)?\s% à \d\d?(,\d)?\s%", facts)
    assert model["synthetic"]
    expect(page.locator("#synthetic")).to_be_visible()


def test_a_key_is_asked_for_kept_in_the_tab_and_sent(visit: Open) -> None:
    page = visit()
    sent: list[str | None] = []

    def guard(route: Route) -> None:
        sent.append(route.request.headers.get("x-api-key"))
        route.continue_() if sent[-1] == "secret" else route.fulfill(**problem(401, "unauthorized"))

    page.route(re.compile("/(model|explain)$"), guard)
    page.reload()
    expect(page.locator("#key")).to_be_focused()
    expect(page.locator("#page-error")).to_have_text("Une clé d'accès valide est nécessaire. (Requête r-42)")
    for key in ("wrong", "secret"):
        page.fill("#key", key)
        page.keyboard.press("Enter")
        expect(page.locator("#key")).to_have_value("")
    expect(page.locator("#key-form")).to_be_hidden()
    expect(page.locator("#page-error")).to_be_empty()
    classify(page)
    assert sent == [None, "wrong", "secret", "secret"]
    assert page.evaluate("[sessionStorage.length, localStorage.length]") == [1, 0]


# errors


def test_a_refusal_of_the_api_is_one_line_with_the_request(visit: Open) -> None:
    page = visit()
    max_characters = fetch_model(page)["limits"]["text_characters"]
    classify(page)
    page.fill("#title", "x" * (max_characters + 1))
    page.click("#classify")
    expect(page.locator("#product-error")).to_have_text(
        re.compile(r"^La requête n'est pas valide\. designation.* \(Requête [\w-]+\)$")
    )
    expect(page.locator("#product-error")).to_have_attribute("role", "alert")
    expect(page.locator("#answer-heading")).to_have_count(0)  # it was another product's


def test_a_busy_service_is_asked_again_after_the_time_it_names(visit: Open) -> None:
    page = visit()
    page.route("**/explain", answer_first(1, problem(503, "overloaded", **{"Retry-After": "1"})))
    page.fill("#title", POOL)
    page.click("#classify")
    expect(page.locator("#product-status")).to_have_text("Le service est occupé : nouvel essai dans 1 seconde.")
    expect(page.locator("#answer-heading")).to_be_focused()
    expect(page.locator("#product-error")).to_be_empty()


def test_a_service_that_stays_busy_is_reported(visit: Open) -> None:
    page = visit()
    page.route("**/explain", answer_first(99, problem(429, "rate_limited", **{"Retry-After": "0"})))
    page.fill("#title", POOL)
    page.click("#classify")
    expect(page.locator("#product-error")).to_contain_text("Trop de requêtes")
    page.click("#language")
    expect(page.locator("#product-error")).to_have_text("Too many requests; try again in a moment. (Request r-42)")


def test_a_lost_network_is_reported_until_it_is_back(visit: Open) -> None:
    page = visit()
    page.context.set_offline(True)
    page.fill("#title", POOL)
    page.click("#classify")
    expect(page.locator("#product-error")).to_contain_text("Le service ne répond pas.")
    page.context.set_offline(False)
    classify(page)
    expect(page.locator("#product-error")).to_be_empty()


# a CSV file


@pytest.mark.parametrize(("separator", "mark", "newline"), [(",", "", "\n"), (";", "\ufeff", "\r\n")])
def test_a_file_comes_back_unchanged_but_for_the_added_columns(
    visit: Open, separator: str, mark: str, newline: str
) -> None:
    lines = [
        ["ref", "designation", "description", "prix, HT; en €"],
        ["007", f'"{POOL}"', f'"Avec ""pompe"",{newline}filtre; bâche"', "1,50" if separator == ";" else "1.50"],
        ["1+1=2", 'Écran 24" plat', "", '""'],
        ["", '"<img src=x onerror=alert(1)>"', "<b>x</b>", "  "],
        ["9", "", "", ""],
    ]
    lines[0][3] = f'"{lines[0][3]}"'
    text = mark + newline.join(separator.join(line) for line in lines) + newline
    page = visit()
    back = score(page, text.encode())
    given, got = rows_of(text.encode(), separator), rows_of(back, separator)
    assert [row[:4] for row in got] == given
    assert back.decode().startswith(mark + lines[0][0])
    at = -1
    for line in lines:  # as written, quotes and all
        at = back.decode().index(separator.join(line) + separator, at + 1)
    assert back.decode().count(newline) == text.count(newline)
    assert got[0][4:] == ADDED
    version = fetch_model(page)["model_version"]
    for row in got[1:]:
        code, label, confidence, review, by, error = row[4:]
        assert int(code) > 0
        assert label
        assert 0 < float(confidence) <= 1
        assert review in ("true", "false")
        assert (by, error) == (version, "")
    page.click("#tab-product")
    assert str(classify(page, *got[1][1:3])["prediction"]["prdtypecode"]) == got[1][4]
    assert page.locator("#file-unsure img").count() == 0


def test_a_file_of_many_parts_keeps_its_order(visit: Open, sample: Path) -> None:
    data = (sample / "X_train.csv").read_bytes()
    page = visit()
    asked: list[int] = []

    def count(route: Route) -> None:
        asked.append(len(products_of(route)))
        route.continue_()

    page.route("**/predict/batch", count)
    back = score(page, data)
    given, got = rows_of(data), rows_of(back)
    assert [row[: len(given[0])] for row in got] == given
    assert all(row[len(given[0])] and not row[-1] for row in got[1:])
    batch_size = fetch_model(page)["limits"]["batch"]
    assert sum(asked) == len(given) - 1
    assert asked[:-1] == [batch_size] * (len(asked) - 1)
    figures = [int(text) for text in page.locator("#file-figures dd").all_inner_texts()]
    assert sum(figures) == len(given) - 1


def test_long_texts_go_in_smaller_parts(visit: Open) -> None:
    page = visit()
    sizes: list[int] = []
    answer = {"predictions": [{"prdtypecode": 10, "label": "x", "confidence": 1, "needs_review": False}] * 100}

    def take(route: Route) -> None:
        sizes.append(len(route.request.post_data or ""))
        route.fulfill(json=answer | {"model_version": "m"})

    page.route("**/predict/batch", take)
    row = "designation " * (fetch_model(page)["limits"]["text_characters"] // 12)
    got = rows_of(score(page, ("designation\n" + f"{row}\n" * 100).encode()))
    assert len(got) == 101
    assert len(sizes) == -(-100 // (1_000_000 // len(row)))
    assert max(sizes) < 1_100_000


def test_an_invalid_row_is_marked_and_costs_no_other(visit: Open) -> None:
    page = visit()

    def refuse(route: Route) -> None:
        titles = [product["designation"] for product in products_of(route)]
        bad = problem(422, "invalid_request", "no such product")
        route.fulfill(**bad) if "refusé" in titles else route.continue_()

    page.route("**/predict/batch", refuse)
    max_characters = fetch_model(page)["limits"]["text_characters"]
    titles = [POOL, "refusé", "de,trop", "x" * (max_characters + 1), "Roman policier", "", "Console"]
    data = "designation\n" + "\n".join(titles) + "\n"
    got = score(page, data.encode()).decode().splitlines()
    assert [line[: len(title)] for line, title in zip(got[1:], titles, strict=True)] == titles
    assert got[6] == ""  # a blank line is no row
    coded = [bool(re.search(r",\d+,.*,0\.\d+,(true|false),\w+,$|,\d+,.*,1\.0+,", line)) for line in got[1:]]
    assert coded == [True, False, False, False, True, False, True]
    assert got[2].endswith("La requête n'est pas valide. no such product (Requête r-42)")
    assert got[3].endswith("2 cellules au lieu de 1")
    expect(page.locator("#file-errors li")).to_have_count(3)
    expect(page.locator("#file-errors li").first).to_contain_text("Ligne 3")


def test_values_added_to_a_row_that_is_too_short_are_in_their_columns(visit: Open) -> None:
    got = rows_of(score(visit(), b"designation,prix,stock\nLampe\nTable,1,2\n"))
    assert got[1] == ["Lampe", *[""] * 7, "1 cellule au lieu de 3"]
    assert got[2][:3] == ["Table", "1", "2"]
    assert got[2][3]


@pytest.mark.parametrize(
    ("data", "line"),
    [
        ("designation\nÉtagère\n".encode("cp1252"), "Ce fichier n'est pas en UTF-8."),
        ("designation\n".encode("utf-16")[:-1], "Ce fichier UTF-16 est abîmé ou incomplet"),
        (b"PK\3\4[Content_Types].xml", "Ce fichier est un classeur Excel ou LibreOffice."),
        (b"\xd0\xcf\x11\xe0", "Ce fichier est un classeur Excel ou LibreOffice."),
        (b"PK\3\4produits.csv", "Ce fichier est une archive"),
        (b"PAR1", "Ce fichier est au format Parquet"),
        (b"titre,prix\na,1\n", "Aucune colonne designation ; le fichier contient : titre, prix"),
        (b'designation\nok\n"never closed\nx\n', "Un guillemet ouvert ligne 3 n'est jamais fermé."),
        (b"designation\n", "Ce fichier ne contient aucune ligne à classer."),
        (b"", "Ce fichier ne contient aucune ligne à classer."),
    ],
)
def test_an_unreadable_file_is_refused_with_the_reason(visit: Open, data: bytes, line: str) -> None:
    page = visit()
    choose(page, data)
    expect(page.locator("#file-error")).to_contain_text(line)
    expect(page.locator("#file-start")).to_be_hidden()


def test_a_busy_service_does_not_end_a_file(visit: Open) -> None:
    page = visit()
    page.route("**/predict/batch", answer_first(1, problem(429, "rate_limited", **{"Retry-After": "1"})))
    choose(page, f"designation\n{POOL}\n".encode())
    page.click("#file-start")
    expect(page.locator("#file-status")).to_have_text("Le service est occupé : nouvel essai dans 1 seconde.")
    expect(page.locator("#file-status")).to_have_text("produits.csv : terminé, 1 ligne.")


def test_what_a_spreadsheet_would_run_is_defused_and_said(visit: Open) -> None:
    page = visit()
    rows = ["=HYPERLINK(1)", "+1+1", "-2+3", "@SUM(1)", "-5", "+3,5", "a=b", "'=1", '"=a ""b"""']
    data = "designation;price\n" + "".join(f"{row};-1\n" for row in rows)
    found = rows_of(score(page, data.encode()), ";")
    assert [row[0] for row in found[1:]] == [
        "'=HYPERLINK(1)", "'+1+1", "'-2+3", "'@SUM(1)", "-5", "+3,5", "a=b", "'=1", "'=a \"b\"",
    ]  # fmt: skip
    assert {row[1] for row in found[1:]} == {"-1"}
    assert all(row[2].isdigit() for row in found[1:])
    expect(page.locator("#file-defused")).to_contain_text("5 cellules qu'un tableur prendrait pour une formule")


def test_a_file_can_be_stopped_downloaded_half_done_and_resumed(visit: Open) -> None:
    page = visit()
    batch_size = fetch_model(page)["limits"]["batch"]
    rows = batch_size + batch_size // 2
    data = "designation\n" + "".join(f"Lampe {row}\n" for row in range(rows))
    parts = 0

    def second_waits(route: Route) -> None:
        nonlocal parts
        parts += 1
        route.fulfill(**problem(503, "overloaded", **{"Retry-After": "60"})) if parts == 2 else route.continue_()

    page.route("**/predict/batch", second_waits)
    choose(page, data.encode())
    page.click("#file-start")
    expect(page.locator("#file-status")).to_contain_text("nouvel essai dans")
    expect(page.locator("#file-cancel")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#file-status")).to_have_text(f"produits.csv : arrêté à {batch_size} sur {rows}.")
    part = rows_of(downloaded(page))
    assert [row[0] for row in part[1:]] == [f"Lampe {row}" for row in range(rows)]
    assert [bool(row[1]) for row in part[1:]] == [True] * batch_size + [False] * (rows - batch_size)
    expect(page.locator("#file-start")).to_have_text("Reprendre")
    page.click("#file-start")
    expect(page.locator("#file-result-heading")).to_be_focused()
    whole = rows_of(downloaded(page))
    assert whole[: batch_size + 1] == part[: batch_size + 1]
    assert all(row[1] for row in whole)


@pytest.mark.parametrize(
    ("text", "separator", "cells"),
    [
        ('a,b\n1,"x, ""y"""\n', ",", [["a", "b"], ["1", 'x, "y"']]),
        ('a;b\r\n"1\r\n2";3', ";", [["a", "b"], ["1\r\n2", "3"]]),
        ("a\r1\r\r2\r", ",", [["a"], ["1"], [""], ["2"]]),
        ('a,b\n12" x,"q"r\n', ",", [["a", "b"], ['12" x', "qr"]]),
        ('"a;b",c\n,\n', ",", [["a;b", "c"], ["", ""]]),
        ('a\t"b;;"\n1\t2', "\t", [["a", "b;;"], ["1", "2"]]),
    ],
)
def test_csv_is_read_as_it_is_written(visit: Open, text: str, separator: str, cells: list[list[str]]) -> None:
    found, records = visit().evaluate(
        """async (text) => {
          const { records, separatorOf } = await import("/static/csv.js");
          return [separatorOf(text), records(text, separatorOf(text))];
        }""",
        text,
    )
    assert found == separator
    assert [record["fields"] for record in records] == cells
    assert "".join(record["raw"] + record["end"] for record in records) == text


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_a_file_in_utf_16_comes_back_in_utf_8(visit: Open, encoding: str) -> None:
    back = score(visit(), "designation\tprix\r\nÉtagère\t1".encode(encoding))
    got = rows_of(back, "\t")
    assert got[0] == ["designation", "prix", *ADDED]
    assert got[1][:2] == ["Étagère", "1"]
    assert int(got[1][2]) > 0


def test_added_columns_that_a_file_has_already_get_other_names(visit: Open) -> None:
    got = rows_of(score(visit(), b"designation,prdtypecode,label\nLampe,10,x\n"))
    assert got[0] == ["designation", "prdtypecode", "label", "predicted_prdtypecode", "predicted_label", *ADDED[2:]]
    assert got[1][:3] == ["Lampe", "10", "x"]


# everybody, everywhere


def test_the_keyboard_alone_reaches_a_result(visit: Open) -> None:
    page = visit()
    reached = []
    for _ in range(12):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id"))
        assert page.evaluate(
            """() => [document.activeElement, document.activeElement.nextElementSibling]
                 .some((one) => one && getComputedStyle(one).outlineStyle !== "none")"""
        )
        if reached[-1] == "title":
            page.keyboard.type(POOL)
        if reached[-1] == "classify":
            break
    assert reached == ["language", "tab-product", "title", "description", "picture", "classify"]
    page.keyboard.press("Enter")
    expect(page.locator("#answer-heading")).to_be_focused()


def test_the_tabs_are_moved_by_arrows(visit: Open) -> None:
    page = visit()
    page.locator("#tab-product").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#tab-file")).to_be_focused()
    expect(page.locator("#csv")).to_be_visible()
    expect(page.locator("#product")).to_be_hidden()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#product")).to_be_visible()


@pytest.mark.parametrize("locale", ["fr-FR", "en-GB"])
def test_a_screen_of_320_pixels_is_wide_enough(visit: Open, picture: Path, locale: str) -> None:
    page = visit(locale, 320, 600)
    wide = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
    page.set_input_files("#picture", picture)
    classify(page, "Piscine " + "x" * 120, POOL_TEXT)
    assert not page.evaluate(wide)
    choose(page, b"designation\n" + b"Lampe" * 40 + b"\n", f"{'produit' * 12}.csv")
    page.click("#file-start")
    expect(page.locator("#file-result-heading")).to_be_focused()
    assert not page.evaluate(wide)


def test_every_control_has_a_name_and_headings_are_nested(visit: Open, picture: Path) -> None:
    page = visit()
    page.set_input_files("#picture", picture)
    classify(page, POOL, POOL_TEXT)
    assert page.evaluate("document.documentElement.lang") == "fr"
    assert page.locator("h1").count() == 1
    nameless = page.evaluate(
        """() => [...document.querySelectorAll("input, textarea, button, a, img, progress, [role]")].filter((one) =>
          !(one.labels?.length && one.labels[0].textContent.trim()) && !one.textContent.trim() && !one.alt &&
          !one.getAttribute("aria-label") && !["alert", "status"].includes(one.role)
          && !one.closest("[hidden]")).map((one) => one.outerHTML)"""
    )
    assert nameless == []
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map((one) => one.id)")
    assert len(ids) == len(set(ids))
    seen = "[...document.querySelectorAll('h1,h2,h3,h4')].filter((one) => one.checkVisibility())"
    levels = page.evaluate(f"{seen}.map((one) => Number(one.tagName[1]))")
    assert all(after - before <= 1 for before, after in zip(levels, levels[1:], strict=False))
    assert page.evaluate("document.querySelectorAll('[style]:not(.bar), [onclick]').length") == 0


CONTRAST = """() => {
  const context = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    context.clearRect(0, 0, 1, 1);
    context.fillStyle = colour;
    context.fillRect(0, 0, 1, 1);
    return [...context.getImageData(0, 0, 1, 1).data];
  };
  const light = (colour) => rgba(colour).slice(0, 3).map((c) => c / 255)
    .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, at) => sum + c * [0.2126, 0.7152, 0.0722][at], 0);
  const behind = (one) => {
    for (; one; one = one.parentElement) {
      const colour = getComputedStyle(one).backgroundColor;
      if (rgba(colour)[3] === 255) return colour;
    }
    return "white";
  };
  return [...document.querySelectorAll("body *")]
    .filter((one) => one.checkVisibility() && [...one.childNodes].some((n) => n.nodeType === 3 && n.data.trim()))
    .map((one) => {
      const [a, b] = [light(getComputedStyle(one).color), light(behind(one))].sort((x, y) => y - x);
      return [(a + 0.05) / (b + 0.05), one.outerHTML.slice(0, 80)];
    })
    .filter(([contrast]) => contrast < 4.5);
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_has_a_contrast_of_4_5_to_1(visit: Open, picture: Path, scheme: str) -> None:
    page = visit(color_scheme=scheme, reduced_motion="reduce")
    page.set_input_files("#picture", picture)
    page.click("#classify")
    expect(page.locator("#answer-heading")).to_be_focused()
    assert page.evaluate(CONTRAST) == []
    page.click("button[type=reset]")
    page.click("#classify")
    expect(page.locator("#product-error")).not_to_be_empty()
    assert page.evaluate(CONTRAST) == []
    score(page, b"designation\nLampe\na,b\n")
    assert page.evaluate(CONTRAST) == []


def test_screenshots_are_written(visit: Open, picture: Path, sample: Path, tmp_path: Path) -> None:
    folder = Path(os.environ.get("SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)

    def take_screenshot(page: Page, name: str) -> None:
        page.evaluate("document.activeElement.blur()")
        page.screenshot(path=folder / f"{name}.png", full_page=True)
        assert (folder / f"{name}.png").stat().st_size > 10_000

    variants: dict[str, dict[str, Any]] = {
        "desktop-fr": {},
        "phone-en": {"locale": "en-GB", "width": 390, "height": 844},
        "dark-fr": {"color_scheme": "dark"},
    }
    for name, options in variants.items():
        page = visit(**options)
        page.set_input_files("#picture", picture)
        classify(page, POOL, POOL_TEXT)
        take_screenshot(page, name)
    page = visit()
    score(page, (sample / "X_test.csv").read_bytes())
    take_screenshot(page, "file-fr")
