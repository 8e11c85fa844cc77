"""Known traps of pytest and the process that no single plugin sets."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.example import Example

LOOPS = """
import asyncio
import threading
from contextvars import ContextVar
import pytest
import pytest_asyncio
from sqlalchemy import create_engine, text
from app import Dancer, engine, maker

COUNT = text("SELECT count(*) FROM dancers")

@pytest_asyncio.fixture(loop_scope="session", scope="session")
async def held():
    async with engine.connect() as connection:
        await connection.execute(COUNT)
        yield connection

@pytest.mark.parametrize("turn", range(2))
async def test_held_over_loops_pitfall_005(held, client, turn):
    assert (await held.execute(COUNT)).scalar() == 1
    await held.execute(text("INSERT INTO dancers (name) VALUES ('Dune')"))
    await held.commit()
    assert (await client.get("/dancers")).json() == ["Sand", "Dune"]

TRIBE = ContextVar("tribe", default="none")

@pytest.fixture
async def tribe():
    TRIBE.set("Sand")

async def test_context_variables_pitfall_082(tribe, client):
    async def asked():
        return len((await client.get("/dancers")).json())

    tasks = [asyncio.create_task(asked()), asyncio.create_task(asyncio.to_thread(rows))]
    assert await asyncio.gather(*tasks) == [1, 1]

def rows():
    async def count():
        async with maker() as session:
            return len(list(await session.scalars(Dancer.__table__.select())))

    return asyncio.run(count())

@pytest.fixture
def event_loop():
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()

def test_an_event_loop_of_the_old_kind_pitfall_083(event_loop, db_session):
    async def add():
        async with maker() as session:
            session.add(Dancer(name="Dune"))
            await session.commit()

    event_loop.run_until_complete(add())
    assert db_session.scalar(COUNT) == 2

sync = create_engine("sqlite:///dev.db")
BEGUN, ENOUGH = threading.Event(), threading.Event()

def tick():
    with sync.begin() as connection:
        connection.execute(text("INSERT INTO dancers (name) VALUES ('tick')"))
        BEGUN.set()
        ENOUGH.wait(30)

def test_a_thread_that_holds_a_lock_pitfall_068(test_client):
    threading.Thread(target=tick, daemon=True).start()
    assert BEGUN.wait(30)

def test_after_it(test_client):
    assert test_client.get("/dancers").json() == ["Sand"]
    assert test_client.post("/dancers/Dune").status_code == 201
    ENOUGH.set()
"""


def test_loops_and_threads_pitfall_005_068_082_083(example: Example) -> None:
    """P2, P5: a connection held over loops works; a lock held at the end is ended, and named."""
    run = example.with_files(test_it=LOOPS).run("-Wignore::pytest.PytestWarning")
    run.expect(status=1, passed=6, errors=1)
    run.says("ConnectionLeak: the test ended with an open transaction")
    # The line that began the transaction, or the one that wrote in it.
    assert re.search(r"cause: test_it\.py:6[45] ", run.output), run.output


TWO = """
async def test_both(client):
    assert (await client.get("/dancers")).json() == ["Sand"]
    assert (await client.post("/dancers/Dune")).status_code == 201
    print("INSIDE", flush=True)
    input()  # until the other run is inside of its test as well
    assert (await client.get("/dancers")).json() == ["Sand", "Dune"]
"""


@pytest.mark.slow
def test_two_runs_at_once_pitfall_076(example: Example) -> None:
    """P2, P7: two checkouts, one cache; neither takes anything from the other."""
    folders = [example.folder.with_name(name) for name in ("one", "two")]
    runs = [
        replace(example, folder=folder).with_files(test_it=TWO).start("-q", "-s")
        for folder in folders
    ]
    for run in runs:
        assert run.stdout is not None
        assert any("INSIDE" in line for line in iter(run.stdout.readline, ""))
    outputs = [run.communicate("\n", timeout=120)[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], outputs
