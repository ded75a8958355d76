"""The review desk's page in a real Chromium, on a real API: deciding by keyboard and thumb, losing no decision."""

import itertools
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pandas as pd
import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Route, expect

from rakuten.data.images import ImageFiles
from rakuten.data.schema import image_name
from rakuten.data.taxonomy import current_taxonomy
from rakuten.models.classifier import CHOICE_COLUMNS
from rakuten.models.score_file import score_file
from rakuten.review import sources
from rakuten.review.database import open_database
from rakuten.review.desk import ReviewDesk
from rakuten.serving.app import PAGE
from tests.support.api import Api
from tests.support.chromium import TIMEOUT_MS

Open = Callable[..., Page]
Add = Callable[..., list[str]]
Decisions = Callable[[str], list[tuple[str, int | None, str]]]

POOL, GARDEN, BOOKS = 2583, 2582, 10  # the likeliest codes of every product here, as a rule no more
CHOICES = ((POOL, 0.5), (GARDEN, 0.3), (BOOKS, 0.004), (1160, 0.003), (1140, 0.002))
HTML = "<p>Très <b>facile</b> &amp; id&eacute;al</p>&lt;i&gt; 1 < 2<img src=x onerror=alert(1)>"
HTML_SHOWN = "<p>Très <b>facile</b> & idéal</p><i> 1 < 2<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of a database for the review desk."""
    return f"sqlite:///{tmp_path_factory.mktemp('review_page') / 'review.db'}"


@pytest.fixture(scope="module")
def desk(database: str) -> ReviewDesk:
    return ReviewDesk(open_database(database), agreement=1)


