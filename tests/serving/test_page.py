"""The page in a real Chromium, on a real API: one product, a CSV file, errors, languages, keyboard, small screens."""

import base64
import csv
import html
import io
import itertools
import json
import os
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Route, expect

from tests.support.api import Api
from tests.support.chromium import TIMEOUT_MS

Open = Callable[..., Page]

POOL, POOL_TEXT = "Piscine gonflable ronde 366 x 76 cm", "<p>Avec pompe de filtration</p>"
CHOICES = [
    f"{rank}_{name}" for rank in ("second", "third", "fourth", "fifth") for name in ("prdtypecode", "confidence")
]
ADDED = ["prdtypecode", "label", "confidence", *CHOICES, "needs_review", "model_version", "error"]


@pytest.fixture
def visit(browser: Browser, api: Api) -> Iterator[Open]:
    """Open the page: `visit(locale="en-GB", width=390)`; at the end no other host was called and no error logged."""
    hosts: set[str] = set()
    errors: list[str] = []
    contexts = []

    def on_console(message: ConsoleMessage) -> None:
        # The browser logs each response with an error status, and its own words about broken XML have a style, which
        # the policy blocks; those are no errors of the page.
        expected = ("Failed to load resource", "Applying inline style")
        if message.type in ("error", "warning") and not message.text.startswith(expected):
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


def drop(page: Page, *paths: Path, onto: str = "#file-drop") -> None:
    """Drop files and folders of this machine on a part of the page, as a file manager does."""
    page.click("#tab-file")
    page.locator(onto).scroll_into_view_if_needed()
    box = page.locator(onto).bounding_box()
    assert box is not None
    at = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
    session = page.context.new_cdp_session(page)
    data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
    for step in ("dragEnter", "dragOver", "drop"):
        session.send("Input.dispatchDragEvent", {"type": step, **at, "data": data})
    session.detach()


def score(page: Page, data: bytes) -> bytes:
    """Classify a CSV file on the page; return the file with the codes."""
    choose(page, data)
    page.click("#file-start")
    expect(page.locator("#file-result-heading")).to_be_focused()
    return downloaded(page)


def downloaded(page: Page, button: str = "#file-download", kind: str = "csv") -> bytes:
    with page.expect_download() as waited:
        page.click(button)
    assert waited.value.suggested_filename == f"produits_prdtypecode.{kind}"
    return Path(waited.value.path()).read_bytes()


