"""The report of a test that failed tells what was there, what it wrote, and by which request."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.parameters import slow_except
from tests.plugin.shop import HOWS, env_of, shop

if TYPE_CHECKING:
    from tests.example import Example, Run

TITLE = "arena: what this test changed (+ inserted, ~ updated, - deleted)"


STALE = """
import pytest
from app import Order, Stock, engine, maker
from sqlalchemy import select


@pytest.fixture
async def order(db_session):
    order = Order(item="vase")
    db_session.add(order)
    await db_session.commit()
    return order


async def test_paid_is_seen(order, client):
    await client.post("/orders/chair")
    await client.post("/settle/1")
    assert order.status == "paid"


async def test_refreshed(order, client, db_session):
    await client.post("/settle/1")
    await db_session.refresh(order)
    assert order.status == "lost"


async def test_another_cause(order, client):
    await client.post("/settle/1")
    assert 0, "as wanted"


async def test_a_connection(order, client):
    await client.post("/settle/1")
    async with engine.connect() as connection:
        assert await connection.scalar(select(Order.status)) == ("lost", engine)


def test_sync(db_session, test_client):
    stock = db_session.get(Stock, "chair")

    def check(row):
        assert row.amount == 4

    test_client.post("/orders/chair")
    check(stock)


class TestOfClass:
    @pytest.fixture(autouse=True)
    async def prepare(self, order, db_session):
        self.order = order
        self.database = db_session

    async def test_of_self(self, client):
        await client.post("/settle/1")
        assert self.order.status == "paid"


async def test_in_a_list(order, client, db_session):
    orders = [order]
    await client.post("/settle/1")
    assert orders[0].status == "paid"


async def test_in_a_loop(client):
    async with maker() as session:
        session.add_all([Order(item="vase"), Order(item="bowl")])
        await session.commit()
        orders = {"all": list(await session.scalars(select(Order)))}
    await client.post("/settle/2")
    assert [each.status for each in orders["all"]] == ["new", "paid"]


@pytest.fixture
async def own():
    async with maker() as session:
        yield session


async def test_in_the_suites_session(own, client):
    order = Order(item="vase")
    own.add(order)
    await own.commit()
    await client.post("/settle/1")
    await client.post("/settle/1")
    assert order.status == "paid"


class Odd:
    @property
    def __dict__(self):
        raise LookupError("nothing of that name")


async def test_beside_a_proxy(order, client):
    odd = Odd()
    await client.post("/settle/1")
    assert order.status == "paid" and odd.text


async def test_that_changed_it_itself(order, client):
    order.note = "by hand"
    await client.post("/settle/1")
    order.status = "open"
    assert order.status == "paid"
"""


SETTLE = """
@app.post("/settle/{number}")
async def settle(number: int, db=Depends(get_db)):
    order = await db.get(Order, number)
    order.status = "paid"
    await db.commit()


"""


def stories(run: Run) -> list[str]:
    """The story of each test that failed, in the order of the report."""
    parts = re.split(rf"^-+ {re.escape(TITLE)} -+$", run.output, flags=re.MULTILINE)[1:]
    return [re.split(r"^(?:-{4}|_{4}|={4})", part, flags=re.MULTILINE)[0].strip() for part in parts]


FAILING = """
import asyncio
import pytest
from app import Order, Stock, maker


@pytest.fixture(scope="module")
def lamps(arena):
    with arena.session() as session:
        session.add_all([Stock(item="torch", amount=9), Order(item="torch")])
        session.commit()


async def test_requests(lamps, client, db_session):
    db_session.add(Order(item="vase", note="by hand"))
    await client.post("/orders/chair")
    await client.post("/orders/nothing")
    await asyncio.gather(client.post("/orders/chair"), client.post("/orders/torch"))
    async with maker() as session:
        session.add(Order(item="late"))
        await session.commit()
    await client.delete("/orders/2")
    for _ in range(3):
        await client.get("/orders")
    await client.post("/old/lamp", follow_redirects=True)
    db_session.add(Order(item="never committed"))
    await db_session.flush()
    with pytest.raises(LookupError):
        await client.post("/breaks")
    async with maker() as session:
        session.add(Order(item="last"))
        await session.commit()
    assert 0, "as wanted"


