"""Which request changed what: how often is the server asked, and is the answer exact?"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.plugin.shop import APP, env_of, shop

if TYPE_CHECKING:
    from tests.example import Example

# Tells what was said on connections of arena's own since the last test. No test waits for what is
# said in the background, once a run: whose databases are dead, and how the next one is called.
COUNTED = """
import threading

from pytest_arena._postgresql import _control

asked = []


def counting(kind, name):
    say = getattr(kind, name)

    def said(control, sql, *args, **options):
        if threading.current_thread().name != "pytest-arena-background":
            asked.append(sql)
        return say(control, sql, *args, **options)

    setattr(kind, name, said)


counting(_control.Control, "ask")
counting(_control.Control, "_execute")


def pytest_runtest_logfinish(nodeid):
    said = [sql.partition("(")[0].strip()[:30] for sql in asked]
    print(f"\\n{nodeid.partition('::')[2]} asked {said}")
    asked.clear()
"""
REQUESTS = """
import pytest
from app import Order


async def test_first(client):
    await client.post("/orders/chair")


@pytest.mark.parametrize("number", [1, 3, 10])
async def test_writes(client, number):
    for _ in range(number):
        assert (await client.post("/orders/chair")).status_code == 201


@pytest.mark.parametrize("number", [1, 10])
async def test_reads(client, number):
    for _ in range(number):
        await client.get("/orders")


async def test_between(client, db_session):
    for item in ("chair", "lamp"):
        db_session.add(Order(item="vase"))
        await client.post(f"/orders/{item}")


def test_sync(test_client):
    for _ in range(3):
        test_client.post("/orders/chair")


def test_none(arena):
    pass
"""


def test_the_server_is_asked_between_two_requests(example: Example) -> None:
    """Before the next request uses the database. A test that does not use it asks nothing."""
    project = replace(shop(example, conftest=COUNTED, test_it=REQUESTS), options=())
    run = project.run("-s", env=env_of("undo")).expect(passed=9)
    run.says(
        "test_writes[1] asked ['EXECUTE leave']",
        "test_writes[3] asked ['EXECUTE moment', 'EXECUTE moment', 'EXECUTE leave']",
        "test_reads[1] asked ['EXECUTE leave']",
        "test_none asked []",
    )


CHILDREN = """
import subprocess
import sys


async def test_first(client):
    await client.post("/orders/chair")


async def test_writes(client):
    for _ in range(3):
        await client.post("/orders/chair")


async def test_starts(client):
    subprocess.run([sys.executable, "-c", ""], check=True)
    for _ in range(3):
        await client.post("/orders/chair")


async def test_writes_again(client):
    for _ in range(3):
        await client.post("/orders/chair")
"""


@pytest.mark.slow
def test_who_was_started_before_there_was_a_database_is_not_reckoned_with(example: Example) -> None:
    """As by each worker of xdist, which asks `uname` for its processor. Later ones may know it."""
    started = "import subprocess\nsubprocess.run(['uname', '-p'])\n"
    project = shop(example, conftest=started + COUNTED, test_it=CHILDREN)
    run = replace(project, options=()).run("-s", env=env_of("undo"))
    run.expect(passed=4)
    twice = "'EXECUTE moment', 'EXECUTE moment'"
    run.says(f"test_writes asked [{twice}, 'EXECUTE leave']")
    run.says(f"test_starts asked [{twice}, {twice}, ")
    run.says("test_writes_again asked ['EXECUTE enter', ")


MORE_OF_THE_APP = """

import asyncio
from sqlalchemy import text

tasks, go = [], []
INSERT = text("INSERT INTO made VALUES (7)")


async def late(item, may_end):
    async with maker() as session:
        session.add(Order(item=item))
        await session.flush()
        tasks[0].set_result(None)
        await may_end.wait()
        await session.commit()


@app.post("/late/{item}")
async def begin(item: str):
    tasks[:], go[:] = [asyncio.get_running_loop().create_future()], [asyncio.Event()]
    tasks.append(asyncio.create_task(late(item, go[0])))
    await tasks[0]


@app.post("/end")
async def end():
    go[0].set()
    await tasks[1]


@app.post("/prepare/{name}")
async def prepare(name: str):
    async with engine.connect() as connection:
        await connection.execute(text("INSERT INTO orders (item, status) VALUES ('vase', 'new')"))
        await connection.execute(text(f"PREPARE TRANSACTION '{name}'"))


@app.post("/commit/{name}")
async def commit(name: str):
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        await connection.execute(text(f"COMMIT PREPARED '{name}'"))


@app.post("/make/{how}")
async def make(how: str):
    async with engine.begin() as connection:
        if how == "text":
            await connection.execute(text("CREATE TABLE made (n int)"))
        elif how == "driver":
            raw = await connection.get_raw_connection()
            await raw.driver_connection.execute("SELECT 1; CREATE  TABLE made (n int)")
        else:
            await connection.execute(text("SELECT make()"))


@app.post("/fill")
async def fill():
    async with engine.begin() as connection:
        await connection.execute(INSERT)
