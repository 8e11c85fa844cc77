"""A real browser on the live server: pytest-playwright's fixtures, and one line."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest

from tests.others.conftest import BROWSER, PROGRAMS, call
from tests.plugin.shop import env_of, shop
from tests.plugin.test_streams import LIVE

if TYPE_CHECKING:
    from pathlib import Path

    from tests.example import Example

pytestmark = [
    pytest.mark.skipif(BROWSER is None, reason=f"no browser: none of {', '.join(PROGRAMS)}"),
    pytest.mark.skipif(
        find_spec("pytest_playwright") is None,
        reason="`make test-full` has it, in an environment of its own",
    ),
]

PAGE = '''

from fastapi.responses import HTMLResponse


@app.get("/shop")
async def shop():
    return HTMLResponse("""<ul id="all"></ul>
<button onclick="fetch('/orders/chair', {method: 'POST'}).then(load)">Buy a chair</button>
<script>
async function load() {
    const found = await (await fetch('/orders')).json()
    document.getElementById('all').innerHTML = found.map(one => `<li>${one}</li>`).join('')
    document.title = found.length
    console.log('there are ' + found.length)
}
load()
const live = new WebSocket(`ws://${location.host}/orders`)
live.onopen = () => live.send('by a socket')
live.onmessage = load
new EventSource('/events/tick')
</script>""")
'''

CONFTEST = f"""
import pytest


@pytest.fixture(scope="session")
def base_url(arena):
    return arena.live_server().url


@pytest.fixture(scope="session")
def browser_type_launch_args(browser_type_launch_args):
    program = {{"executable_path": {BROWSER!r}, "args": ["--no-sandbox"]}}
    return {{**browser_type_launch_args, **program}}


@pytest.fixture
def page(page):
    page.on("console", lambda message: print("console:", message.text))
    return page
"""

TESTS = """
import pytest
from sqlalchemy import select
from app import Order


@pytest.mark.parametrize("turn", range(3))
def test_buys(page, db_session, turn):
    db_session.add(Order(item="vase"))
    db_session.commit()
    page.goto("/shop")
    page.get_by_text("vase").wait_for()
    page.get_by_role("button").click()
    page.get_by_text("chair", exact=True).wait_for()
    page.get_by_text("by a socket").wait_for()
    found = db_session.scalars(select(Order.item).where(Order.item != "tick")).all()
    assert sorted(found) == ["by a socket", "chair", "vase"]


def test_two_at_once(new_context):
    one, other = (new_context().new_page() for _ in range(2))
    one.goto("/shop")
    other.goto("/shop")
    one.get_by_role("button").click()
    one.get_by_text("chair", exact=True).wait_for()
    other.reload()
    other.get_by_text("chair", exact=True).wait_for()


def test_dies(page):
    page.goto("/shop")
    page.get_by_role("button").click()
    page.get_by_text("chair", exact=True).wait_for()
    with pytest.raises(Exception, match="crash"):
        page.goto("chrome://crash")


def test_the_next_one_stands_on_clean_ground(page):
    page.goto("/shop")
    page.get_by_text("by a socket").wait_for()
    assert page.get_by_text("chair", exact=True).count() == 0


def test_fails(page):
    page.goto("/shop")
    page.get_by_role("button").click()
    page.get_by_text("chair", exact=True).wait_for()
    assert page.title() == "nobody"
"""

# Read more slowly than the browser asks for them: it would write for ever.
STREAM = 'yield f"data: {number}\\n\\n"'


@pytest.mark.parametrize("how", ["copy", "undo"])
def test_a_browser_on_the_tests_database_pitfall_126(example: Example, how: str) -> None:
    """P1, P2, P9: what it writes is seen, told, and goes; its sockets and streams end with it."""
    suite = shop(example, test_it=TESTS, conftest=CONFTEST).with_files(app=LIVE + PAGE)
    plugins = ("-p", "pytest_playwright.pytest_playwright")
    run = suite.change("app.py", STREAM, f"{STREAM}; await asyncio.sleep(0.1)").run(
        *plugins, env=env_of(how)
    )
    run.expect(status=1, passed=6, failed=1).never_says("cut off", "left a task")
    run.says("console: there are", "POST /orders/chair 201", "+ orders")


# What Battle-D's own conftest file lacks for browsers. Its pages load HTMX from elsewhere.
IN_BROWSERS = (
    CONFTEST
    + """

