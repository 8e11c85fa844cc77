"""A real browser on the live server: pytest-playwright's fixtures, and one line."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest

from tests.others.conftest import BROWSER, PROGRAMS
from tests.plugin.shop import env_of, shop
from tests.plugin.test_streams import LIVE

if TYPE_CHECKING:
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
