"""A write in an `except` block, or in a generator that is left, is lost as any other is."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_arena.testing import Example

ROUTES = """

from sqlalchemy import create_engine
from sqlalchemy.orm import sessionmaker

sync_maker = sessionmaker(create_engine("sqlite:///dev.db"))
CACHE = {}


async def get_db():
    async with maker() as session:
        yield session
        await session.commit()


def get_sync_db():
    with sync_maker() as session:
        yield session
        session.commit()


@app.post("/left/async_for")
async def async_for():
    async for session in get_db():
        session.add(Dancer(name="A"))
        await session.flush()
        return "left before its commit"


@app.post("/left/next")
def next_():
    session = next(get_sync_db())
    session.add(Dancer(name="A"))
    session.flush()
    return "the generator is collected"


@app.post("/left/after_commit")
async def after_commit():
    async with maker() as session:
        async with session.begin():
            session.add(Dancer(name="A"))
        session.add(Dancer(name="B"))
        return "the second one is lost"


@app.post("/handled/async_block")
async def async_block():
    try:
        return CACHE["x"]
    except KeyError:
        async with maker() as session:
            session.add(Dancer(name="A"))
            await session.flush()
        return "new"


@app.post("/handled/async_close")
async def async_close():
    try:
        return CACHE["x"]
    except KeyError:
        session = maker()
        session.add(Dancer(name="A"))
        await session.flush()
        await session.close()
        return "new"


@app.post("/handled/block")
def block():
    try:
        return CACHE["x"]
    except KeyError:
        with sync_maker() as session:
            session.add(Dancer(name="A"))
            session.flush()
        return "new"


@app.post("/handled/unflushed")
def unflushed():
    try:
        return CACHE["x"]
    except KeyError:
        session = sync_maker()
        try:
            session.add(Dancer(name="A"))
            return "new"
        finally:
            session.close()


@app.post("/handled/connection")
def connection():
    try:
        return CACHE["x"]
    except KeyError:
        with sync_maker.kw["bind"].connect() as connection:
            connection.execute(Dancer.__table__.insert().values(name="A"))
        return "new"


@app.post("/honest/async_block")
async def honest_async_block():
    try:
        async with maker() as session:
            session.add(Dancer(name="A"))
            await session.flush()
            raise LookupError
    except LookupError:
        return "rolled back by its error"


@app.post("/honest/second_error")
async def second_error():
    try:
        return CACHE["x"]
    except KeyError:
        try:
            async with maker() as session:
                session.add(Dancer(name="A"))
                await session.flush()
                raise LookupError
        except LookupError:
            return "rolled back by a second error"


@app.post("/honest/close")
def honest_close():
    session = sync_maker()
    try:
        session.add(Dancer(name="A"))
        session.flush()
        return CACHE["x"]
    except KeyError:
        session.close()
        return "closed because of its error"


@app.post("/honest/async_close")
async def honest_async_close():
    session = maker()
    try:
        session.add(Dancer(name="A"))
        await session.flush()
        return CACHE["x"]
    except KeyError:
        await session.close()
        return "closed because of its error"


@app.post("/honest/rollback")
async def honest_rollback():
    try:
        return CACHE["x"]
    except KeyError:
        async with maker() as session:
            session.add(Dancer(name="A"))
            await session.flush()
            await session.rollback()
        return "rolled back on purpose"
"""

TESTS = """
import pytest
from app import app

PATHS = [route.path for route in app.routes if route.path.startswith(("/left", "/han", "/hon"))]

@pytest.mark.parametrize("path", PATHS)
async def test_it(client, path):
    assert (await client.post(path)).status_code == 200
"""


def test_writes_that_no_error_undoes_are_named(example: Example) -> None:
    """A rollback by the app's error, or on purpose, accuses nothing."""
    app = example.files["app.py"] + ROUTES
    run = example.with_files(app=app, test_it=TESTS).run("-q").expect(passed=13)
    lost = [line for line in run.output.splitlines() if line.startswith("arena: ")]
    assert len(lost) == 8, run.output
    run.says('session.add(Dancer(name="B"))')
    run.says("POST /left/async_for 200 wrote dancers (1 row) and never committed it: lost")
    run.says("POST /handled/unflushed 200 added Dancer, and never flushed or committed it: lost")
    run.never_says("/honest/")