def test_the_test_alone(db_session):
    db_session.add(Order(item="vase"))
    db_session.commit()
    db_session.add(Order(item="never committed"))
    db_session.flush()
    assert 0, "as wanted"


def test_reads(test_client):
    assert test_client.get("/orders").json() == []


def test_without_a_database():
    assert 0, "as wanted"


def test_that_passes(test_client):
    test_client.post("/orders/chair")


@pytest.mark.xfail
def test_that_is_expected_to_fail(test_client):
    test_client.post("/orders/chair")
    assert 0


@pytest.fixture
def broken(db_session, client):
    db_session.add(Order(item="vase"))
    db_session.commit()
    raise LookupError("as wanted")


def test_whose_fixture_fails(broken):
    pass
"""

BY_REQUESTS = """\
module fixture lamps       orders +1, stock +1
before the first request   orders +1
    + orders id=2  item='vase' status='new' note='by hand' NULL: api_token
POST /orders/chair 201     orders +1, stock ~1
    + orders id=3  item='chair' status='new' api_token=*** NULL: note
    ~ stock item='chair'  amount 5 → 4
POST /orders/nothing 404   nothing
at once: POST /orders/chair 201, POST /orders/torch 201  orders +2, stock ~2
    + orders id=4  item='A' status='new' api_token=*** NULL: note
    + orders id=5  item='A' status='new' api_token=*** NULL: note
    ~ stock item='chair'  amount 4 → 3
    ~ stock item='torch'  amount 9 → 8
then, outside of requests  orders +1
    + orders id=6  item='late' status='new' NULL: note, api_token
DELETE /orders/2 200       orders -1
    - orders id=2  item='vase' status='new' note='by hand' NULL: api_token
GET /orders 200, 3 times   nothing
POST /old/lamp 307 → POST /orders/lamp 201  orders +1, stock ~1
    + orders id=7  item='lamp' status='new' api_token=*** NULL: note
    ~ stock item='lamp'  amount 2 → 1
then, outside of requests  orders +1
    + orders id=8  item='never committed' status='new' NULL: note, api_token
POST /breaks raised LookupError  visits +1
    + visits id=1  path='/breaks'
    raised LookupError: no such thing (app.py:84)
then, outside of requests  orders +1
    + orders id=9  item='last' status='new' NULL: note, api_token"""


@pytest.mark.parametrize("how", ["copy", pytest.param("undo", marks=pytest.mark.slow)])
def test_a_failed_test_tells_request_by_request(example: Example, how: str) -> None:
    """Only where it has to do with a database, and only of tests that fail."""
    run = shop(example, test_it=FAILING).run(env=env_of(how))
    run.expect(1, failed=4, passed=1, errors=1, xfailed=1).never_says("s3cret")
    in_a_fixture, by_requests, alone, reads = stories(run)
    # Whichever of two requests at once came first.
    by_requests = re.sub(r"id=([45])  item='\w+'", r"id=\1  item='A'", by_requests)
    by_requests = re.sub(
        r"(at once:) (\S+ \S+torch 201), (\S+ \S+chair 201)", r"\1 \3, \2", by_requests
    )
    assert _lined(by_requests) == _lined(BY_REQUESTS)
    told = alone.splitlines()
    assert told[:3] == [
        "module fixture lamps       orders +1, stock +1",
        "the test and its fixtures  orders +1",
        "    + orders id=2  item='vase' status='new' NULL: note, api_token",
    ]
    assert told[3] == "not committed"
    assert reads.splitlines()[1:] == ["GET /orders 200       nothing"]
    assert in_a_fixture.splitlines() == told[:3]


def _lined(text: str) -> list[str]:
    """Lines, however their titles are stretched."""
    return [re.sub(r"(?<=\S)  +", "  ", line) for line in text.splitlines()]


@pytest.mark.slow
def test_a_clone_tells_the_whole_and_why(example: Example) -> None:
    """The requests are named; what changed is known of all together."""
    run = shop(example, test_it=FAILING).run(env=env_of("clone"))
    run.expect(1, failed=4, passed=1, errors=1, xfailed=1)
    lines = stories(run)[1].splitlines()
    assert lines[:3] == [
        "module fixture lamps  orders +1, stock +1",
        "POST /orders/chair 201",
        "POST /orders/nothing 404",
    ]
    whole = "in all (with clone it is not known which request changed what)"
    [line] = [line for line in lines if line.startswith(whole)]
    assert line.removeprefix(whole).strip() == "orders +7, stock ~3, visits +1"


LOST = """
import pytest
from app import Order


