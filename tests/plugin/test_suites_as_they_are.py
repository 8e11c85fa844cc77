"""Suites that were written without arena keep working unchanged: P3's second half.

Each suite is run three times: with the plugin off, with it on and nothing configured, and with the
app and its schema named, as on the first day of a move to arena. One of them cannot do without the
schema: its tables are a leak that P2 ends.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from textwrap import dedent
from typing import TYPE_CHECKING

import pytest

from tests.example import Example
from tests.parameters import slow_except
from tests.plugin.suites import (
    engine_per_test,
    global_factory,
    memory_engines,
    shared_session,
    tables_after_collection,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

# One warning is let through: by its name, pytest takes a suite's `test_session_maker` for a test.
CONFIG = """
[pytest]
asyncio_mode = auto
asyncio_default_fixture_loop_scope = function
filterwarnings =
    error
    ignore:cannot collect 'test_session_maker'
pythonpath = .
"""


@dataclass(frozen=True, slots=True)
class Suite:
    """A project with its own conftest, how many of its tests pass, and what names its app."""

    files: Mapping[str, str]
    tests: int
    app: str
    schema: str


SUITES = {
    "overrides with one shared session": Suite(
        shared_session.FILES, shared_session.TESTS, "app.main:app", "app.db.database:Base"
    ),
    "an engine per test in tmp_path": Suite(
        engine_per_test.FILES, engine_per_test.TESTS, "api.main:app", "src.models.database:Base"
    ),
    "engines in memory": Suite(memory_engines.FILES, memory_engines.TESTS, "app:app", "app:Base"),
    "tables made after collection": Suite(
        tables_after_collection.FILES, tables_after_collection.TESTS, "app:app", "app:Base"
    ),
    "a global factory made for every test": Suite(
        global_factory.EVERY_TEST, global_factory.TESTS, "app.main:app", "app.database:Base"
    ),
}

USUAL = (
    "overrides with one shared session",
    "an engine per test in tmp_path",
    "a global factory made for every test",
)
FLAG = Suite(global_factory.FLAG, global_factory.TESTS, "app.main:app", "app.database:Base")


@pytest.fixture(
    params=slow_except(SUITES.values(), *(SUITES[name] for name in USUAL)), ids=[*SUITES]
)
def suite(request: pytest.FixtureRequest) -> Suite:
    """One suite after the other."""
    found: Suite = request.param
    return found


def in_folder(folder: Path, suite: Suite, *config: str) -> Example:
    """Return the suite as a project, with more lines of configuration."""
    lines = "\n".join((*config, ""))
    return Example(folder / "project", {**suite.files, "pytest.ini": CONFIG + lines})


@pytest.mark.slow
def test_suite_passes_without_the_plugin(tmp_path: Path, suite: Suite) -> None:
    """The suite is right by itself: what follows says something about the plugin."""
    in_folder(tmp_path, suite).run(plugin=False).expect(passed=suite.tests)


def test_suite_passes_with_the_plugin_and_nothing_configured(tmp_path: Path, suite: Suite) -> None:
    """Installing arena breaks nothing, and nothing outside the suite's own files is written."""
    run = in_folder(tmp_path, suite).run()
    run.expect(passed=suite.tests).never_says("refused", "left app.dependency_overrides")
    assert databases_in(run.folder) == []


@pytest.mark.slow
def test_suite_passes_with_its_app_and_schema_named(tmp_path: Path, suite: Suite) -> None:
    """Its own `db_session`, `client` and `test_client` win over the plugin's."""
    options = (f"arena_app = {suite.app}", f"arena_schema = {suite.schema}")
    run = in_folder(tmp_path, suite, *options).run()
    run.expect(passed=suite.tests).never_says("refused", "left app.dependency_overrides")
    assert databases_in(run.folder) == []


@pytest.mark.slow
def test_flag_suite_passes_without_the_plugin(tmp_path: Path) -> None:
    """Its first test makes the tables, and the others find them: they leak."""
    in_folder(tmp_path, FLAG).run(plugin=False).expect(passed=FLAG.tests)


