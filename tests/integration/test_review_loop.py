"""From a product that needs review to a model that has learnt from the decision: in a real browser, by real stages."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.support.api import Api, get, post
from tests.support.chromium import TIMEOUT_MS
from tests.support.project import run_in
from tests.support.servers import wait_for

N_DECIDED = 3


@pytest.fixture
def project(finished: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    shutil.copytree(finished, folder, symlinks=True)
    return folder


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    page = browser.new_page(locale="en-GB")
    page.set_default_timeout(TIMEOUT_MS)
    yield page
    page.close()


def decide(page: Page, url: str) -> dict[str, int]:
    """Fill the queue, decide the first products for the third of their likeliest codes, export; the code by title."""
    page.goto(f"{url}/review")
    page.fill("#person-name", "Ann")
    page.keyboard.press("Enter")
    page.click("#tab-tools")
    page.click("#tools-predictions")
    expect(page.locator("#tools-status")).to_contain_text("products new: 60")
    page.click("#tab-decide")
    page.locator("#product").wait_for()
    given = {}
    for _ in range(N_DECIDED):
        title = page.locator("#title").inner_text()
        given[title] = int(page.locator("#codes li").nth(2).locator(".code").inner_text())
        page.keyboard.press("3")
        expect(page.locator("#title")).not_to_have_text(title)
    # The page sends them while the next product is looked at.
    wait_for(lambda: get(f"{url}/review/counts").json()["person"] == {"Ann": N_DECIDED}, "the decisions", 30)
    page.click("#tab-tools")
    page.click("#tools-export")
    expect(page.locator("#tools-status")).to_contain_text(f"{N_DECIDED}")
    return given


def test_the_model_learns_what_a_person_decided_in_a_browser(project: Path, page: Page, tmp_path: Path) -> None:
    server = Api(project, tmp_path / "api.log").wait()
    try:
        before = {title: confidences(server, title) for title in titles_of(project)}
        given = decide(page, server.url)
    finally:
        server.stop()
    assert len(given) == N_DECIDED
    assert all(max(before[title], key=before[title].__getitem__) != code for title, code in given.items())

    log = run_in(project, "dvc", "repro")
    assert f"INFO ingest: {N_DECIDED} corrections: row added" in log
    train = pd.read_csv(project / "data" / "interim" / "merged_train.csv", keep_default_na=False)
    assert train.tail(N_DECIDED).set_index("designation")["prdtypecode"].to_dict() == given
    productid = str(train["productid"].iloc[-1])
    traced = run_in(project, "rakuten", "trace", "--product", productid)
    assert "Ann" in traced and "row added" in traced

    server = Api(project, tmp_path / "again.log").wait()
    try:
        after = {title: confidences(server, title) for title in given}
    finally:
        server.stop()
    assert all(after[title][code] > before[title][code] for title, code in given.items())
    assert sum(max(after[title], key=after[title].__getitem__) == code for title, code in given.items()) > N_DECIDED / 2


def titles_of(project: Path) -> list[str]:
    table = pd.read_csv(project / "data" / "interim" / "merged_test.csv", keep_default_na=False)
    return [str(title) for title in table["designation"] if title]


def confidences(server: Api, title: str) -> dict[int, float]:
    """The model's confidence in each code for a title."""
    top = post(f"{server.url}/predict", json={"designation": title, "top_k": 100}).json()["top"]
    return {choice["prdtypecode"]: choice["confidence"] for choice in top}
