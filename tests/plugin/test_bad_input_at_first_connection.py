"""A template that cannot be built: every test fails and says why, none hangs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.plugin.private_server import on_postgresql

if TYPE_CHECKING:
    from tests.example import Example

TESTS = """
from contextlib import suppress
from app import Dancer
from sqlalchemy import text

async def test_async(client, db_session):
    db_session.add(Dancer(name="Dune"))
    await client.get("/dancers")

def test_sync(test_client):
    test_client.get("/dancers")

def test_session(db_session):
    db_session.execute(text("select 1"))

async def test_swallowed(db_session):
    with suppress(Exception):
        await db_session.execute(text("select 1"))

def test_without(): ...
"""

ASYNC = """
from app import Dancer
async def seed(session):
    session.add_all([Dancer(name="One"), Dancer(name="One")])
    await session.flush()
"""


def test_a_seed_that_fails_is_told_in_full_once(example: Example) -> None:
    """In the builder's own line, with the tests' own lines and nobody else's frames."""
    run = example.with_files(test_seed=TESTS, seed=ASYNC).run()
    run.expect(status=1, failed=4, passed=1).says(
        "arena_seed = seed:seed failed:", "seed.py:5 await session.flush()"
    )
    run.never_says("sqlalchemy/", "pytest_arena/_", "db_session.flush()")
    assert run.output.count("arena: where the build failed") == 1
    assert run.output.count("cause: seed.py:") == 1
    assert run.output.count("next:  see test_seed.py::test_async\n") == 3
    seed = "import os\n\ndef seed(session):\n    os.environ['K']\n"
    run = example.with_files(test_seed=TESTS, seed=seed).run().expect(1, failed=4, passed=1)
    assert run.output.count("os.environ['K'] = ") == 1


def test_a_seed_for_which_the_tables_lack_a_column(example: Example) -> None:
    project = example.with_paths({"schema.sql": "CREATE TABLE dancers (id integer PRIMARY KEY);"})
    project = project.change("pytest.ini", "app:Base", "schema.sql").with_files(test_init=CHECKS)
    run = project.run().expect(1, failed=2)
    run.says("the commit after seed.py:", "a migration").never_says("had a separate database")


def test_no_engine_is_known(example: Example) -> None:
    """The next step works for each app."""
    test = "def test_it(arena):\n    print(arena.url)\n"
    run = example.with_paths({"pytest.ini": "[pytest]\n", "test_it.py": test}).run()
    run.expect(1, failed=1).says("no engine is known", "next:  arena_database = postgresql")


INIT = """
import asyncio
from app import Base, engine, maker, Dancer

async def init_db():
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)

def migrate(): asyncio.run(init_db())

async def seed(session):
    async with maker.begin() as own:
        own.add(Dancer(name="Sand"))
"""

CHECKS = """
async def test_async(client):
    assert (await client.get("/dancers")).json() == ["Sand"]
    assert (await client.post("/dancers/Dune")).status_code == 201

def test_sync(test_client):
    assert test_client.get("/dancers").json() == ["Sand"]
"""


@pytest.mark.parametrize("function", ["init_db", "migrate"])
def test_an_apps_own_init_db_builds_the_template(example: Example, function: str) -> None:
    """It takes no argument and works on the app's own engine, and so does the seed here."""
    project = on_postgresql(example, init=INIT, test_init=CHECKS)
    project = project.change("pytest.ini", "app:Base", f"init:{function}")
    project.change("pytest.ini", "seed:seed", "init:seed").run().expect(passed=2)


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


def test_a_builder_that_keeps_a_connection(example: Example) -> None:
    """It is no leak of the first test. Uncommitted rows are a failure of the build in each run."""
    project = example.change("pytest.ini", "app:Base", "keeping:init")
    project = project.with_files(keeping=KEEPING, test_init=CHECKS)
    project.run().expect(passed=2)
    open_still = "    connection.execute(text('delete from dancers'))\n"
    for _ in range(2):
        run = project.with_files(keeping=KEEPING + open_still).run().expect(status=1, failed=2)
        run.says("keeping:init failed: it left a transaction open", "keeping.py:6 def init():")


@pytest.mark.parametrize(
    "line, says",
    [("create = app", "what create_app() returns"), ("os.environ['K']", "next: os.environ['K'] =")],
)
def test_a_factory_that_returns_no_app(example: Example, line: str, says: str) -> None:
    """The error names the line of the factory, and not the missing app."""
    factory = f"\n\ndef create_app():\n    {line}\n"
    project = example.change("pytest.ini", "app:app", "app:create_app")
    project = project.change("app.py", "    return name\n", f"    return name\n{factory}")
    run = project.with_files(test_it=TESTS).run("-k", "test_async")
    run.expect(1, errors=1).says(says, "def create_app():")


def test_an_app_of_a_test_in_a_lifespan_of_the_session(example: Example) -> None:
    own = "import pytest\n\n@pytest.fixture\ndef arena_app(arena_app):\n    return arena_app\n"
    project = example.with_files(conftest=own, test_it="def test_it(test_client): ...\n")
    run = project.run("-oarena_lifespan=session").expect(1, errors=1)
    run.says('next: @pytest.fixture(scope="session")').never_says('scope "function"')


BROKEN = """
import pytest_asyncio

@pytest_asyncio.fixture
async def broken():
    raise LookupError
"""
MISTAKES = """
def test_broken(broken): ...
async def test_async(): ...
def test_sync(): test_async().status_code
"""


def test_a_test_or_a_call_that_is_not_awaited_has_a_hint(example: Example) -> None:
    """The traceback of a failed fixture has no line of pytest-arena."""
    run = example.with_files(conftest=BROKEN, test_it=MISTAKES).run("-o", "asyncio_mode=strict")
    run.expect(1, failed=2, errors=1).says("asyncio_mode = auto", "next: `await` the call")
    run.never_says("_hooks.py", "entries are hidden")