def zipped(files: dict[str, bytes | str], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return data.getvalue()


def workbook(rows: str, strings: str = "", styles: str = "", sheets: str = "", **more: str) -> bytes:
    """A workbook whose first visible sheet has these rows, as XML."""
    main = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
    office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    sheets = sheets or '<sheet name="S" sheetId="1" r:id="rId1"/>'
    return zipped(
        {
            "[Content_Types].xml": "<Types/>",
            "xl/workbook.xml": f'<workbook {main} xmlns:r="{office}"><sheets>{sheets}</sheets></workbook>',
            "xl/_rels/workbook.xml.rels": "<Relationships>"
            '<Relationship Id="rId1" Target="worksheets/sheet1.xml"/>'
            '<Relationship Id="rId2" Target="/xl/worksheets/sheet2.xml"/></Relationships>',
            "xl/worksheets/sheet1.xml": f"<worksheet {main}><sheetData>{rows}</sheetData></worksheet>",
            "xl/sharedStrings.xml": f"<sst {main}>{strings}</sst>",
            "xl/styles.xml": f"<styleSheet {main}>{styles}</styleSheet>",
            **more,
        }
    )


def cells_of(data: bytes) -> list[list[str | float | None]]:
    """The cells of the one sheet of a workbook that the page wrote: texts, numbers, None."""
    archive = zipfile.ZipFile(io.BytesIO(data))
    assert archive.testzip() is None
    rows = []
    for row in re.findall(r"<row [^>]*>(.*?)</row>", archive.read("xl/worksheets/sheet1.xml").decode(), re.DOTALL):
        cells: list[str | float | None] = []
        for letters, kind, value in re.findall(r'<c r="([A-Z]+)\d+"(?: t="(\w+)")?>(.*?)</c>', row, re.DOTALL):
            column = sum((ord(letter) - 64) * 26**place for place, letter in enumerate(reversed(letters))) - 1
            cells += [None] * (column - len(cells))
            text = re.sub("<[^>]*>", "", value)
            cells.append(html.unescape(text) if kind else float(text))
        rows.append(cells)
    return rows


def stub(page: Page, sent: list[dict[str, Any]] | None = None) -> None:
    """Answer /predict/batch at once: titles with "sure" are automatic, others to review; all products are kept."""

    def answer(route: Route) -> None:
        products = products_of(route)
        if sent is not None:
            sent.extend(products)
        predictions = []
        for product in products:
            sure = "sure" in product["designation"]
            code, confidence = (2583, 0.99) if sure else (10, 0.4)
            top = [{"prdtypecode": code, "label": f"label {code}", "confidence": confidence}]
            second = {"prdtypecode": 40, "label": "label 40", "confidence": 0.005}
            picture = "used" if "picture" in product else "none"
            predictions.append(
                top[0] | {"top": [*top, second], "needs_review": not sure, "picture": picture, "prediction_id": "p"}
            )
        route.fulfill(json={"predictions": predictions, "model_version": "m", "run_id": None})

    page.route("**/predict/batch", answer)


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
    shares = [abs(view["contribution"]) for view in answer["views"]]
    expect(page.locator(".views li")).to_have_count(sum(share >= 0.02 * sum(shares) for share in shares))
    expect(page.locator(".decided-by")).to_have_text(re.compile(r"^Décidé (surtout )?par .+\.$"))
    expect(page.get_by_text("Aucune image : réponse fondée sur le texte seul.")).to_be_visible()


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
        "pictures": [
            {"productid": 1, "imageid": 2, "prdtypecode": 7, "label": "<s>", "similarity": -0.1, "has_picture": False},
        ],
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
    assert page.locator("#answer").locator("b, i, s, u").count() == 0


def test_a_chosen_picture_is_shown_used_and_can_be_removed(visit: Open, picture: Path) -> None:
    page = visit()
    page.set_input_files("#picture", picture)
    expect(page.locator("#picture-name")).to_have_text(picture.name)
    expect(page.locator("#preview")).not_to_have_js_property("naturalWidth", 0)
    answer = classify(page)
    expect(page.get_by_text("L'image a été utilisée.")).to_be_visible()
    assert answer["pictures"]
    expect(page.locator(".gallery li")).to_have_count(len(answer["pictures"]))
    expect(page.locator(".gallery li").first).to_contain_text(str(answer["pictures"][0]["productid"]))
    assert all(alike["has_picture"] for alike in answer["pictures"])
    expect(page.locator(".gallery img")).to_have_count(len(answer["pictures"]))
    for image in page.locator(".gallery img").all():
        expect(image).not_to_have_js_property("naturalWidth", 0)
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


def test_a_file_that_is_no_picture_is_refused_at_once_and_the_answer_says_so(visit: Open) -> None:
    page = visit()
    page.set_input_files("#picture", {"name": "a.txt", "mimeType": "text/plain", "buffer": b"text"})
    expect(page.locator("#picture-error")).to_have_text("a.txt n'est pas une image.")
    expect(page.locator("#picture-shown")).to_be_hidden()
    classify(page)
    expect(page.locator("#picture-error")).to_have_text("a.txt n'est pas une image.")
    expect(page.get_by_text("a.txt n'est pas une image. Réponse fondée sur le texte seul.")).to_be_visible()


def test_an_empty_product_is_refused_and_an_example_is_classified_with_its_picture(visit: Open) -> None:
    page = visit()
    page.click("#classify")
    expect(page.locator("#product-error")).to_have_text("Donnez un titre, une description ou une image.")
    assert page.locator("[data-example]").count() == 3
    page.locator("[data-example=book]").press("Enter")
    expect(page.locator("#answer-heading")).to_be_focused()
    expect(page.locator("#picture-name")).to_have_text("book.jpg")
    expect(page.get_by_text("L'image a été utilisée.")).to_be_visible()
    page.click("button[type=reset]")
    expect(page.locator("#answer-heading")).to_have_count(0)
    expect(page.locator("#title")).to_have_value("")


SENTENCES = [  # shares of views, terms for -> French, English
    (
        {"words": 9, "meaning": 1},
        [("piscine", "designation_clean", 3), ("gonflable", "designation_clean", 2), ("le", "designation_clean", 0.1)],
        "Décidé surtout par les mots du titre\u00a0: piscine, gonflable, le.",
        "Decided mostly by the words of the title: piscine, gonflable, le.",
    ),
    (
        {"picture": 5, "words": 4, "meaning": -1},
        [("drone", "designation_clean description_clean", 3)],
        "Décidé par l'image et les mots du titre et de la description\u00a0: drone.",
        "Decided by the picture and the words of the title and of the description: drone.",
    ),
    (
        {"picture": 98, "words": 1},
        [("x", "designation_clean", 1)],
        "Décidé surtout par l'image.",
        "Decided mostly by the picture.",
    ),
    (
        {"words": 0, "meaning": -1},
        [],
        "Rien dans ce produit ne parle nettement pour un code.",
        "Nothing in this product speaks clearly for a code.",
    ),
]  # fmt: skip


def explain(page: Page, views: dict[str, float], terms: list[tuple[str, str, str, float]]) -> dict[str, Any]:
    """What `renderExplanation` shows of an explanation: its sentence, terms and views."""
    spoke_for = [
        {"term": term, "columns": columns, "analyzer": analyzer, "contribution": weight}
        for term, columns, analyzer, weight in terms
    ]
    body = {
        "views": [{"view": view, "contribution": value, "share": 0} for view, value in views.items()],
        "spoke_for": spoke_for,
        "spoke_against": [],
        "pictures": [],
    }
    shown: dict[str, Any] = page.evaluate(
        """async (body) => {
          const { renderExplanation } = await import("/static/answer.js");
          const shown = renderExplanation(body);
          const texts = (selector) => [...shown.querySelectorAll(selector)].map((one) => one.textContent);
          return { sentence: texts(".decided-by")[0], terms: texts(".terms li"), views: texts(".views li"), notes: texts("p.note") };
        }""",  # noqa: E501
        body,
    )
    return shown


def test_an_explanation_says_first_what_decided(visit: Open) -> None:
    page = visit("fr-FR")
    for views, terms, french, _ in SENTENCES:
        given = [(term, columns, "word", float(weight)) for term, columns, weight in terms]
        assert explain(page, views, given)["sentence"] == french
    page.click("#language")
    for views, terms, _, english in SENTENCES:
        given = [(term, columns, "word", float(weight)) for term, columns, weight in terms]
        assert explain(page, views, given)["sentence"] == english


def test_a_term_stands_once_and_those_that_hardly_count_are_left_out(visit: Open) -> None:
    shown = explain(
        visit("en-GB"),
        {"words": 60, "meaning": 39, "picture": -1, "fine-tuned text": 0},
        [
            ("Piscine", "designation_clean", "word", 10),
            ("piscine", "designation_clean description_clean", "word", 5),
            (" pisc", "description_clean", "char_wb", 5),
            ("xyz", "designation_clean", "char_wb", 4),
            ("title_words3", "style", "word", 3),
            ("rare", "designation_clean", "word", 0.5),
        ],
    )
    assert shown["terms"] == ["Piscinetitle and description20%", "parts of words: …xyz…title4%", "title_words33%"]
    assert shown["views"] == ["Words for60%", "Meaning of the text for39%"]
    assert shown["notes"] == ["Hardly any effect: Picture.", "Not used: Text, network trained on products."]


def test_what_the_model_is_unsure_of_is_amber_and_said(visit: Open) -> None:
    page = visit("en-GB")
    colour = "getComputedStyle(document.querySelector('.verdict .bar'), '::before').backgroundColor"
    seen = {}
    for state in (True, False):
        more = (
            {"is_novel": True, "parent": {"key": "garden", "label": "Garden"}, "needs_review": True}
            if state
            else {"is_novel": False, "parent": None, "needs_review": False}
        )

        def change(route: Route) -> None:
            body = route.fetch().json()
            route.fulfill(json=body | {"prediction": body["prediction"] | more})  # noqa: B023

        page.route("**/explain", change)
        classify(page)
        seen[state] = page.evaluate(colour)
        assert page.get_by_text("This product is unlike those that the model was trained on").count() == state
        assert page.get_by_text("Broader category, more certain: Garden.").count() == state
    assert seen == {True: "rgb(208, 138, 46)", False: "rgb(11, 107, 83)"}
    assert page.evaluate("getComputedStyle(document.getElementById('answer-heading')).outlineStyle") == "none"


# languages, the model, the key


def test_names_of_codes_and_the_live_precision_follow_the_language(visit: Open) -> None:
    page = visit("en-GB")
    languages = []

    def add(route: Route) -> None:
        languages.append(route.request.headers["accept-language"])
        body = route.fetch().json()
        for one in body["classes"]:
            one["names"] = {"fr": f"nom {one['prdtypecode']}", "en": f"name {one['prdtypecode']}"}
        live = {"precision": 0.96, "low": 0.93, "high": 0.98, "labels": 300, "promised": 0.95}
        route.fulfill(json=body | {"live_precision": live})

    page.route("**/model", add)
    page.reload()
    expect(page.locator("#model-facts")).to_contain_text("93% to 98%, 300 answers checked; promised: 95%")
    code = classify(page)["prediction"]["prdtypecode"]
    expect(page.locator("#answer-heading")).to_have_text(f"{code} name {code}")
    page.click("#language")
    expect(page.locator("#answer-heading")).to_have_text(f"{code} nom {code}")
    expect(page.locator("#answer-heading span").last).to_have_attribute("lang", "fr")
    assert languages == ["en"]
    expect(page.locator("nav a").first).to_have_text("Vérification")
    assert page.request.get(page.url + "docs").ok


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
        code, label, confidence, *others, review, by, error = row[4:]
        assert len({code, *others[::2]}) == 5
        assert all(int(each) > 0 for each in (code, *others[::2]))
        assert label
        assert 1 >= float(confidence) >= float(others[1]) >= float(others[3]) >= float(others[5]) >= float(others[7])
        assert review in ("true", "false")
        assert (by, error) == (version, "")
    page.click("#tab-product")
    top = classify(page, *got[1][1:3])["prediction"]["top"]
    assert [str(choice["prdtypecode"]) for choice in top] == [got[1][4], *got[1][7:15:2]]
    assert page.locator("#rows img").count() == 0


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
    assert got[1] == ["Lampe", *[""] * (len(got[0]) - 2), "1 cellule au lieu de 3"]
    assert got[2][:3] == ["Table", "1", "2"]
    assert got[2][3]


@pytest.mark.parametrize(
    ("data", "line"),
    [
        ("designation\nÉtagère\n".encode("cp1252"), "Ce fichier n'est pas en UTF-8."),
        ("designation\n".encode("utf-16")[:-1], "Ce fichier UTF-16 est abîmé ou incomplet"),
        (b"\xd0\xcf\x11\xe0", "Ce classeur est d'un format ancien ou autre qu'Excel."),
        (b"\x1f\x8b", "Ce fichier est une archive, mais pas un ZIP"),
        (b"PK\3\4produits.csv", "Ce fichier ZIP ou Excel est abîmé"),
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


def test_ten_thousand_rows_are_filtered_sorted_and_turned(visit: Open) -> None:
    page = visit("en-GB")
    stub(page)
    count = 10_000
    titles = [f"Lamp {row:05} {'sure' if row % 4 else 'odd'}" for row in range(count)]
    score(page, ("designation\n" + "".join(f"{title}\n" for title in titles) + "a,b\n").encode())
    place, body = page.locator("#rows-place"), page.locator("#rows-table tbody tr")
    expect(place).to_have_text("Rows 1 to 25 of 10,001")
    expect(page.locator("#rows-state")).to_contain_text("To review (2,500)")
    seconds = page.evaluate(
        """() => {
          const search = document.getElementById("rows-search");
          const start = performance.now();
          for (const text of ["Lamp", "Lamp 0", "lamp 099"]) {
            search.value = text;
            search.dispatchEvent(new Event("input"));
          }
          return (performance.now() - start) / 3000;
        }"""
    )
    assert seconds < 0.5
    found = [title for title in titles if "099" in title]
    expect(place).to_have_text(f"Rows 1 to 25 of {len(found)}")
    page.locator("#rows-state").select_option("review")
    expect(place).to_have_text(f"Rows 1 to 25 of {sum('odd' in title for title in found)}")
    assert body.locator(".title").all_inner_texts() == [title for title in found if "odd" in title][:25]
    page.fill("#rows-search", "")
    page.locator("#rows-next").press("Enter")
    expect(place).to_have_text("Rows 26 to 50 of 2,500")
    page.get_by_role("button", name="Title").press("Enter")
    page.get_by_role("button", name="Title").press("Enter")
    expect(page.locator("th.title")).to_have_attribute("aria-sort", "descending")
    assert body.first.locator(".title").inner_text() == "Lamp 09996 odd"
    page.locator("#rows-state").select_option("errors")
    expect(body.first).to_contain_text("2 cells instead of 1")
    page.locator("#rows-state").select_option("")
    page.locator("#rows-code").select_option("2583")
    expect(place).to_have_text("Rows 1 to 25 of 7,500")
    page.get_by_role("button", name="Confidence").click()
    body.first.locator("button").press("Enter")
    expect(page.locator("#title")).to_have_value("Lamp 00001 sure")
    expect(page.locator("#answer-heading")).to_be_focused()


def test_codes_and_words_are_not_broken_in_a_narrow_table(visit: Open) -> None:
    page = visit("fr-FR", 360)
    score(page, f"designation\n{POOL}\nDécoration murale\n".encode())
    heights = "[...document.querySelectorAll('.rows .code')].map((one) => one.getClientRects().length)"
    assert page.evaluate(heights) == [1, 1]
    narrow = "[...document.querySelectorAll('.rows td.type')].map((one) => one.clientWidth)"
    assert min(page.evaluate(narrow)) > 200
    heads = page.locator(".rows th:visible button")
    boxes = [box for box in (head.bounding_box() for head in heads.all()) if box]
    assert len(boxes) == 4
    rows = [[box for box in boxes if box["y"] == y] for y in {box["y"] for box in boxes}]
    assert all(one["x"] + one["width"] <= other["x"] for row in rows for one, other in itertools.pairwise(row))


DATES = '<numFmts><numFmt numFmtId="164" formatCode="dd/mm/yyyy"/></numFmts><cellXfs><xf numFmtId="0"/><xf numFmtId="164"/></cellXfs>'  # noqa: E501
SHEET = (
    '<row r="1"><c r="A1" t="s"><v>0</v></c><c r="B1" t="inlineStr"><is><t>ref</t></is></c>'
    '<c r="C1" t="str"><v>date</v></c><c r="D1" t="str"><v>note</v></c></row>'
    '<row r="3"><c r="A3" t="s"><v>1</v></c><c r="B3"><v>7.0</v></c><c r="C3" s="1"><v>46354</v></c>'
    '<c r="D3" t="str"><f>A1&amp;"x"</f><v>=1+1</v></c></row>'
    '<row r="4"><c r="A4" t="e"><f>1/0</f><v>#DIV/0!</v></c><c r="B4" t="inlineStr"><is><t>007</t></is></c></row>'
    '<row r="5"><c r="B5"/></row>'
    '<row r="6"><c r="A6" t="s"><v>2</v></c><c r="B6" t="b"><v>1</v></c><c r="C6" s="1"><v>46354.5</v></c></row>'
)
STRINGS = (
    "<si><t>designation</t></si><si><r><t>Piscine </t></r><r><t>sure &amp; _x0041_</t></r><rPh><t>x</t></rPh></si>"
    '<si><t xml:space="preserve">Lampe\n&lt;b&gt;</t></si>'
)


def test_a_workbook_is_read_and_comes_back_as_a_workbook_and_as_csv(visit: Open) -> None:
    page = visit()
    sent: list[dict[str, Any]] = []
    stub(page, sent)
    other = "<worksheet><sheetData><row><c t='str'><v>remarks</v></c></row></sheetData></worksheet>"
    data = workbook(
        SHEET,
        STRINGS,
        DATES,
        '<sheet name="H" sheetId="3" state="hidden" r:id="rId9"/><sheet name="N" sheetId="2" r:id="rId2"/>'
        '<sheet name="S" sheetId="1" r:id="rId1"/>',
        **{"xl/worksheets/sheet2.xml": other},
    )
    choose(page, data, "produits.xlsx")
    page.click("#file-start")
    expect(page.locator("#file-result-heading")).to_be_focused()
    assert [product["designation"] for product in sent] == ["Piscine sure & A", "Lampe\n<b>"]
    expect(page.locator("#file-errors li")).to_have_text("Ligne 4 : formule sans valeur ou en erreur")
    head, first, failed, last = cells_of(downloaded(page, "#file-download-xlsx", "xlsx"))
    assert head == ["designation", "ref", "date", "note", *ADDED]
    assert first[:9] == ["Piscine sure & A", 7, "2026-11-28", "=1+1", 2583, "piscine et spa", 0.99, 40, 0.005]
    assert first[9:16] == [None] * 6 + ["0"]  # needs_review
    assert failed == [None, "007", *[None] * 15, "formule sans valeur ou en erreur"]
    assert last[:5] == ["Lampe\n<b>", "TRUE", "2026-11-28 12:00:00", None, 10]
    back = downloaded(page)
    assert back.startswith(b"\xef\xbb\xbf")
    rows = rows_of(back)
    assert rows[1][:5] == ["Piscine sure & A", "7", "2026-11-28", "'=1+1", "2583"]
    assert len(rows) == 4
    expect(page.locator("#file-defused")).to_contain_text("1 cellule")


def test_a_workbook_that_the_page_wrote_is_read_again(visit: Open) -> None:
    page = visit()
    stub(page)
    long = "x" * 33_000
    titles = ["=1+1", "a_x0041_b", "<&>", "\x0b|", "sure", "3760012345678", long]
    score(page, ("designation\n" + "".join(f"{title}\n" for title in titles)).encode())
    data = downloaded(page, "#file-download-xlsx", "xlsx")
    expect(page.locator("#file-defused")).to_contain_text("1 cellule plus longue")
    assert "3760012345678" in [row[0] for row in cells_of(data)]  # a text, which Excel does not show as 3.76E+12
    sent: list[dict[str, Any]] = []
    stub(page, sent)
    choose(page, data, "produits.xlsx")
    page.click("#file-start")
    expect(page.locator("#file-result-heading")).to_be_focused()
    assert [product["designation"] for product in sent] == [*titles[:-1], long[:32_767]]
    head, *rows = cells_of(downloaded(page, "#file-download-xlsx", "xlsx"))
    assert head == ["designation", *ADDED, *(f"predicted_{name}" for name in ADDED)]


def hostile() -> dict[str, tuple[bytes, str]]:
    """Archives that must not be read, and what is said of each."""
    row = "<row><c t='str'><v>{}</v></c></row>"
    good = workbook(row.format("designation") + row.format("a"))
    directory = good.index(b"PK\1\2")
    flipped = bytearray(zipped({"xl/workbook.xml": "<good/>"}, zipfile.ZIP_STORED))
    flipped[flipped.index(b"good")] ^= 1
    lying = bytearray(zipped({"xl/workbook.xml": bytes(3_000_000)}))  # that say that they are 10 bytes
    size = lying.rindex(b"PK\1\2") + 24
    lying[size : size + 4] = (10).to_bytes(4, "little")
    locked = bytearray(good)
    for match in re.finditer(b"PK\1\2", good):
        locked[match.start() + 8] |= 1
    entity = {"xl/sharedStrings.xml": "<!DOCTYPE x [<!ENTITY a 'aaaa'>]><sst><si><t>&a;</t></si></sst>"}
    links = {"xl/_rels/workbook.xml.rels": "<a/>"}
    damaged, unreadable = "ZIP ou Excel est abîmé", "classeur Excel est illisible"
    return {
        "bomb": (zipped({"xl/workbook.xml": bytes(60_000_000)}), "trop volumineux une fois décompressé"),
        "lying": (bytes(lying), damaged),
        "cut": (good[: directory + 30], damaged),
        "flipped": (bytes(flipped), damaged),
        "locked": (bytes(locked), "protégé par un mot de passe"),
        "entity": (workbook(row.format("designation") + row.format("a"), **entity), unreadable),
        "no XML": (zipped({"xl/workbook.xml": "<a>", **links}), unreadable),
        "no parts": (zipped({"xl/workbook.xml": "<a/>"}), unreadable),
        "wide": (workbook("<row><c r='ZZZ1'><v>1</v></c></row>"), "plus de 1\u202f000 colonnes"),
        "empty": (workbook(""), "Ce fichier ne contient aucune ligne à classer."),
        "no title": (workbook(row.format("titre")), "Aucune colonne designation ; le fichier contient : titre"),
        "ods": (zipped({"mimetype": "application/vnd.oasis", "content.xml": ""}), "d'un format ancien ou autre"),
        "two": (zipped({"a.csv": "x", "b.xlsx": "x"}), "contient 2 fichiers CSV ou Excel"),
        "nothing": (zipped({"readme.md": "x", "__MACOSX/._a.jpg": "x"}), "ni image, ni fichier CSV ou Excel"),
        "zip in zip": (zipped({"a.xlsx": zipped({"b": "c"})}), damaged),
    }


def test_a_hostile_archive_is_refused_with_one_line(visit: Open) -> None:
    page = visit()
    for name, (data, line) in hostile().items():
        choose(page, data, "produits.xlsx")
        expect(page.locator("#file-error"), name).to_contain_text(line)
        expect(page.locator("#file-start")).to_be_hidden()
        choose(page, b"designation\nok\n")  # nothing of it is left
        expect(page.locator("#file-error")).to_be_empty()


def test_pictures_beside_a_file_are_matched_sent_and_shown(visit: Open, sample: Path, tmp_path: Path) -> None:
    page = visit("en-GB")
    sent: list[dict[str, Any]] = []
    stub(page, sent)
    files = sorted((sample / "images" / "image_train").glob("*.jpg"))[:4]
    (tmp_path / "folder" / "deep").mkdir(parents=True)
    name = "image_21_product_11.jpg"
    (tmp_path / "folder" / "deep" / name).write_bytes(files[0].read_bytes())
    (tmp_path / "folder" / "Thumbs.db").write_bytes(b"x")
    most = fetch_model(page)["limits"]["picture_bytes"]
    archive = zipped(
        {
            "photos/Lampe.JPG": files[1].read_bytes(),
            "photos/other.jpg": files[2].read_bytes(),
            "photos/grande.png": bytes(most + 1),
            "__MACOSX/photos/._Lampe.JPG": b"x",
        }
    )
    rows = [
        "designation,imageid,productid,photo",
        "Piscine,21.0,11,",
        "Lampe,1,2,x/lampe.jpg",
        "Grande,,,grande.png",
        "Rien,3,4,",
    ]
    choose(page, "\n".join(rows).encode())
    page.set_input_files("#folder", tmp_path / "folder")
    expect(page.locator("#file-pictures")).to_contain_text("A picture for 1 row of 4, by imageid and productid.")
    page.set_input_files("#file", {"name": "p.zip", "mimeType": "application/zip", "buffer": archive})
    expect(page.locator("#file-pictures")).to_contain_text("A picture for 3 rows of 4, by the column photo.")
    expect(page.locator("#file-pictures")).to_contain_text("1 picture without a row: other.jpg")
    page.click("#file-start")
    expect(page.locator("#file-result-heading")).to_be_focused()
    assert [base64.b64decode(product.get("picture", "")) for product in sent] == [
        files[0].read_bytes(), files[1].read_bytes(), b"", b"",
    ]  # fmt: skip
    assert [row[-1] for row in rows_of(downloaded(page))] == ["picture", "used", "used", "unusable: too large", "none"]
    expect(page.locator(".rows img")).to_have_count(2)  # the large one is none
    for image in page.locator(".rows img").all():
        expect(image).not_to_have_js_property("naturalWidth", 0)
    page.locator(".row-open").nth(1).click()
    expect(page.locator("#picture-name")).to_have_text("Lampe.JPG")
    page.click("#tab-file")
    page.click("#file-pictures-remove")
    expect(page.locator("#file-start")).to_be_visible()
    assert page.locator("#file-result").is_hidden()


@pytest.fixture
def dropped(sample: Path, tmp_path: Path) -> tuple[Path, Path, list[bytes]]:
    """A file of three products, a folder with the pictures of two in a folder of its own, and these pictures."""
    table, folder = tmp_path / "produits.csv", tmp_path / "photos é"
    table.write_text("designation,imageid,productid\nPiscine,21,11\nLampe,22,12\nRien,23,13\n", encoding="utf-8")
    pictures = [file.read_bytes() for file in sorted((sample / "images" / "image_train").glob("*.jpg"))[:2]]
    (folder / "deep" / "empty").mkdir(parents=True)
    (folder / "image_21_product_11.jpg").write_bytes(pictures[0])
    (folder / "deep" / "image_22_product_12.jpg").write_bytes(pictures[1])
    (folder / "deep" / ".DS_Store").write_bytes(b"x")
    (folder / "deep" / "notes.md").write_text("not for the page", encoding="utf-8")
    (folder / "deep" / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    for number in range(150):  # a browser lists a hundred files of a folder at a time
        (folder / "deep" / f"other-{number}.jpg").write_bytes(pictures[0])
    return table, folder, pictures


@pytest.mark.parametrize("onto", ["#file-drop", "#folder-choose"])
@pytest.mark.parametrize("way", ["together", "folder last", "folder first", "in the folder"])
def test_a_folder_is_dropped_with_all_that_is_in_it(
    visit: Open, dropped: tuple[Path, Path, list[bytes]], way: str, onto: str
) -> None:
    table, folder, pictures = dropped
    page = visit("en-GB")
    sent: list[dict[str, Any]] = []
    stub(page, sent)
    if way == "together":
        drop(page, table, folder, onto=onto)
    elif way == "folder last":
        choose(page, table.read_bytes())
        expect(page.locator("#file-start")).to_be_visible()
        drop(page, folder, onto=onto)
    elif way == "folder first":
        drop(page, folder, onto=onto)
        expect(page.locator("#file-status")).to_contain_text("152 pictures")
        choose(page, table.read_bytes())
    else:
        drop(page, table.rename(folder / "deep" / table.name).parents[1], onto=onto)
    expect(page.locator("#file-pictures")).to_contain_text("A picture for 2 rows of 3, by imageid and productid.")
    expect(page.locator("#file-pictures")).to_contain_text("150 pictures without a row: other-0.jpg, other-1.jpg")
    expect(page.locator("#file-error")).to_be_empty()
    page.click("#file-start")
    expect(page.locator("#file-result-heading")).to_be_focused()
    assert [base64.b64decode(product.get("picture", "")) for product in sent] == [*pictures, b""]
    assert [row[-1] for row in rows_of(downloaded(page))] == ["picture", "used", "used", "none"]


def test_a_folder_without_a_picture_or_a_file_of_products_is_refused(visit: Open, tmp_path: Path) -> None:
    page = visit("en-GB")
    for name, content in (("empty", None), ("notes", "notes.md")):
        (tmp_path / name).mkdir()
        if content:
            (tmp_path / name / content).write_bytes(b"x")
        drop(page, tmp_path / name)
        expect(page.locator("#file-error")).to_have_text("There is no CSV file, Excel workbook or picture in it.")
        choose(page, b"designation\nok\n")
        expect(page.locator("#file-error")).to_be_empty()


def test_a_folder_that_cannot_be_listed_is_said_and_costs_no_table(
    visit: Open, dropped: tuple[Path, Path, list[bytes]]
) -> None:
    table, folder, _ = dropped
    page = visit("en-GB")
    choose(page, table.read_bytes())
    page.evaluate(
        """() => {
          const found = DataTransferItem.prototype.webkitGetAsEntry;
          const readEntries = (_, refuse) => refuse(new DOMException("gone", "NotFoundError"));
          DataTransferItem.prototype.webkitGetAsEntry = function () {
            return { name: found.call(this).name, isFile: false, createReader: () => ({ readEntries }) };
          };
        }"""
    )
    drop(page, folder)
    expect(page.locator("#file-error")).to_have_text("NotFoundError: gone")
    expect(page.locator("#file-start")).to_be_visible()


def test_a_zip_may_hold_the_table_and_the_pictures(visit: Open, picture: Path) -> None:
    page = visit()
    table = f"designation;fichier\n{POOL};{picture.stem}\n"
    choose(page, zipped({"a/produits.csv": table, f"a/{picture.name}": picture.read_bytes()}), "tout.zip")
    expect(page.locator("#file-status")).to_have_text("produits.csv : 1 ligne à classer.")
    page.click("#file-start")
    expect(page.locator("#file-result-heading")).to_be_focused()
    assert rows_of(downloaded(page), ";")[1][-1] == "used"


@pytest.mark.parametrize("role", ["administer", "review", None])
def test_what_needs_review_is_sent_to_the_desk_by_who_may(visit: Open, role: str | None) -> None:
    page = visit("en-GB")
    stub(page)
    bodies: list[str] = []

    def take(route: Route) -> None:
        bodies.append((route.request.post_data_buffer or b"").decode())
        route.fulfill(json={"new": 2, "updated": 0, "decided": 1})

    me = {"person": None, "role": role, "keys_required": False, "agreement": 1}
    page.route(
        "**/review/me", lambda route: route.fulfill(json=me) if role else route.fulfill(**problem(404, "not_found"))
    )
    page.route("**/review/products", take)
    page.reload()
    score(page, b"designation,productid,imageid,note\nsure,1,2,x\nodd,3,4,y\nodder,5,6,z\na\n")
    button = page.locator("#send-review")
    if role != "administer":
        expect(button).to_be_hidden()
        return
    page.fill("#rows-search", "odder")
    expect(button).to_have_text("Send 1 product to the review desk")
    page.fill("#rows-search", "")
    button.click()
    expect(page.locator("#review-status")).to_have_text("In the review desk: 2 new, 0 updated, 1 decided already.")
    assert 'name="file"; filename="produits.csv"' in bodies[0]
    content = bodies[0].split("\r\n\r\n", 1)[1].split("\r\n--")[0]
    head, *rows = csv.reader(io.StringIO(content))
    assert head == [
        "designation", "productid", "imageid", "predicted_prdtypecode", "confidence", *CHOICES, "needs_review",
        "model_version",
    ]  # fmt: skip
    assert [row[:4] + row[-2:] for row in rows] == [
        ["sure", "1", "2", "2583", "false", "m"],
        ["odd", "3", "4", "10", "true", "m"],
        ["odder", "5", "6", "10", "true", "m"],
    ]


# everybody, everywhere


def test_the_keyboard_alone_reaches_a_result(visit: Open) -> None:
    page = visit()
    reached = []
    for _ in range(14):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.getAttribute('href')"))
        assert page.evaluate(
            """() => [document.activeElement, document.activeElement.nextElementSibling]
                 .some((one) => one && getComputedStyle(one).outlineStyle !== "none")"""
        )
        if reached[-1] == "title":
            page.keyboard.type(POOL)
        if reached[-1] == "classify":
            break
    assert reached == ["review", "docs", "language", "tab-product", "title", "description", "picture", "classify"]
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