def ordered(session):
    session.add(Order(item="vase"))
    session.commit()


async def test_that_fails(client, db_session):
    db_session.add(Order(item="vase"))
    assert (await client.post("/pay/1")).status_code == 200
    await db_session.commit()
    assert (await db_session.get(Order, 1)).status == "paid"


@pytest.mark.parametrize("turn", range(3))
def test_that_passes(test_client, db_session, turn):
    ordered(db_session)
    assert test_client.post("/pay/1").status_code == 200
"""


@pytest.mark.parametrize("how", slow_except(["copy", "undo"], "undo"))
def test_a_commit_that_the_app_forgot_is_named(example: Example, how: str) -> None:
    """In the story of a test that fails; of those that pass in the summary, once."""
    run = shop(example, test_it=LOST).run(env=env_of(how)).expect(1, failed=1, passed=3)
    [story] = stories(run)
    lines = story.splitlines()
    assert lines[2] == "POST /pay/1 200           nothing"
    lost = "wrote orders (1 row) and never committed it: lost ("
    assert lines[3].strip().startswith(lost)
    assert "app.py:66  await db.flush()" in lines[3]
    assert run.output.count(lost) == 2
    run.says(f"test_it.py::test_that_passes[0]: POST /pay/1 200 {lost}")


def test_a_forgotten_commit_is_told_under_q_or_fails_its_test_or_is_not_told(
    example: Example,
) -> None:
    """As `arena_lost_writes` says; a test that failed for another reason has one failure."""
    passing = shop(example, test_it=LOST)
    only = ("-k", "passes")
    lost = "POST /pay/1 200 wrote orders (1 row)"
    quiet = passing.run(*only, "-qq")
    quiet.says(f"arena: test_it.py::test_that_passes[0]: {lost}")
    assert quiet.status == 0, quiet.output
    failing = passing.run("-oarena_lost_writes=fail", "-q").expect(1, passed=3, failed=1, errors=3)
    failing.says(f"LostWriteError: {lost}, and the app never committed it", "[A603]")
    failing.says("app.py:66  await db.flush()")
    passing.run(*only, "-oarena_lost_writes=off").expect(passed=3).never_says("never committed")


FAILED_COMMIT = """
from app import Order, Stock


async def test_of_the_app(client):
    assert (await client.post("/twice/vase")).status_code == 200


async def test_of_the_session(client, db_session):
    db_session.add(Order(item="vase"))
    await db_session.flush()
    with pytest.raises(IntegrityError):
        await db_session.execute(insert(Stock).values(item="chair", amount=1))
    assert (await client.get("/orders")).json() == ["vase"]


def test_of_the_sync_session(test_client, db_session):
    db_session.add(Order(item="vase"))
    db_session.flush()
    with pytest.raises(IntegrityError):
        db_session.execute(insert(Stock).values(item="chair", amount=1))
    assert test_client.get("/orders").json() == ["vase"]


async def test_in_a_savepoint(client, db_session):
    db_session.add(Order(item="vase"))
    with pytest.raises(IntegrityError):
        async with db_session.begin_nested():
            await db_session.execute(insert(Stock).values(item="chair", amount=1))
    assert (await client.get("/orders")).json() == ["vase"]
