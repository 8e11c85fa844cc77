"""Playwright's assertions are evidence; requests that a browser makes by itself blame no test."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from tests.scenarios.proving import told
from tests.scenarios.seen import facts_of, seeing

if TYPE_CHECKING:
    from pathlib import Path

    from tests.example import Example

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
BROWSER = next(filter(None, map(shutil.which, PROGRAMS)), None)

PAGE = '''

from fastapi.responses import HTMLResponse


@app.get("/page")
async def page():
    return HTMLResponse("""<title>Dancers</title><ul id="all"></ul><script>
fetch('/dancers').then(answer => answer.json()).then(names => {
    document.getElementById('all').innerHTML = names.map(name => `<li>${name}</li>`).join('')
})
</script>""")
'''

WITH_A_BROWSER = """
from playwright.sync_api import expect, sync_playwright
from playwright.async_api import async_playwright
from playwright.async_api import expect as aexpect
from app import Dancer

PROGRAM = dict(executable_path=BROWSER, args=["--no-sandbox"])


@pytest.fixture
def storm(db_session):
    db_session.add(Dancer(name="Storm"))
    db_session.commit()


@pytest.fixture
def page(live_server):
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(**PROGRAM)
        yield browser.new_page(base_url=live_server.url)
        browser.close()


@proves
def test_expects(storm, page):
    page.goto("/page")
    expect(page.get_by_role("listitem").last).to_have_text("Storm")


@proves
def test_expects_nothing(storm, page):
    page.goto("/page")
    page.get_by_text("Storm").wait_for()


@pytest.fixture
async def kept(db_session):
    db_session.add(Dancer(name="Storm"))
    await db_session.commit()


@proves
async def test_expects_async(kept, live_server):
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(**PROGRAM)
        page = await browser.new_page(base_url=live_server.url)
        await page.goto("/page")
        await aexpect(page.get_by_role("listitem").last).to_have_text("Storm")
        await browser.close()
"""


def with_playwright(folder: Path, tests: str) -> Example:
    """A project with these tests of Playwright's."""
    pytest.importorskip("playwright", reason="playwright is not installed")
    pytest.importorskip("uvicorn", reason="uvicorn is not installed")
    example = seeing(folder, tests.replace("BROWSER", repr(BROWSER)))
    return example.with_files(app=f"{example.files['app.py']}{PAGE}")


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason=f"no browser: none of {', '.join(PROGRAMS)}")
def test_what_playwright_expects_of_a_page_is_evidence(tmp_path: Path) -> None:
    """P9: by both of its APIs. A browser's GET /favicon.ico is not the last request."""
    run = told(with_playwright(tmp_path, WITH_A_BROWSER))
    run.run.expect(passed=3)
    expected = {"expects": "PROVEN", "expects_async": "PROVEN", "expects_nothing": "HOLLOW"}
    assert run.statuses == expected, [run.reason(name) for name in expected]
    assert run.reason("expects_nothing") == "no assertion after GET /dancers"
    [asserted] = facts_of(run, "expects_async")["asserted"]
    assert "to_have_text" in asserted["text"]
    paths = [request["path"] for request in facts_of(run, "expects")["requests"]]
    assert paths == ["/page", "/dancers"]


WITHOUT_A_BROWSER = """
import asyncio

from playwright.async_api import async_playwright
from playwright.async_api import expect as aexpect
from app import Dancer


@pytest.fixture
async def storm(db_session):
    db_session.add(Dancer(name="Storm"))
    await db_session.commit()


@pytest.fixture
async def asks(live_server):
    async with async_playwright() as playwright:
        yield await playwright.request.new_context(base_url=live_server.url)


@proves
async def test_is_ok(storm, asks):
    answer = await asks.get("/dancers")
    await aexpect(answer).to_be_ok()


@proves
async def test_is_ok_at_once(storm, asks):
    answer = await asks.get("/dancers")
    await asyncio.gather(aexpect(answer).to_be_ok(), aexpect(answer, "again").to_be_ok())


@proves
async def test_is_refused(storm, asks):
    answer = await asks.get("/dancers")
    try:
        await aexpect(answer).not_to_be_ok()
    except AssertionError:
        pass


@proves
async def test_is_never_awaited(storm, asks):
    answer = await asks.get("/dancers")
    aexpect(answer).to_be_ok().close()


@proves
async def test_imports_late(storm, client):
    from playwright.sync_api import expect
    await client.get("/dancers")
    expect
"""


@pytest.mark.slow
def test_only_what_has_passed_counts(tmp_path: Path) -> None:
    """P9: not an expectation that failed, nor one that was never awaited."""
    run = told(with_playwright(tmp_path, WITHOUT_A_BROWSER))
    run.run.expect(passed=5)
    assert run.statuses == {
        "is_ok": "PROVEN",
        "is_ok_at_once": "PROVEN",
        "is_refused": "HOLLOW",
        "is_never_awaited": "HOLLOW",
        "imports_late": "UNKNOWN",
    }
    assert "playwright's assertions are not recorded" in run.reason("imports_late")
    texts = [one["text"] for one in facts_of(run, "is_ok_at_once")["asserted"]]
    assert len(texts) == 1, "both stand in one line"


BY_ITSELF = """
from app import Dancer, app

IMAGE = {"Sec-Fetch-Dest": "image"}
SEEN = []


@app.get("/logo.png")
async def logo():
    SEEN.append("logo")
    return ""


@app.get("/favicon.ico", status_code=404)
async def icon():
    return ""


@pytest.fixture
async def storm(db_session):
    db_session.add(Dancer(name="Storm"))


@proves
async def test_asks_for_an_icon_at_last(storm, client):
    assert "Storm" in (await client.get("/dancers")).json()
    await client.get("/favicon.ico", headers=IMAGE)


@proves
async def test_asks_for_an_image_at_last(storm, client):
    assert "Storm" in (await client.get("/dancers")).json()
    await client.get("/logo.png", headers=IMAGE)
    SEEN.clear()


@proves
async def test_fetches_ahead_at_last(storm, client):
    assert "Storm" in (await client.get("/dancers")).json()
    await client.get("/dancers", headers={"Sec-Purpose": "prefetch;prerender"})


@proves
async def test_asks_for_a_page_at_last(storm, client):
    assert "Storm" in (await client.get("/dancers")).json()
    await client.get("/dancers", headers={"Sec-Fetch-Dest": "document"})


@proves
async def test_fetches_at_last(storm, client):
    assert "Storm" in (await client.get("/dancers")).json()
    await client.get("/dancers", headers={"Sec-Fetch-Dest": "empty"})


@proves
async def test_asks_for_an_icon_alone(storm, client):
    assert (await client.get("/favicon.ico", headers=IMAGE)).status_code == 404


@proves
async def test_is_about_an_icon(storm, client):
    assert (await client.get("/favicon.ico")).status_code == 404
"""


@pytest.mark.slow
def test_what_a_browser_asks_by_itself_blames_nothing(tmp_path: Path) -> None:
    """P9: nor does it count as the test's request. What a page's script fetches is the test's."""
    run = told(seeing(tmp_path, BY_ITSELF))
    run.run.expect(passed=7)
    assert run.statuses == {
        "asks_for_an_icon_at_last": "PROVEN",
        "asks_for_an_image_at_last": "PROVEN",
        "fetches_ahead_at_last": "PROVEN",
        "asks_for_a_page_at_last": "HOLLOW",
        "fetches_at_last": "HOLLOW",
        "asks_for_an_icon_alone": "HOLLOW",
        "is_about_an_icon": "PROVEN",
    }
    assert "no request reached the app" in run.reason("asks_for_an_icon_alone")