@pytest.mark.slow
def test_flag_suite_passes_with_its_schema_named(tmp_path: Path) -> None:
    """The tables are there before the first test, and every test finds them."""
    options = (f"arena_app = {FLAG.app}", f"arena_schema = {FLAG.schema}")
    run = in_folder(tmp_path, FLAG, *options).run()
    run.expect(passed=FLAG.tests).never_says("refused")
    assert databases_in(run.folder) == []


@pytest.mark.slow
def test_flag_suite_without_its_schema_has_tables_in_one_test_only(tmp_path: Path) -> None:
    """Where P2 and P3 meet, P2 wins: tables that a test made for all others end with it."""
    run = in_folder(tmp_path, FLAG).run()
    run.expect(status=1, passed=1, errors=FLAG.tests - 1).says("no such table: api_keys")


MEMORY_CONFTEST = """
import pytest
from httpx import ASGITransport, AsyncClient
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.pool import StaticPool
from app import Base, app, get_db

engine = create_async_engine("sqlite+aiosqlite://", poolclass=StaticPool)
session_maker = async_sessionmaker(engine, expire_on_commit=False)


@pytest.fixture
async def session():
    async with session_maker() as session:
        yield session


@pytest.fixture
async def client(session):
    app.dependency_overrides[get_db] = lambda: session
    async with AsyncClient(transport=ASGITransport(app), base_url="http://test") as client:
        yield client
    app.dependency_overrides.clear()
"""

MAKES_TABLES = """

@pytest.fixture(autouse=True)
async def tables():
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    yield
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.drop_all)
    await engine.dispose()
"""

TEST_MEMORY = """
async def test_a_dancer(client):
    assert (await client.post("/dancers/Ruby")).status_code == 201
    assert (await client.get("/dancers")).json() == ["Ruby"]


async def test_no_other_dancer(client):
    assert (await client.get("/dancers")).json() == []
"""

PRINTED = re.compile(r"starts with the tables:\n(?P<lines>( {4}.*\n)+)")


@pytest.mark.slow
def test_the_printed_schema_of_an_engine_in_memory_replaces_its_create_all(
    example: Example,
) -> None:
    """Each step of the page "Move an existing suite to pytest-arena" is green."""
    suite = example.with_paths(
        {
            "pytest.ini": CONFIG,
            "tests/conftest.py": MEMORY_CONFTEST + MAKES_TABLES,
            "tests/test_memory.py": TEST_MEMORY,
        }
    )
    run = suite.run("-p", "no:randomly").expect(passed=2)
    printed = PRINTED.search(run.output)
    assert printed is not None, run.output
    lines = dedent(printed["lines"])
    assert lines == "arena_schema =\n    memory = app:Base\n"
    with_schema = suite.with_paths({"pytest.ini": CONFIG + lines})
    without_tables = with_schema.with_paths({"tests/conftest.py": MEMORY_CONFTEST})
    for step in (with_schema, without_tables):
        run = step.run("-p", "no:randomly").expect(passed=2)
        run.never_says("no engine used it", "starts with the tables", "no template")


@pytest.mark.slow
def test_a_schema_of_another_database_than_the_one_in_memory_is_not_its_template(
    example: Example,
) -> None:
    """The summary names the line that is missing."""
    suite = example.with_paths(
        {
            "pytest.ini": f"{CONFIG}arena_schema = app:Base\n",
            "tests/conftest.py": MEMORY_CONFTEST + MAKES_TABLES,
            "tests/test_memory.py": TEST_MEMORY,
        }
    )
    run = suite.run("-p", "no:randomly").expect(passed=2)
    run.says("no template: the database starts empty", "memory = app:Base")
    run.never_says("template from the cache", "template built")


def databases_in(folder: Path) -> list[str]:
    """Return the database files of a project: the developer's, who has none here."""
    return [path.name for path in folder.rglob("*.db")]