"""
TWICE = """

from sqlalchemy import insert
from sqlalchemy.exc import IntegrityError


@app.post("/twice/{item}")
async def twice(item: str, db=Depends(get_db)):
    db.add(Order(item=item))
    await db.flush()
    try:
        await db.execute(insert(Stock).values(item="chair", amount=1))
    except IntegrityError:
        pass
    await db.commit()
"""


@pytest.mark.parametrize("how", HOWS)
def test_a_commit_after_a_failed_statement(example: Example, how: str) -> None:
    """A server rolls all back at the commit, and raises no error. SQLite keeps the rest."""
    tests = (
        "import pytest\nfrom sqlalchemy import insert\nfrom sqlalchemy.exc import IntegrityError"
    )
    project = shop(example, test_it=tests + FAILED_COMMIT)
    project = project.with_files(app=project.files["app.py"] + TWICE)
    run = project.run(env=env_of(how))
    if how == "copy":
        run.expect(passed=4).never_says("never committed", "rolled back")
        return
    assert run.output.count("E   pytest_arena.errors.PendingWorkError: a statement of") == 2
    run.expect(1, passed=2, failed=2).says(
        "test_of_the_app: POST /twice/vase 200 wrote orders (1 row), and committed after a failed "
        "statement: rolled back, lost (",
        "PendingWorkError: a statement of db_session failed after it wrote orders",
    )


REFUSED = """
from app import Visit, maker


async def test_a_refused_request_has_lost_nothing(client):
    await client.post("/rolls/200")
    await client.post("/rolls/409")


async def test_nor_one_before_which_the_test_gave_something_up(client):
    async with maker() as session:
        session.add(Visit(path="/none"))
        await session.flush()
    await client.get("/orders")


async def test_nor_has_one_that_raised(arena):
    client = arena.client(raise_app_exceptions=False)
    await client.post("/raises")
"""

ROLLS = """

from fastapi.responses import JSONResponse


@app.post("/rolls/{status}")
async def rolls(status: int, db=Depends(get_db)):
    db.add(Visit(path="/rolls"))
    await db.flush()
    if status == 200:
        await db.rollback()
    return JSONResponse({}, status)


@app.post("/raises")
async def raises(db=Depends(get_db)):
    db.add(Visit(path="/raises"))
    await db.flush()
    raise LookupError
"""


def test_what_was_given_up_on_purpose_is_not_lost(example: Example) -> None:
    """By a rollback, by an answer that refuses, by an error."""
    project = shop(example, test_it=REFUSED)
    run = project.with_files(app=project.files["app.py"] + ROLLS).run().expect(passed=3)
    run.never_says("never committed")


HELD = """
import sqlalchemy
from sqlalchemy import text
from app import Order


def test_holds_a_lock(arena, test_client):
    test_client.post("/orders/chair")
    other = sqlalchemy.create_engine(arena.url.replace("+asyncpg", "+psycopg"))
    connection = other.connect()
    connection.execute(text("LOCK TABLE orders IN ACCESS EXCLUSIVE MODE"))
    test_holds_a_lock.connection = connection
    assert 0, "as wanted"


def test_ends_all_connections(arena, test_client):
    test_client.post("/orders/chair")
    url = arena.url.replace("+asyncpg", "+psycopg")
    with sqlalchemy.create_engine(url, isolation_level="AUTOCOMMIT").connect() as connection:
        connection.execute(text(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE pid <> pg_backend_pid() AND datname = current_database()"
        ))
    assert 0, "as wanted"
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", ["undo", "clone"])
def test_a_report_is_made_whatever_stands_in_the_way(example: Example, how: str) -> None:
    """A lock that the test holds, connections that it has ended: one line at most says so."""
    run = shop(example, test_it=HELD).run("-W", "ignore", env=env_of(how))
    held, ended = stories(run)[:2]
    for story in (held, ended):
        assert "POST /orders/chair 201" in story, run.output
        assert "orders +1" in story or "what changed could not be read" in story, run.output
        assert "Traceback" not in story
        assert "s3cret" not in story