"""
EXACT = """
import asyncio
import uuid
import pytest
from app import Order, go, maker, tasks


def items(changes):
    return sorted(row.after["item"] for row in changes["orders"].inserted)


async def test_requests_one_by_one_at_once_and_what_comes_between(arena, client, db_session):
    for item in ("chair", "lamp"):
        db_session.add(Order(item="between"))
        await client.post(f"/orders/{item}")
    await asyncio.gather(*(client.post("/orders/chair") for _ in range(3)))
    await client.get("/orders")
    for _ in range(2):
        assert [items(arena.changes(place)) for place in range(6)] == [
            ["chair"], ["lamp"], *[["chair"] * 3] * 3, []
        ]
    assert len(items(arena.changes())) == 7


async def test_an_open_transaction_over_requests(arena, client):
    await client.post("/orders/lamp")
    async with maker() as session:
        session.add(Order(item="kept"))
        await session.flush()
        await client.post("/orders/chair")
        await client.get("/orders")
        await session.commit()
    await client.post("/orders/lamp")
    found = [items(arena.changes(place)) for place in range(4)]
    assert found == [["lamp"], ["chair"], [], ["lamp"]]
    assert items(arena.changes()) == ["chair", "kept", "lamp", "lamp"]


async def test_a_task_that_commits_in_a_later_request(arena, client):
    await client.post("/late/vase")
    await client.post("/orders/chair")
    await client.post("/end")
    await client.post("/orders/lamp")
    found = [items(arena.changes(place)) for place in range(4)]
    assert found == [[], ["chair"], ["vase"], ["lamp"]]


async def test_a_task_that_commits_between_two_requests(arena, client):
    await client.post("/late/vase")
    await client.post("/orders/chair")
    go[0].set()
    await tasks[1]
    await client.post("/orders/lamp")
    assert [items(arena.changes(place)) for place in range(3)] == [[], ["chair"], ["lamp"]]
    assert items(arena.changes()) == ["chair", "lamp", "vase"]


@pytest.mark.parametrize("how", ["text", "driver"])
async def test_rows_of_a_table_that_a_request_made(arena, client, how):
    for path in ("/orders/chair", f"/make/{how}", "/fill", "/orders/lamp", "/fill"):
        await client.post(path)
    found = [arena.changes(place).tables for place in range(5)]
    orders = ("orders", "stock")
    assert found == [orders, ("the schema",), ("made",), orders, ("made",)]


async def test_a_transaction_that_is_prepared_and_committed_later(arena, client):
    name = uuid.uuid4().hex
    for path in (f"/prepare/{name}", "/orders/chair", f"/commit/{name}", "/orders/lamp"):
        await client.post(path)
    found = [items(arena.changes(place)) for place in range(4)]
    assert found == [[], ["chair"], ["vase"], ["lamp"]]


async def test_blocks(arena, client):
    from pytest_arena import inserted, updated

    await client.post("/orders/lamp")
    async with arena.expect_changes(orders=inserted(1, item="chair"), stock=updated()):
        await client.post("/orders/chair")
    await client.post("/orders/lamp")


def test_of_a_sync_client(arena, test_client):
    for item in ("chair", "lamp", "chair"):
        test_client.post(f"/orders/{item}")
    assert [items(arena.changes(place)) for place in range(3)] == [["chair"], ["lamp"], ["chair"]]
"""
FROZEN = """
import freezegun
import pytest
import time_machine


@pytest.fixture(autouse=True, params=[freezegun.freeze_time, time_machine.travel])
def frozen(request):
    with request.param("2001-01-01"):
        yield
"""


@pytest.mark.slow
def test_who_changed_what_is_exact(example: Example) -> None:
    """Also if a transaction lasts over several requests, or a request makes a table."""
    files = shop(example, test_it=EXACT).with_files(app=APP + MORE_OF_THE_APP)
    files.run(env=env_of("undo")).expect(passed=9)


@pytest.mark.slow
def test_in_a_test_whose_time_stands_still(example: Example) -> None:
    """What the test is told is not what the server says."""
    files = shop(example, conftest=FROZEN, test_it=EXACT).with_files(app=APP + MORE_OF_THE_APP)
    files.run(env=env_of("undo")).expect(passed=18)


BY_FUNCTION = """
import pytest
from sqlalchemy import text


@pytest.fixture(scope="module")
def made(arena):
    with arena.session() as session:
        session.execute(text(
            "CREATE FUNCTION make() RETURNS void LANGUAGE sql AS 'CREATE TABLE made (n int)'"
        ))
        session.commit()


async def test_it(arena, client, made):
    await client.post("/make/function")
    await client.post("/fill")
    await client.post("/orders/lamp")
    assert arena.changes(1)["made"].inserted[0].after["n"] == 7
    assert "made" not in arena.changes(2).tables
"""


@pytest.mark.slow
def test_rows_of_a_table_that_a_function_made(example: Example) -> None:
    """They belong to the request that wrote them."""
    files = shop(example, test_it=BY_FUNCTION).with_files(app=APP + MORE_OF_THE_APP)
    files.run(env=env_of("undo")).expect(passed=1)
