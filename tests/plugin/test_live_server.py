"""The app under a real server: browsers, sockets, and tools that know no ASGI."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.plugin.shop import HOWS, env_of, shop
from tests.plugin.test_story import stories
from tests.plugin.test_streams import LIVE

if TYPE_CHECKING:
    from tests.example import Example

STORY = """
import asyncio, urllib.request
import pytest
from sqlalchemy import func, select
from app import Order, Stock, maker


@pytest.mark.parametrize("turn", range(3))
def test_sync(live_server, db_session, turn):
    client = live_server.client()
    db_session.add(Stock(item="sofa", amount=1))
    assert client.post("/orders/sofa").status_code == 201  # pending, and committed before it
    assert client.get("/orders").json() == ["sofa"]
    assert db_session.scalars(select(Order.item)).all() == ["sofa"]


@pytest.mark.parametrize("turn", range(3))
async def test_async(live_server, client, db_session, arena, turn):
    db_session.add(Stock(item="sofa", amount=1))

    def as_a_browser_does():
        asked = urllib.request.Request(live_server.url + "/orders/sofa", method="POST")
        return urllib.request.urlopen(asked).status

    assert await asyncio.to_thread(as_a_browser_does) == 201
    assert (await client.get("/orders")).json() == ["sofa"]
    assert (await live_server.client().get("/orders")).json() == ["sofa"]
    assert await db_session.scalar(select(func.count(Order.id))) == 1
    assert [one.path for one in arena.requests] == ["/orders/sofa", "/orders", "/orders"]
    if arena.isolation != "clone":  # which knows the whole alone
        assert arena.changes(0).tables == ("orders", "stock")
        assert not arena.changes(1)


def test_many_at_once(live_server):
    from concurrent.futures import ThreadPoolExecutor
    client = live_server.client()
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(client.post, ["/orders/chair"] * 5))
    assert {one.status_code for one in answers} == {201}
    assert client.get("/orders").json() == ["chair"] * 5


async def test_websocket(live_server, db_session):
    import websockets
    async with websockets.connect(f"{live_server.ws_url}/orders") as socket:
        await socket.send("desk")
        assert "desk" in await socket.recv()
    assert (await db_session.scalars(select(Order.item))).all() == ["desk"]


def test_events(live_server):
    with live_server.client().stream("GET", "/events/desk") as events:
        assert next(events.iter_lines()) == "data: 1"


def test_upload(live_server, db_session):
    asked = live_server.client().post("/upload", content=(b"x" * 60_000 for _ in range(20)))
    assert asked.json() == 1_200_000
    assert db_session.scalars(select(Order.item)).all() == ["1200000 bytes"]


def test_nothing_is_left(live_server):
    assert live_server.client().get("/orders").json() == []
"""

UPLOAD = """

from fastapi import Request


@app.post("/upload")
async def upload(request: Request, db=Depends(get_db)):
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
    db.add(Order(item=f"{size} bytes"))
    await db.commit()
    return size
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", HOWS)
def test_a_server_on_the_tests_database_pitfall_126(example: Example, how: str) -> None:
    """P1, P2: what is pending is seen, what it writes is told, and goes with the test."""
    run = shop(example, test_live=STORY).with_files(app=LIVE + UPLOAD).run(env=env_of(how))
    run.expect(passed=11).never_says("cut off", "left a task")


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
    run.expect(status=1, passed=6, errors=2)
    for name, path in ("slow", "slow"), ("slow_and_sync", "sleeps"), ("stream", "events/desk"):
        run.says(
            f"test_{name} has ended, and work that a request had begun was cut off: GET /{path}"
        )
    run.says("ConnectionLeak: the test ended with a connection that was not returned")


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