LOCKED = """
import sqlite3
from contextlib import closing
import pytest


@pytest.fixture
def other(arena):
    with closing(sqlite3.connect(arena.url.partition("///")[2])) as connection:
        yield connection


def test_holds_a_lock(other, test_client):
    test_client.post("/orders/chair")
    other.execute("BEGIN EXCLUSIVE")
    assert 0, "as wanted"


def test_goes_on(test_client):
    assert test_client.get("/orders").json() == []
"""


@pytest.mark.slow
def test_a_file_that_the_test_has_locked(example: Example) -> None:
    """The report does not wait for it."""
    run = shop(example, test_it=LOCKED).run("-W", "ignore")
    [story] = stories(run)
    assert "POST /orders/chair 201" in story, run.output
    assert "orders +1" in story or "what changed could not be read" in story, run.output


SUBTESTS = """
def test_with_subtests(subtests, test_client):
    with subtests.test("first"):
        test_client.post("/orders/chair")
        assert 0, "as wanted"
    with subtests.test("second"):
        test_client.post("/orders/lamp")
"""


@pytest.mark.slow
def test_a_subtest_that_fails_tells_what_there_was_until_then(example: Example) -> None:
    """Its report is made in the middle of the test."""
    if int(pytest.__version__.partition(".")[0]) < 9:
        pytest.skip("subtests came with pytest 9")
    run = shop(example, test_it=SUBTESTS).run()
    first = stories(run)[0]
    assert first.splitlines()[0] == "POST /orders/chair 201  orders +1, stock ~1", run.output
    assert "/orders/lamp" not in first


@pytest.mark.slow
def test_workers_send_the_story_along(example: Example) -> None:
    """A report's sections are the controller's to print."""
    run = shop(example, test_it=FAILING).run("-p", "xdist.plugin", "-n", "1")
    assert len(stories(run)) == 4, run.output


CACHED = """
import pytest
from app import Order, app, maker
from functools import cache
from sqlalchemy import select

remembered = {}


@app.get("/prices")
async def prices():
    if not remembered:
        async with maker() as session:
            remembered["items"] = list(await session.scalars(select(Order.item)))
    return remembered["items"]


@app.get("/about")
async def about():
    return "a shop"


async def test_first(client):
    assert (await client.get("/prices")).json() == []


async def test_then(client, db_session):
    db_session.add(Order(item="vase"))
    await client.get("/about")
    assert (await client.get("/prices")).json() == ["vase"]


def test_in_its_thread(test_client):
    test_client.post("/orders/chair")
    assert test_client.get("/prices").json() == ["chair"]
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", HOWS)
def test_an_answer_that_may_be_of_a_cache(example: Example, how: str) -> None:
    """It shows what another test has written, and sends no statement."""
    run = shop(example, test_it=CACHED).run(env=env_of(how)).expect(1, passed=1, failed=2)
    hint = "sent no statement, but did in test_it.py::test_first: is it from a cache?"
    assert [story.count(hint) for story in stories(run)] == [1, 1], run.output


ONLY_AT_FIRST = """
from app import Order, app, maker

started = []


@app.post("/start")
async def start():
    if not started:
        started.append(True)
        async with maker.begin() as session:
            session.add(Order(item="first"))


async def test_first(client):
    await client.post("/start")


async def test_then(client):
    await client.post("/start")
    assert (await client.get("/orders")).json() == ["first"]
"""


@pytest.mark.slow
def test_a_write_that_was_not_sent_is_no_answer_of_a_cache(example: Example) -> None:
    """The story of a POST names no cache."""
    run = shop(example, test_it=ONLY_AT_FIRST).run().expect(1, passed=1, failed=1)
    run.says("POST /start").never_says("from a cache?")


BY_QUERY = """
from app import Order, app, maker
from functools import cache
from sqlalchemy import select