@pytest.fixture
def context(context):
    headers = {"Access-Control-Allow-Origin": "*"}
    htmx = "HTMX"
    context.route("https://unpkg.com/**", lambda route: route.fulfill(path=htmx, headers=headers))
    return context
"""
)

EVENT = """
import pytest
from playwright.sync_api import expect

from app.mailer import mailer
from tests.factories import a_category, a_tournament, pending_battles
from tests.seed import email_of


def log_in(page, role):
    page.goto("/auth/login")
    page.get_by_label("Your e-mail address").fill(email_of(role))
    page.get_by_role("button", name="Send me a link").click()
    expect(page.get_by_role("heading")).to_have_text("Look into your mailbox")
    page.goto(mailer.find_latest(email_of(role)).text)
    expect(page.get_by_role("banner")).to_contain_text(f"({role})")


@pytest.fixture
def event(db_session):
    category = a_category("Hip hop 1v1", performers=8)
    tournament = a_tournament(category, name="Summer Battle 2024")
    db_session.add_all([tournament, *pending_battles(category)])
    db_session.commit()
    return tournament.id


@pytest.mark.parametrize("turn", range(2))
def test_two_roles(page, new_context, event, turn):
    other = new_context().new_page()
    log_in(other, "staff")
    log_in(page, "mc")
    other.goto(f"/event/{event}/queue")
    expect(other.get_by_role("article")).to_have_count(4)
    page.goto(f"/event/{event}")
    page.get_by_role("button", name="Start").first.click()
    expect(page.get_by_role("region", name="On the floor").get_by_role("article")).to_have_count(1)
    other.reload()
    expect(other.locator("[data-status=ACTIVE]")).to_have_count(1)


def test_htmx_brings_the_board_up_to_date(page, event, arena):
    log_in(page, "mc")
    page.goto(f"/event/{event}")
    expect(page.get_by_text("Nobody dances now.")).to_be_visible()
    assert page.request.post("/battles/1/start").ok  # by somebody else's hand
    floor = page.get_by_role("region", name="On the floor").get_by_role("article")
    expect(floor).to_be_visible(timeout=20_000)
    assert "battles" in arena.changes().tables


def test_fails(page, event):
    page.goto("/tournaments")
    page.evaluate("console.log('the page says so')")
    expect(page.get_by_text("Winter Jam")).to_be_visible(timeout=100)
"""


@pytest.mark.slow
def test_two_roles_in_two_browsers_pitfall_126(battle_d: Path, packages: Path) -> None:
    """P1, P9: links in letters, HTMX, and what is there of a failed test."""
    with (battle_d / "tests" / "conftest.py").open("a") as conftest:
        conftest.write(IN_BROWSERS.replace("HTMX", str(packages / "htmx.org/dist/htmx.min.js")))
    (battle_d / "tests" / "test_browser.py").write_text(EVENT)
    done = call(
        *(sys.executable, "-m", "pytest", "tests/test_browser.py", "--scenarios=off"),
        *("--screenshot", "only-on-failure"),
        folder=battle_d,
    )
    assert "1 failed, 3 passed" in done.stdout, done.stdout
    for told in ("console: the page says so", "GET /tournaments 200", "tournaments +1"):
        assert told in done.stdout, done.stdout
    assert list(battle_d.glob("test-results/*fails*/*.png"))
    assert not (battle_d / "data").exists()
