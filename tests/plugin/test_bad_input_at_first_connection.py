"""A template that cannot be built: every test fails and says why, none hangs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.example import Example

TESTS = """
from sqlalchemy import text

async def test_async(client):
    await client.get("/dancers")

def test_sync(test_client):
    test_client.get("/dancers")

def test_session(db_session):
    db_session.execute(text("select 1"))

async def test_swallowed(db_session):
    try:
        await db_session.execute(text("select 1"))
    except Exception:
        pass

def test_without():
    pass
"""

SYNC = """
from sqlalchemy import text
def seed(session):
    session.execute(text("insert into nowhere values (1)"))
"""
ASYNC = """
from app import Dancer
async def seed(session):
    session.add_all([Dancer(name="One"), Dancer(name="One")])
    await session.flush()
"""
AT_THE_COMMIT = """
from app import Dancer
async def seed(session):
    session.add_all([Dancer(name="One"), Dancer(name="One")])
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "seed,says",
    [
        pytest.param(SYNC, "seed.py:4 session.execute(text", marks=pytest.mark.slow),
        (ASYNC, "seed.py:5 await session.flush()"),
        pytest.param(AT_THE_COMMIT, "seed.py:3 async def seed(session):", marks=pytest.mark.slow),
    ],
    ids=["sync", "async", "commit"],
)
def test_a_seed_that_fails_is_told_in_full_once(example: Example, seed: str, says: str) -> None:
    """In the builder's own line, with the tests' own lines and nobody else's frames."""
    run = example.with_files(test_seed=TESTS, seed=seed).run()
    run.expect(status=1, failed=4, passed=1).says("arena_seed = seed:seed failed:", says)
    run.never_says("sqlalchemy/", "pytest_arena/_")
    assert run.output.count("arena: where the build failed") == 1
    assert run.output.count("cause: seed.py:") >= 4


CONNECTS_EARLY = """
from contextlib import suppress
from sqlalchemy import text
from app import engine

async def wait_for_database():
    with suppress(Exception):
        async with engine.connect() as connection:
            await connection.execute(text("select 1"))

import asyncio
asyncio.run(wait_for_database())
"""


@pytest.mark.slow
def test_a_build_that_fails_while_conftest_is_imported_is_explained_by_each_test(
    example: Example,
) -> None:
    """The conftest swallows the first error. No test refers to it, because no test has it."""
    project = example.with_files(test_seed=TESTS, seed=SYNC, conftest=CONNECTS_EARLY)
    run = project.run("test_seed.py").expect(status=1, failed=4, passed=1)
    run.never_says("as the first test", "the same as there")
    assert run.output.count("cause: seed.py:4") >= 3


@pytest.mark.slow
def test_a_schema_that_fails_under_xdist_fails_the_tests_of_every_worker(example: Example) -> None:
    """Each process tries, and each says why."""
    project = example.with_files(
        test_seed=TESTS, make="def make(connection):\n    raise RuntimeError('no tables today')\n"
    ).change("pytest.ini", "app:Base", "make:make")
    run = project.run("-p", "xdist.plugin", "-n", "2").expect(status=1, failed=4, passed=1)
    run.says("RuntimeError: no tables today", "make.py:2")


INIT = """
import asyncio
from app import Base, engine, maker, Dancer

async def init_db():
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)

async def seed(session):
    async with maker() as own:
        own.add(Dancer(name="Sand"))
        await own.commit()
"""

CHECKS = """
async def test_async(client):
    assert (await client.get("/dancers")).json() == ["Sand"]
    assert (await client.post("/dancers/Dune")).status_code == 201

def test_sync(test_client):
    assert test_client.get("/dancers").json() == ["Sand"]
"""


def test_an_apps_own_init_db_builds_the_template(example: Example) -> None:
    """It takes no argument and works on the app's own engine, and so does the seed here."""
    project = example.with_files(init=INIT, test_init=CHECKS)
    project = project.change("pytest.ini", "app:Base", "init:init_db")
    run = project.change("pytest.ini", "seed:seed", "init:seed").run().expect(passed=2)
    assert not (run.folder / "dev.db").exists()


RETURNS = """
from app import Base

def metadata():
    return Base.metadata

def tables(connection):
    return Base.metadata
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["metadata", "tables"])
def test_a_function_that_returns_a_metadata_is_told_so(example: Example, name: str) -> None:
    """It has made no table: nobody runs what it returns."""
    project = example.with_files(schema=RETURNS, test_one="def test_one(arena): arena.url")
    project = project.change("pytest.ini", "app:Base", f"schema:{name}")
    run = project.run()
    run.expect(1, failed=1).says(
        f"{name}() returned a MetaData", "name the MetaData in arena_schema"
    )


KEEPING = """
from sqlalchemy import create_engine, text
from app import Base
kept = []

def init():
    connection = create_engine("sqlite:///dev.db").connect()
    kept.append(connection)
    Base.metadata.create_all(connection)
    connection.commit()
"""


@pytest.mark.slow
def test_a_builder_that_keeps_a_connection(example: Example) -> None:
    """It is no leak of the first test; what it has not committed is a failure of the build.

    In the first run, which builds, and in those that would find the template.
    """
    project = example.change("pytest.ini", "app:Base", "keeping:init")
    project = project.with_files(keeping=KEEPING, test_init=CHECKS)
    project.run().expect(passed=2)
    open_still = "    connection.execute(text('delete from dancers'))\n"
    for _ in range(2):
        run = project.with_files(keeping=KEEPING + open_still).run().expect(status=1, failed=2)
        run.says("keeping:init failed: it left a transaction open", "keeping.py:6 def init():")


LOGIN = """
def log_in(client, role):
    client.get("/dancers").raise_for_status()
"""
AS_SAND = """
def test_as_sand(test_client_as):
    test_client_as("Sand").get("/dancers")
"""


@pytest.mark.slow
def test_a_login_that_finds_no_database_does_not_hide_why(example: Example) -> None:
    """It is often the first to ask: the builder's line is told, and nothing of users."""
    config = example.files["pytest.ini"] + "arena_login = fixtures:log_in\n"
    project = example.with_paths({"pytest.ini": config, "seed.py": SYNC, "fixtures.py": LOGIN})
    run = project.with_files(test_it=AS_SAND).run().expect(1, failed=1)
    run.says("TemplateError: arena_seed = seed:seed failed", "seed.py:4 session.execute(text")
    run.never_says("the login as")