remembered = {}


@app.get("/prices")
async def prices(currency: str):
    if currency not in remembered:
        async with maker() as session:
            remembered[currency] = list(await session.scalars(select(Order.item)))
    return remembered[currency]


async def test_euros(client):
    assert (await client.get("/prices?currency=EUR")).json() == []


def test_dollars(test_client):
    assert test_client.get("/prices", params={"currency": "USD"}).json() == []


async def test_dollars_then(client):
    assert (await client.get("/prices?currency=USD")).json() == ["vase"]


def test_euros_then(test_client):
    assert test_client.get("/prices?currency=EUR").json() == ["vase"]
"""


@pytest.mark.slow
def test_the_test_that_filled_a_cache_has_sent_the_same_query(example: Example) -> None:
    """The query is not printed: it may hold secrets."""
    run = shop(example, test_it=BY_QUERY).run().expect(1, passed=2, failed=2)
    first, second = stories(run)
    assert "sent no statement, but did in test_it.py::test_dollars" in first, run.output
    assert "sent no statement, but did in test_it.py::test_euros" in second, run.output
    assert "currency" not in first + second, run.output


UNSENT = """
import pytest
from app import app
from fastapi import HTTPException, Request, Response


@app.post("/login")
async def login(response: Response):
    response.set_cookie("session", "s3cret", secure=True)
    response.set_cookie("theme", "dark")


@app.get("/me")
async def me(request: Request):
    if "session" not in request.cookies:
        raise HTTPException(401)


async def test_logged_in(client):
    await client.post("/login")
    assert (await client.get("/me")).status_code == 200


def test_logged_in_with_the_sync_client(test_client):
    test_client.post("/login")
    assert test_client.get("/me").status_code == 200


class TestSecure:
    @pytest.fixture
    def client_options(self):
        return {"base_url": "https://testserver"}

    test_logged_in = staticmethod(test_logged_in)
    test_with_the_sync_client = staticmethod(test_logged_in_with_the_sync_client)


async def test_a_stranger(client):
    assert (await client.get("/me")).status_code == 200
"""


@pytest.mark.slow
def test_a_secure_cookie_that_http_is_not_sent(example: Example) -> None:
    """By its name alone, where the request was refused."""
    run = shop(example, test_it=UNSENT).run().expect(1, passed=2, failed=3)
    hint = 'came without session: Secure cookies want base_url="https://testserver"'
    assert [story.count(hint) for story in stories(run)] == [1, 1, 0], run.output
    assert "s3cret" not in "".join(stories(run))


@pytest.mark.parametrize("how", HOWS)
def test_an_instance_that_a_request_has_changed_is_named(example: Example, how: str) -> None:
    """Where the failed assertion compares it, and it was not read again."""
    project = shop(example, test_stale=STALE)
    project = project.change("app.py", "@app.delete", SETTLE + "@app.delete")
    run = project.run("-p", "no:randomly", env=env_of(how)).expect(1, failed=11)
    run.says(
        "`order` (orders id=1) was loaded before POST /settle/1 changed its status: "
        "`await db_session.refresh(order)`",
        "`stock` (stock item=chair) was loaded before POST /orders/chair changed its amount: "
        "`db_session.refresh(stock)`",
        "`self.order` (orders id=1) was loaded before POST /settle/1 changed its status: "
        "`await self.database.refresh(self.order)`",
        "`orders[0]` (orders id=1) was loaded before POST /settle/1 changed its status: "
        "`await db_session.refresh(orders[0])`",
        "`orders['all'][1]` (orders id=2) was loaded before POST /settle/2 changed its status: "
        "`orders['all'][1] = await db_session.get(Order, 2)`",
        "`order` (orders id=1) was loaded before POST /settle/1 changed its status: "
        "`await own.refresh(order)`",
    )
    assert run.output.count("was loaded before") == 7