@pytest.fixture(scope="module")
def server(trained: Path, database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an API with this review desk."""
    api = Api(trained, tmp_path_factory.mktemp("api") / "log", REVIEW_DATABASE_URL=database).wait()
    yield api.url
    api.stop()


@pytest.fixture(scope="module")
def add(desk: ReviewDesk, trained: Path) -> Add:
    """Put products into the queue: `add("word", 3)`; returns their titles, which start with the word."""
    pictures = ImageFiles(trained / "data" / "raw" / "images")
    products = pd.read_csv(trained / "data" / "raw" / "X_train.csv", index_col=0)[["productid", "imageid"]]
    named = ((row, image_name(str(row.imageid), str(row.productid))) for row in products.itertuples(index=False))
    ids = (row for row, name in named if name in pictures)

    def make(word: str, number: int = 3, description: str = "Avec pompe", codes: int = 3) -> list[str]:
        titles = [f"{word} produit {at}" for at in range(1, number + 1)]
        table = pd.DataFrame(itertools.islice(ids, number)).assign(
            designation=titles, description=description, needs_review=True, model_version="m"
        )
        for names, choice in zip(CHOICE_COLUMNS[:codes], CHOICES, strict=False):
            table[list(names)] = choice
        added = desk.add(sources.from_scored(table, pictures, audit_share=0, seed=1, taxonomy=current_taxonomy()))
        assert added.new == number
        return titles

    return make


@pytest.fixture
def decisions(desk: ReviewDesk) -> Decisions:
    """Answer, code and note of each decision of a test's person, in their order: `decisions("word")`."""

    def read(word: str) -> list[tuple[str, int | None, str]]:
        made = [decision for _, decision in desk.all_decisions() if decision.person == f"{word} tester"]
        return [(each.answer, each.prdtypecode, each.note) for each in sorted(made, key=lambda each: each.id)]

    return read


@pytest.fixture
def visit(browser: Browser, server: str) -> Iterator[Open]:
    """Open the desk for the products of one test: `visit("word")`; no other host is called, no error is logged."""
    hosts: set[str] = set()
    errors: list[str] = []
    contexts: list[BrowserContext] = []

    def on_console(message: ConsoleMessage) -> None:
        # The browser logs each response with an error status; that is no error of the page.
        if message.type in ("error", "warning") and not message.text.startswith("Failed to load resource"):
            errors.append(message.text)

    def make(
        word: str,
        person: str | None = "",
        ready: bool = True,
        context: BrowserContext | None = None,
        route: Callable[[Page], None] = lambda _: None,
        **more: Any,
    ) -> Page:
        if context is None:
            usual = {"locale": "fr-FR", "viewport": {"width": 1280, "height": 900}}
            context = browser.new_context(**(usual | more))
            contexts.append(context)
            context.set_default_timeout(TIMEOUT_MS)
            context.on("request", lambda request: hosts.add(urlsplit(request.url).netloc))
            if person is not None:
                name = json.dumps(json.dumps(person or f"{word} tester"))
                context.add_init_script(f"localStorage.getItem('reviewer') ?? localStorage.setItem('reviewer', {name})")
        page = context.new_page()
        page.on("console", on_console)
        page.on("pageerror", lambda error: errors.append(str(error)))
        route(page)
        page.goto(f"{server}/review?search={word}")
        if ready:
            page.locator("#product").wait_for()
        return page

    yield make
    for context in contexts:
        context.close()
    assert hosts <= {urlsplit(server).netloc, ""}  # "" is blob: and data:
    assert errors == []


def shows(page: Page, title: str) -> None:
    expect(page.locator("#title:visible")).to_have_text(title)


def all_sent(page: Page) -> None:
    """Wait until the service has every decision."""
    until(page, "!Object.keys(localStorage).some((name) => name.startsWith('review-decision:'))")


def until(page: Page, expression: str) -> None:
    """Wait for something in the page. Page.wait_for_function would be stopped by the content security policy."""
    for _ in range(TIMEOUT_MS // 50):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(50)
    raise AssertionError(expression)


def problem(status: int, code: str, detail: str = "") -> dict[str, Any]:
    """An answer for `route.fulfill`."""
    body = {"status": status, "code": code, "detail": detail, "title": code, "type": "x", "request_id": "r-42"}
    return {"status": status, "content_type": "application/problem+json", "body": json.dumps(body)}


# deciding


def test_the_name_is_asked_once_and_the_keyboard_alone_decides(visit: Open, add: Add, decisions: Decisions) -> None:
    titles = add("clavier", 6)
    page = visit("clavier", person=None, ready=False)
    expect(page.locator("#person-name")).to_be_focused()
    page.keyboard.type("clavier tester")
    page.keyboard.press("Enter")
    shows(page, titles[0])
    assert page.locator(".choice:visible .code").all_inner_texts() == [str(POOL), str(GARDEN), str(BOOKS)]
    expect(page.locator(".choice").first).to_have_text(re.compile(r"2583\s*piscine et spa\s*50\s%"))
    expect(page.locator(".choice").nth(2)).to_contain_text("< 1")
    page.keyboard.press("2")
    shows(page, titles[1])
    expect(page.locator("#live")).to_contain_text("Décidé : 2582 mobilier de jardin. Produit : clavier produit 2")
    page.keyboard.press("5")  # there are three codes
    page.keyboard.press("s")
    shows(page, titles[2])
    page.keyboard.press("n")
    expect(page.locator("#note")).to_be_focused()
    page.keyboard.type("une s12")  # no shortcuts in a field
    page.keyboard.press("Enter")
    shows(page, titles[3])
    page.keyboard.press("c")
    page.keyboard.type("12")
    expect(page.locator("[role=option]").first).to_have_text("1280 jouets pour enfants")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    shows(page, titles[4])
    expect(page.locator("#title")).to_be_focused()
    page.keyboard.press("/")
    page.keyboard.type("9876")
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    expect(page.locator("#note-error")).to_have_text("Donnez un nom au code 9876.")
    page.keyboard.type("montgolfières")
    page.keyboard.press("Enter")
    shows(page, titles[5])
    expect(page.locator("#last")).to_have_text("Décidé : 9876 montgolfières")
    all_sent(page)
    assert decisions("clavier") == [
        ("code", GARDEN, ""),
        ("skip", None, ""),
        ("none", None, "une s12"),
        ("code", 1281, ""),
        ("code", 9876, "montgolfières"),
    ]
    expect(page.locator("#count")).to_contain_text("4 par vous aujourd'hui")
    page.reload()
    expect(page.locator("#product")).to_be_visible()
    expect(page.locator("#person")).to_have_text("clavier tester")
    expect(page.locator("#person-form")).to_be_hidden()


def test_a_product_of_a_scored_file_has_five_codes_on_keys(
    visit: Open, desk: ReviewDesk, decisions: Decisions, trained: Path, tmp_path: Path
) -> None:
    titles = [f"cinq {letter * 4}" for letter in "vwxyz"]  # the model does not know what they are
    (tmp_path / "in.csv").write_text("\n".join(["designation", *titles]) + "\n", encoding="utf-8")
    score_file(tmp_path / "in.csv", tmp_path / "scored.csv", None, trained / "models", tmp_path / "cache")
    scored = pd.read_csv(tmp_path / "scored.csv", index_col="designation")
    codes = scored[[code for code, _ in CHOICE_COLUMNS]]
    assert scored["needs_review"].all()
    page = visit("cinq", ready=False)
    page.click("#tab-tools")
    page.set_input_files("#upload", tmp_path / "scored.csv")
    expect(page.locator("#tools-status")).to_have_text(re.compile(r"produits nouveaux\s: 5,"))
    page.click("#tab-decide")
    decided = []
    for key in range(1, 6):
        title = page.locator("#title:visible").inner_text()
        likeliest = codes.loc[title].tolist()
        assert page.locator(".choice:visible kbd").all_inner_texts() == ["1", "2", "3", "4", "5"]
        assert page.locator(".choice:visible .code").all_inner_texts() == [str(code) for code in likeliest]
        page.keyboard.press(str(key))
        decided.append(("code", likeliest[key - 1], ""))
        if key < 5:
            expect(page.locator("#title:visible")).not_to_have_text(title)
    all_sent(page)
    assert decisions("cinq") == decided


def test_the_next_product_and_its_picture_are_there_before_the_decision(visit: Open, add: Add) -> None:
    titles = add("vite", 5)
    page = visit("vite")
    # The product that is shown, and three behind it.
    until(page, "performance.getEntriesByType('resource').filter(({ name }) => name.endsWith('/picture')).length === 4")
    until(page, "document.querySelector('#picture img')?.naturalWidth > 0")
    page.wait_for_timeout(200)  # until the last one is decoded
    seen = page.evaluate(
        """() => [1, 2, 3].map(() => {
          const before = document.querySelector("#picture img").src;
          document.dispatchEvent(new KeyboardEvent("keydown", { key: "1", code: "Digit1", bubbles: true }));
          const image = document.querySelector("#picture img");
          return [document.getElementById("title").textContent, image?.src !== before && image?.naturalWidth > 0];
        })"""  # all in one task: no answer of the service can come in between
    )
    assert seen == [[title, True] for title in titles[1:4]]


def test_a_decision_is_taken_back_whether_it_was_sent_or_not(visit: Open, add: Add, decisions: Decisions) -> None:
    titles = add("retour", 3)
    page = visit("retour")
    page.keyboard.press("1")
    shows(page, titles[1])
    all_sent(page)
    page.keyboard.press("u")
    shows(page, titles[0])
    expect(page.locator("#last")).to_have_text("Décision annulée")
    page.context.set_offline(True)
    page.keyboard.press("2")
    shows(page, titles[1])
    page.click("#undo")
    shows(page, titles[0])
    page.context.set_offline(False)
    page.keyboard.press("3")
    shows(page, titles[1])
    all_sent(page)
    assert [answer for answer, _, _ in decisions("retour")] == ["code", "undo", "code"]
    assert decisions("retour")[-1][1] == BOOKS
    page.keyboard.press("u")
    shows(page, titles[0])
    page.keyboard.press("u")
    expect(page.locator("#last")).to_have_text("Il n'y a rien à annuler.")


def test_no_decision_is_lost_without_a_connection_or_with_a_closed_tab(
    visit: Open, add: Add, decisions: Decisions
) -> None:
    titles = add("perdu", 5)
    page = visit("perdu")
    page.wait_for_load_state("networkidle")
    page.context.set_offline(True)
    page.keyboard.press("1")
    shows(page, titles[1])
    page.keyboard.press("2")
    shows(page, titles[2])
    expect(page.locator("#connection")).to_have_text(
        "Hors ligne : 2 décisions gardées dans ce navigateur, envoyées dès que le service répond. "
        "Vous pouvez continuer."
    )
    assert page.locator("#picture img").evaluate("(image) => image.naturalWidth") > 0
    page.close()
    assert decisions("perdu") == []
    page.context.set_offline(False)
    again = visit("perdu", context=page.context)
    all_sent(again)
    shows(again, titles[2])
    expect(again.locator("#connection")).to_be_empty()
    assert [code for _, code, _ in decisions("perdu")] == [POOL, GARDEN]


def test_a_decision_that_the_service_never_takes_is_reported_and_holds_nothing_up(
    visit: Open, add: Add, decisions: Decisions
) -> None:
    titles = add("refus", 3)
    page = visit("refus")
    numbers = itertools.count()

    def refuse_first(route: Route) -> None:
        route.fulfill(**problem(404, "not_found")) if next(numbers) == 0 else route.continue_()

    page.route("**/review/decisions", refuse_first)
    page.keyboard.press("1")
    expect(page.locator("#decide-error")).to_have_text(
        f"«\u00a0{titles[0]}\u00a0» n'est plus dans la file\u00a0: la décision est sans objet. "
        "Continuez avec le produit suivant."
    )
    page.keyboard.press("1")
    shows(page, titles[2])
    all_sent(page)
    assert len(decisions("refus")) == 1


def test_keys_are_found_by_their_place_and_can_be_switched_off(visit: Open, add: Add) -> None:
    titles = add("azerty", 3)
    page = visit("azerty")
    page.evaluate("document.dispatchEvent(new KeyboardEvent('keydown', { key: '&', code: 'Digit1' }))")
    shows(page, titles[1])
    page.keyboard.press("?")
    expect(page.locator("#keys")).to_be_visible()
    page.keyboard.press("1")  # not while the list is open
    page.uncheck("#keys-single")
    page.keyboard.press("Escape")
    expect(page.locator("#keys")).to_be_hidden()
    page.keyboard.press("1")
    page.keyboard.press("s")
    shows(page, titles[1])
    page.reload()
    shows(page, titles[1])
    page.keyboard.press("1")
    shows(page, titles[1])


# what is shown


def test_html_is_shown_as_text(visit: Open, add: Add) -> None:
    add("html", 2, HTML)
    page = visit("html")
    expect(page.locator("#description")).to_have_text(HTML_SHOWN)
    assert page.locator("#description :not(.tag)").count() == 0


def test_both_languages_have_every_text_and_name_the_codes(visit: Open, add: Add) -> None:
    titles = add("langue", 2)
    page = visit("langue", locale="en-GB")
    expect(page.locator("h1")).to_have_text("Review desk")
    expect(page.locator("#none")).to_contain_text("None")
    for typed in ("jouets", "JOUETS", "1280"):
        page.fill("#search", typed)
        expect(page.locator("[role=option]").first).to_contain_text("1280")
    page.keyboard.press("Escape")
    page.click("#language")
    expect(page).to_have_title("Vérification des produits")
    expect(page.locator("#none")).to_contain_text("Aucun")
    expect(page.locator(".choice").first).to_contain_text("piscine et spa")
    shows(page, titles[0])
    texts = page.evaluate("import('/static/review/texts.js').then((module) => module.REVIEW_TEXTS)")
    common = set(re.findall(r'^  "?([\w-]+)"?:', (PAGE / "texts.js").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(texts) & common <= {
        "page_title",
        "page_api",
        "pages",
        "views_of_page",
        "description",
    }  # the others keep their meaning
    for french, english in texts.values():
        assert french
        assert english
        names = [sorted(set(re.findall(r"\{\w+\}", text)) - {"{s}"}) for text in (french, english)]
        assert names[0] == names[1]


def test_filters_choose_products_and_stay_in_the_address(visit: Open, add: Add) -> None:
    titles = add("filtre", 4)
    page = visit("filtre")
    shows(page, titles[0])
    page.click("#filters summary")
    expect(page.locator("#filters summary")).to_have_text("Filtrer et trier (1)")
    page.fill("#filter-search", "FILTRE produit 3")
    shows(page, titles[2])
    page.select_option("#filter-code", "1280")
    expect(page.locator("#message-title")).to_have_text("Rien de tel")
    assert page.url.endswith("/review?search=FILTRE+produit+3&code=1280")
    page.select_option("#filter-code", str(GARDEN + 1))
    shows(page, titles[2])
    page.keyboard.press("Tab")
    page.locator("#title").focus()
    page.keyboard.press("1")
    expect(page.locator("#message-text")).to_have_text("Aucun produit en attente ne correspond à ces filtres.")
    expect(page.locator("#message-title")).to_be_focused()


def test_progress_and_disagreements_are_shown(visit: Open, add: Add) -> None:
    titles = add("accord", 2)
    page = visit("accord")
    page.keyboard.press("2")
    shows(page, titles[1])
    all_sent(page)
    page.click("#tab-overview")
    expect(page.locator("#overview")).to_contain_text(re.compile("accord tester\\s*1"))
    expect(page.locator("#overview")).to_contain_text("2583 piscine et spa")
    product = page.evaluate(
        "fetch('/review/queue?search=accord', { headers: { 'X-Reviewer': 'accord%20tester' } })"
        ".then((answer) => answer.json()).then(({ products }) => products[0])"
    )
    said = [
        {"person": "Léa", "answer": "code", "prdtypecode": POOL, "note": "", "decided_at": product["added_at"]},
        {"person": "Tom", "answer": "none", "prdtypecode": None, "note": "<i>", "decided_at": product["added_at"]},
    ]
    disputed = {"products": [product | {"decisions": said}], "waiting": 1}
    page.route(re.compile("state=disputed"), lambda route: route.fulfill(json=disputed))
    page.click("#tab-disputes")
    expect(page.locator("#disputes-list li").first).to_contain_text(titles[1])
    page.click("#disputes-list button")
    expect(page.locator("#title")).to_be_focused()
    assert page.locator("#said li").all_inner_texts() == ["Léa 2583 piscine et spa", "Tom aucun des codes (<i>)"]


def test_the_explanation_is_shown_on_demand(visit: Open, add: Add) -> None:
    titles = add("piscine", 2)
    page = visit("piscine")
    page.keyboard.press("e")
    expect(page.locator("#why-heading")).to_be_focused()
    expect(page.locator("#why-answer .views li").first).to_be_visible()
    expect(page.locator("#why-button")).to_have_attribute("aria-expanded", "true")
    page.keyboard.press("1")
    shows(page, titles[1])
    expect(page.locator("#why")).to_be_hidden()


# rights, and a service that is away


def test_a_key_without_the_right_to_review_is_told_what_to_do(visit: Open) -> None:
    def forbid(page: Page) -> None:
        page.route("**/review/me", lambda route: route.fulfill(**problem(403, "forbidden")))

    page = visit("droit", ready=False, route=forbid)
    expect(page.locator("#page-error")).to_contain_text("demandez à un administrateur une clé de rôle « review »")
    expect(page.locator("#key")).to_be_focused()
    expect(page.locator("#desk")).to_be_hidden()


def test_a_key_is_asked_for_and_its_owner_decides(visit: Open, add: Add) -> None:
    titles = add("cle", 1)
    names: list[str | None] = []

    def guard(route: Route) -> None:
        if route.request.headers.get("x-api-key") != "secret":
            route.fulfill(**problem(401, "unauthorized"))
        else:
            me = {"person": "equipe", "role": "review", "keys_required": True, "agreement": 1}
            route.fulfill(json=me)

    page = visit("cle", ready=False, route=lambda page: page.route("**/review/me", guard))
    expect(page.locator("#key")).to_be_focused()
    page.keyboard.type("secret")
    page.keyboard.press("Enter")
    shows(page, titles[0])
    expect(page.locator("#person")).to_be_hidden()
    expect(page.locator("#tab-tools")).to_be_hidden()
    page.route("**/review/decisions", lambda route: names.append(route.request.headers.get("x-api-key")))
    page.keyboard.press("1")
    expect(page.locator("#message")).to_be_visible()
    assert names == ["secret"]


def test_a_service_that_is_away_is_waited_for(visit: Open, add: Add) -> None:
    titles = add("absent", 1)
    asked = re.compile(r"/review/queue\?")
    page = visit("absent", ready=False, route=lambda page: page.route(asked, lambda route: route.abort()))
    expect(page.locator("#connection")).to_contain_text("Hors ligne : le service ne répond pas.")
    expect(page.locator("#message-text")).to_contain_text("la suite s'affichera dès le retour du service")
    page.unroute(asked)
    shows(page, titles[0])
    expect(page.locator("#connection")).to_be_empty()


def test_administrators_fill_the_queue_and_give_decisions_back(visit: Open, add: Add) -> None:
    add("outil", 1)
    page = visit("outil")
    page.click("#tab-tools")
    page.click("#tools-predictions")
    expect(page.locator("#tools-status")).to_have_text(
        re.compile(r"^Prédictions du pipeline – produits nouveaux\s: \d+,")
    )
    with page.expect_download() as waited:
        page.click("#tools-decisions")
    assert Path(waited.value.path()).read_text(encoding="utf-8").splitlines()[0].count("prdtypecode") == 1
    with page.expect_download() as waited:
        page.click("#tools-tasks-xml")
    assert waited.value.suggested_filename == "tasks.xml"
    assert 'alias="2583"' in Path(waited.value.path()).read_text(encoding="utf-8")
    told = {"corrections": 3, "path": "data/corrections/corrections.csv"}
    page.route("**/review/export", lambda route: route.fulfill(json=told))  # this project is for reading
    page.click("#tools-export")
    expect(page.locator("#tools-status")).to_have_text(
        "3 corrections dans data/corrections/corrections.csv. Lancez dvc repro."
    )
    page.set_input_files("#upload", {"name": "a.csv", "mimeType": "text/csv", "buffer": b"x\n1\n"})
    expect(page.locator("#tools-error")).to_contain_text("La requête n'est pas valide.")


# everybody, everywhere


@pytest.mark.parametrize("locale", ["fr-FR", "en-GB"])
def test_a_thumb_decides_on_a_phone(visit: Open, add: Add, locale: str) -> None:
    word = f"pouce{locale[:2]}"
    titles = add(word, 2, "Long " * 200)
    phone = {"width": 360, "height": 640}
    page = visit(word, locale=locale, viewport=phone, has_touch=True, is_mobile=True)
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    picture, panel = (page.locator(name).bounding_box() for name in ("#picture", "#panel"))
    assert picture is not None
    assert panel is not None
    assert picture["y"] + picture["height"] <= panel["y"] + 1
    assert panel["y"] + panel["height"] == pytest.approx(640, abs=1)  # at the bottom edge, whatever the text
    small = page.evaluate(
        """() => [...document.querySelectorAll("button, input, summary, a")]
          .filter((one) => one.checkVisibility() && !one.matches(".skip, .unseen"))
          .map((one) => [one.getBoundingClientRect().height, one.id])
          .filter(([height]) => height < 44)"""
    )
    assert small == []
    page.locator(".choice").first.tap()
    shows(page, titles[1])
    page.locator("#none").tap()
    expect(page.locator("#note")).to_be_focused()
    assert page.evaluate("document.documentElement.scrollWidth") == 360


@pytest.mark.parametrize("codes", [3, 5])
def test_picture_title_and_codes_fit_a_phone(visit: Open, add: Add, codes: int) -> None:
    add(f"haut{codes}", 1, codes=codes)
    page = visit(f"haut{codes}", person="Léa", viewport={"width": 375, "height": 667}, is_mobile=True)
    expect(page.locator(".choice:visible")).to_have_count(codes)
    picture, title, panel = (page.locator(name).bounding_box() for name in ("#picture", "#title", "#panel"))
    assert picture and title and panel
    assert picture["height"] >= 112
    assert picture["y"] + picture["height"] <= title["y"]
    assert title["y"] + title["height"] <= panel["y"]
    assert panel["y"] + panel["height"] <= 667 + 1


@pytest.mark.parametrize("codes", [3, 5])
def test_on_a_laptop_all_that_can_be_decided_is_in_sight(visit: Open, add: Add, codes: int) -> None:
    add(f"portable{codes}", 1, description="Avec pompe et tuyaux. " * 60, codes=codes)
    page = visit(f"portable{codes}", viewport={"width": 1366, "height": 700})
    expect(page.locator(".choice:visible")).to_have_count(codes)
    title, panel, skip = (page.locator(name).bounding_box() for name in ("#title", "#panel", "#skip"))
    assert title and panel and skip
    assert title["y"] + title["height"] <= panel["y"]
    assert skip["y"] + skip["height"] <= 700
    for choice in page.locator(".choice:visible").all():
        expect(choice).to_be_in_viewport(ratio=1)


def test_roles_names_and_the_combobox(visit: Open, add: Add) -> None:
    add("roles", 2)
    page = visit("roles")
    for part in (page.get_by_role("banner"), page.get_by_role("main"), page.get_by_role("navigation")):
        expect(part).to_have_count(1)
    expect(page.get_by_role("article", name="roles produit 1")).to_be_visible()
    expect(page.get_by_role("group", name="Votre décision")).to_be_visible()
    expect(page.get_by_role("img", name="Image du produit")).to_be_visible()
    combobox = page.get_by_role("combobox", name="Autre code")
    expect(combobox).to_have_attribute("aria-expanded", "false")
    options = page.locator("#search-list > *")
    combobox.fill("jeu")
    expect(combobox).to_have_attribute("aria-expanded", "true")
    expect(options.and_(page.get_by_role("option", selected=True))).to_have_id("search-list-0")
    expect(combobox).to_have_attribute("aria-activedescendant", "search-list-0")
    page.keyboard.press("ArrowUp")
    last = options.count() - 1
    expect(combobox).to_have_attribute("aria-activedescendant", f"search-list-{last}")
    combobox.fill("zzz")
    expect(options).to_have_text("Aucun code ne correspond.")
    page.keyboard.press("Enter")  # decides nothing
    page.keyboard.press("Escape")
    expect(combobox).to_have_value("")
    page.keyboard.press("Escape")
    expect(page.locator("#title")).to_be_focused()
    shows(page, "roles produit 1")
    nameless = page.evaluate(
        """() => [...document.querySelectorAll("input, select, button, a, img, summary, [role]")].filter((one) =>
          !(one.labels?.length && one.labels[0].textContent.trim()) && !one.textContent.trim() && !one.alt &&
          !one.getAttribute("aria-label") && !one.getAttribute("aria-labelledby") &&
          !["alert", "status"].includes(one.role) && !one.closest("[hidden]")).map((one) => one.outerHTML)"""
    )
    assert nameless == []
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map((one) => one.id)")
    assert len(ids) == len(set(ids))
    assert page.evaluate("document.querySelectorAll('[style]:not(.bar), [onclick]').length") == 0


def test_the_focus_stays_on_the_button_that_was_pressed(visit: Open, add: Add) -> None:
    titles = add("foyer", 3)
    page = visit("foyer")
    page.locator(".choice").nth(1).focus()
    page.keyboard.press("Enter")
    shows(page, titles[1])
    expect(page.locator(".choice").nth(1)).to_be_focused()
    page.keyboard.press("Enter")
    shows(page, titles[2])