WIDE = """
import http.client
import pytest
from app import Order, maker


@pytest.fixture(scope="session")
def base_url(arena):
    return arena.live_server().url


@pytest.fixture(scope="session")
def browser(base_url):
    connection = http.client.HTTPConnection(base_url.removeprefix("http://"))
    connection.request("POST", "/orders/chair")  # on the fixture's own data, which stay
    assert connection.getresponse().read() == b"null"
    yield connection
    assert ask(connection, "GET", "/orders") == (503, SAID)
    connection.close()


SAID = b"no test runs: a request between two tests has no database\\n"


def ask(browser, method, path):
    browser.request(method, path)
    answer = browser.getresponse()
    return answer.status, answer.read()


@pytest.mark.parametrize("turn", range(3))
def test_keeps_its_connection(browser, turn):
    kept = browser.sock
    assert ask(browser, "POST", "/orders/lamp")[0] == 201
    assert ask(browser, "GET", "/orders") == (200, b'["chair","lamp"]')
    assert browser.sock is kept is not None
"""


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.slow
def test_a_browser_for_the_whole_session_pitfall_126(example: Example, how: str) -> None:
    """P1, P2: its connection goes from test to test, and between two it is refused."""
    run = shop(example, test_live=WIDE).run(env=env_of(how))
    run.expect(passed=3)


@pytest.mark.slow
def test_workers_have_a_server_each(example: Example) -> None:
    """P4: on a port of its own."""
    shop(example, test_live=WIDE).run("-p", "xdist", "-n", "2").expect(passed=3)


GUARDED = """
def test_past_the_engine(live_server, arena):
    with arena.expect_refusal() as refused:
        assert live_server.client().get("/past").status_code == 500
    assert "shop.db" in str(refused.error)
"""
PAST = """

@app.get("/past")
def past():
    import sqlite3
    sqlite3.connect("shop.db").execute("CREATE TABLE t (a)")
"""


def test_the_guard_stands_before_it_pitfall_126(example: Example) -> None:
    """P3: what an endpoint opens past the app's engine is refused there as well."""
    suite = shop(example, test_live=GUARDED)
    run = suite.change("app.py", "app = FastAPI()\n", "app = FastAPI()\n" + PAST).run()
    run.expect(passed=1)
    assert not (run.folder / "shop.db").exists()


BROKEN = """
import pytest

def test_breaks(live_server):
    assert live_server.client().post("/breaks").status_code == 201
"""


@pytest.mark.slow
def test_an_app_that_raises_is_told(example: Example) -> None:
    """P9: as with the clients in process."""
    run = shop(example, test_live=BROKEN).run().expect(status=1, failed=1)
    run.says("the server's traceback, POST /breaks", "LookupError: no such thing")
    assert "+ visits" in stories(run)[0]


@pytest.mark.slow
def test_an_app_that_does_not_start(example: Example) -> None:
    """Its own error is told, at each request."""
    lifespan = """
from contextlib import asynccontextmanager


@asynccontextmanager
async def lifespan(app):
    raise RuntimeError("no broker")
    yield


app = FastAPI(lifespan=lifespan)
"""
    broken = shop(example, test_live=BROKEN).change("app.py", "app = FastAPI()\n", lifespan)
    broken.run().expect(status=1, errors=1).says("LifespanError", "RuntimeError: no broker")


@pytest.mark.slow
def test_without_uvicorn(example: Example) -> None:
    """P10: how it is installed."""
    without = "import sys\nsys.modules['uvicorn'] = None\n"
    run = shop(example, test_live=BROKEN, conftest=without).run().expect(status=1, errors=1)
    run.says("the live server needs uvicorn", 'pip install "pytest-arena[live]"')


LATE = """
import pytest

@pytest.fixture
def asked(live_server):
    return live_server.client(headers={"x-role": "mc"})

def test_in_a_fixture(asked, arena):
    assert asked.get("/orders", headers={"x-more": "1"}).json() == []
    assert [one.path for one in arena.requests] == ["/orders"]
"""


def test_a_client_of_a_fixture(example: Example) -> None:
    """It has the library's options, and is closed with the test: else it would be a warning."""
    shop(example, test_live=LATE).run("-p", "no:cacheprovider").expect(passed=1)
