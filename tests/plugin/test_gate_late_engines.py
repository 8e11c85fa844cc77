"""An engine that nobody has made before the app starts: its product is found out, not guessed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from sqlalchemy.engine import make_url

from tests.example import WIDE
from tests.template.test_template_builders import BASE

if TYPE_CHECKING:
    from tests.example import Example

# No URL stands in the code.
APP = """
from contextlib import asynccontextmanager
from pathlib import Path
from fastapi import FastAPI
from sqlalchemy import select
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from models import Dancer

@asynccontextmanager
async def lifespan(app):
    engine = create_async_engine(Path("url").read_text())
    app.state.maker = async_sessionmaker(engine)
    async with app.state.maker() as session:
        session.add(Dancer(name="Host"))
        await session.commit()
    yield
    await engine.dispose()

app = FastAPI(lifespan=lifespan)

@app.get("/dancers")
async def dancers():
    async with app.state.maker() as session:
        return [dancer.name for dancer in await session.scalars(select(Dancer))]

@app.post("/dancers/{name}")
async def add(name: str):
    async with app.state.maker() as session:
        session.add(Dancer(name=name))
        await session.commit()
"""

TESTS = (
    WIDE
    + """
import inspect
import sqlalchemy
from sqlalchemy import func, select

async def value(found):
    return await found if inspect.isawaitable(found) else found

async def test_session(db_session):
    assert await value(db_session.scalar(select(func.count(Dancer.id)))) == 0

def test_session_in_a_sync_test(db_session):
    assert db_session.scalar(select(func.count(Dancer.id))) == 0

async def test_session_and_client(db_session, client):
    db_session.add(Dancer(name="Dune"))
    assert sorted((await client.get("/dancers")).json()) == ["Dune", "Host"]
    await client.post("/dancers/Sand")
    assert await value(db_session.scalar(select(func.count(Dancer.id)))) == 3

def test_session_and_test_client(db_session, test_client):
    db_session.add(Dancer(name="Dune"))
    assert sorted(test_client.get("/dancers").json()) == ["Dune", "Host"]

def test_changes(arena, test_client):
    with arena.expect_changes(ignore=["dancers"]):
        test_client.post("/dancers/Sand")
    assert arena.changes()["dancers"].inserted[-1].after["name"] == "Sand"

def test_wide(wide, test_client):
    assert sorted(test_client.get("/dancers").json()) == ["Host", "Wide"]

def test_url_and_engine(arena):
    assert sqlalchemy.make_url(arena.url).get_backend_name() == arena.engine.dialect.name
"""
)

ORDERS = {
    "sqlite+aiosqlite:///dev.db": ["test_session", "test_session_and_client"],
    "sqlite+aiosqlite:///./dev.db": ["test_wide"],
    "postgresql+asyncpg://me:s3cret@db.example.org/shop": [
        *("test_changes", "test_session_in_a_sync_test"),
        *("test_session_and_test_client", "test_url_and_engine"),
    ],
}


def server() -> dict[str, str]:
    """The server of these tests is found as a developer's is."""
    url = make_url(os.environ["TESTS_POSTGRESQL"])
    return {"PGHOST": str(url.host), "PGPORT": str(url.port), "PGUSER": str(url.username)}


@pytest.mark.parametrize("url", ORDERS)
def test_the_order_of_tests_decides_nothing(example: Example, url: str) -> None:
    """Whatever comes first, session and app are on one database, of the product that it names."""
    project = example.with_files(app=APP, models=BASE, test_it=TESTS).with_paths({"url": url})
    project = project.change("pytest.ini", "app:Base\narena_seed = seed:seed", "models:Base")
    tests = [f"test_it.py::{name}" for name in ORDERS[url]]
    run = project.run("-Werror", "-pno:randomly", *tests, env=server())
    run.expect(passed=len(tests))
    run.says("on SQLite" if "sqlite" in url else "on PostgreSQL").never_says("was not used")
    run.never_says("outside of tests")  # what the start that found the engine wrote is undone
