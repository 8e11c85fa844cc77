"""The app under a real server: browsers, sockets, and tools that know no ASGI."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.plugin.shop import HOWS, env_of, shop
from tests.plugin.test_streams import LIVE

if TYPE_CHECKING:
    from tests.example import Example

# What stands in the way of the next test.
LEFT = """
import threading
from contextlib import suppress
import pytest
from app import SLOW

asked = []


def ask(client, path):
    def get():
        with suppress(Exception):  # it is ended
            client.get(path)

    asked.append(threading.Thread(target=get, daemon=True))
    asked[-1].start()
    assert SLOW.wait(30)
    SLOW.clear()


def test_slow(live_server):
    ask(live_server.client(timeout=None), "/slow")


def test_slow_and_sync(live_server):
    ask(live_server.client(timeout=None), "/sleeps")


def test_stream(live_server):
    asked.append(live_server.client().stream("GET", "/events/desk"))
    asked.append(asked[-1].__enter__().iter_lines())
    next(asked[-1])


@pytest.mark.parametrize("turn", range(2))
def test_leak(live_server, turn):
    assert live_server.client().get("/leaks").status_code == 200


def test_nothing_is_left(live_server):
    assert live_server.client().get("/orders").json() == []
"""
SLOWLY = """

import threading, time
SLOW, ENDED = threading.Event(), []


@app.get("/slow")
async def slow():
    SLOW.set()
    await asyncio.sleep(60)


@app.get("/sleeps")
def sleeps():
    SLOW.set()
    time.sleep(3)


@app.get("/ends")
async def ends(db=Depends(get_db)):
    SLOW.set()
    await asyncio.sleep(0.1)
    db.add(Order(item="in time"))
    await db.commit()
    ENDED.append(1)


@app.get("/leaks")
async def leaks():
    app.state.left = await engine.connect()
    app.state.left.info["from"] = "here"
    return "left"
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", HOWS)
def test_what_is_under_way_at_the_end_pitfall_126(example: Example, how: str) -> None:
    """P2, P7: it is waited for, then ended and named; a leak is told in each test that has it."""
    run = shop(example, test_live=LEFT).with_files(app=LIVE + SLOWLY).run(env=env_of(how))
    run.expect(passed=6)
    for path in ("slow", "sleeps", "events/desk"):
        run.says(f"work that a request had begun was cut off cause: GET /{path}")
    run.says("LeakWarning: the test ended with a connection that was not returned")


IN_TIME = """
import threading
from urllib.request import urlopen
from app import ENDED, SLOW


def test_ends_in_time(live_server):
    # Not by arena's client: it is closed at the test's end, also while it reads an answer.
    threading.Thread(target=urlopen, args=(f"{live_server.url}/ends",)).start()
    assert SLOW.wait(30)


def test_nothing_is_left(live_server):
    assert ENDED == [1]
    assert live_server.client().get("/orders").json() == []
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", HOWS)
def test_what_ends_by_itself_is_waited_for_pitfall_126(example: Example, how: str) -> None:
    """P2: it has its database until it has committed, and nothing is told."""
    project = shop(example, test_live=IN_TIME).with_files(app=LIVE + SLOWLY)
    run = project.run("-oarena_settle=30", env=env_of(how))
    run.expect(passed=2).never_says("cut off")
