"""A real browser on the live server: pytest-playwright's fixtures, and one line."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest

from tests.others.conftest import BROWSER, PROGRAMS
from tests.plugin.shop import shop

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
    assert sorted(db_session.scalars(select(Order.item))) == ["chair", "vase"]


def test_two_at_once(new_context):
    one, other = (new_context().new_page() for _ in range(2))
    one.goto("/shop")
    other.goto("/shop")
    one.get_by_role("button").click()
    one.get_by_text("chair", exact=True).wait_for()
    other.reload()
    other.get_by_text("chair", exact=True).wait_for()


def test_fails(page):
    page.goto("/shop")
    page.get_by_role("button").click()
    page.get_by_text("chair", exact=True).wait_for()
    assert page.title() == "nobody"
"""


def test_a_browser_on_the_tests_database(example: Example) -> None:
    """The test sees what the browser writes, and its report names the request."""
    suite = shop(example, page=PAGE, test_it=TESTS, conftest=CONFTEST)
    run = suite.run("-p", "pytest_playwright.pytest_playwright")
    run.expect(status=1, passed=4, failed=1).never_says("cut off", "left a task")
    run.says("console: there are", "POST /orders/chair 201", "+ orders")
