"""pytest-timeout: a test that is broken off from outside."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.example import Example

PLUGINS = ("-p", "pytest_timeout")

# Whatever the signal meets, the test fails, and the next one is clean.
ALARM = """
import asyncio
import sqlite3
import threading
import pytest
from fastapi.responses import StreamingResponse
from sqlalchemy import text
from app import Dancer, app, maker

ENDLESS = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT max(x) FROM c"

@pytest.mark.timeout(2)  # it also builds the template
async def test_in_an_await(client):
    await client.post("/dancers/Dune")
    async with maker() as session:
        session.add(Dancer(name="open"))
        await session.flush()
        await asyncio.Event().wait()

async def test_clean_1(client):
    assert (await client.get("/dancers")).json() == ["Sand"]

@pytest.mark.timeout(1)
async def test_in_a_statement_without_an_end(client):
    async with maker() as session:
        session.add(Dancer(name="open"))
        await session.flush()
        await session.execute(text(ENDLESS))

async def test_clean_2(client):
    assert (await client.get("/dancers")).json() == ["Sand"]

@pytest.mark.timeout(1)
def test_in_a_sync_statement(db_session, test_client):
    test_client.post("/dancers/Dune")
    db_session.add(Dancer(name="open"))
    db_session.flush()
    threading.Event().wait()

async def test_clean_3(client):
    assert (await client.get("/dancers")).json() == ["Sand"]

async def ticks():
    yield b"tick"
    await asyncio.Event().wait()

@app.get("/endless")
async def endless():
    return StreamingResponse(ticks())

@pytest.mark.timeout(1)
async def test_in_a_body_without_an_end(client):
    await client.get("/endless")

held = []

@pytest.mark.timeout(0.8)
def test_in_the_restore_that_waits_for_a_lock(arena, test_client):
    test_client.post("/dancers/Dune")
    held.append(sqlite3.connect(arena.url.partition("///")[2]))
    held[0].execute("DELETE FROM dancers")

async def test_clean_4(client):
    assert (await client.get("/dancers")).json() == ["Sand"]
"""


def test_a_timeout_by_signal(example: Example) -> None:
    """In an await, in a statement that would never end, in sync code."""
    run = example.with_files(test_it=ALARM).run(*PLUGINS)
    run.expect(status=1, passed=5, failed=4, errors=1).says("client.stream")
    assert run.output.count("from pytest-timeout.") >= 3


SLOW_SCHEMA = """
import threading
from app import Base

calls = []

def create(connection):
    calls.append("a call")
    if len(calls) == 1:
        threading.Event().wait()
    Base.metadata.create_all(connection)
"""

OF_SLOW_SCHEMA = """
import pytest

@pytest.mark.timeout(0.5)
async def test_whose_template_takes_too_long(client):
    await client.get("/dancers")

async def test_that_waits_for_the_template(client):
    assert (await client.get("/dancers")).json() == ["Sand"]
"""


def test_a_timeout_while_a_template_is_built(example: Example) -> None:
    files = example.with_files(schema=SLOW_SCHEMA, test_it=OF_SLOW_SCHEMA)
    run = files.run(*PLUGINS, "-o", "arena_schema=schema:create")
    run.expect(status=1, passed=1, errors=1).says("from pytest-timeout.")
