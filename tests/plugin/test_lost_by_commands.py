"""A command or a job of the app that forgets its commit is named, also if the test passes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.plugin.shop import HOWS, env_of
from tests.plugin.test_lost_by_fixtures import APP

if TYPE_CHECKING:
    from tests.example import Example

JOBS = """
import asyncio
import contextlib

from app import Row, engine, maker
from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

ASYNC = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+psycopg"}


def flushes():
    with maker() as session:
        session.add(Row(name="a"))
        session.flush()
        print("added")


def adds():
    with maker() as session:
        session.add(Row(name="a"))


def changes():
    with maker() as session:
        session.query(Row).first().name = "b"


def executes():
    with engine.connect() as connection:
        connection.execute(insert(Row).values(name="a"))


@contextlib.contextmanager
def scope():
    session = maker()
    try:
        yield session
    finally:
        session.close()


def in_scope():
    with scope() as session:
        session.add(Row(name="a"))
        session.flush()


async_engine = create_async_engine(engine.url.set(drivername=ASYNC[engine.dialect.name]))


async def in_a_loop():
    async with AsyncSession(async_engine) as session:
        session.add(Row(name="a"))
        await session.flush()
    await async_engine.dispose()


def runs_a_loop():
    asyncio.run(in_a_loop())


def rolls_back():
    with maker() as session:
        session.add(Row(name="a"))
        session.flush()
        session.rollback()


def raises():
    with maker() as session:
        session.add(Row(name="a"))
        session.flush()
        raise SystemExit(1)


def begins():
    with maker.begin() as session:
        session.add(Row(name="a"))


def begins_and_raises():
    with contextlib.suppress(KeyError), maker.begin() as session:
        session.add(Row(name="a"))
        session.flush()
        raise KeyError


def adds_to(session):
    session.add(Row(name="a"))
    session.flush()


class Unit:
    def open(self):
        self.session = maker()

    def close(self):
        self.session.close()

    def __enter__(self):
        self.open()
        return self.session

    def __exit__(self, *_):
        self.close()
"""

LOST = """
import jobs
import pytest
from app import count, maker, Row

def test_flushes(capsys):
    jobs.flushes()
    assert capsys.readouterr().out == "added\\n"

def test_adds(): jobs.adds()
def test_executes(): jobs.executes()
def test_in_scope(): jobs.in_scope()
def test_runs_a_loop(): jobs.runs_a_loop()

def test_changes():
    jobs.begins()
    jobs.changes()

def test_before_a_query():
    jobs.flushes()
    assert count() == 0

@pytest.mark.arena
def test_before_a_request(test_client):
    jobs.adds()
    assert test_client.get("/missing").status_code == 404
"""

KEPT = """
import jobs
import pytest
from app import Row, count, maker

@pytest.fixture
def session():
    with maker() as session:
        yield session

def test_rolls_back(): jobs.rolls_back()
def test_begins(): jobs.begins()
def test_begins_and_raises(): jobs.begins_and_raises()

def test_raises():
    with pytest.raises(SystemExit):
        jobs.raises()

def test_by_a_session_of_the_test():
    with maker() as session:
        jobs.adds_to(session)
        assert session.query(Row).count() == 1

def test_by_a_session_of_a_fixture(session):
    jobs.adds_to(session)
    assert session.query(Row).count() == 1

def test_in_a_scope_of_the_app():
    with jobs.scope() as session:
        jobs.adds_to(session)
        assert session.query(Row).count() == 1

def test_in_a_unit_of_the_app():
    unit = jobs.Unit()
    unit.open()
    jobs.adds_to(unit.session)
    unit.close()

def test_an_object_in_a_scope_of_the_app():
    with jobs.scope() as session:
        session.add(Row(name="a"))

def test_an_object_in_a_block_of_the_app():
    jobs.begins()
    with jobs.Unit() as session:
        session.query(Row).one().name = "b"

def called(function):
    return function()

def test_in_a_unit_of_the_app_by_calls_of_a_helper():
    unit = jobs.Unit()
    called(unit.open)
    called(lambda: jobs.adds_to(unit.session))
    called(unit.close)

def test_in_a_transaction_that_is_undone(monkeypatch):
    with jobs.engine.connect() as connection:
        outer = connection.begin()
        session = jobs.maker(bind=connection, join_transaction_mode="create_savepoint")
        monkeypatch.setattr(jobs, "maker", lambda: session)
        jobs.flushes()
        outer.rollback()
"""


@pytest.mark.parametrize("how", HOWS)
def test_a_command_that_forgets_its_commit_is_named(example: Example, how: str) -> None:
    """It writes in a session that it opens and closes itself. The test passes, and is named."""
    project = example.change("pytest.ini", "arena_seed = seed:seed\n", "")
    project = project.with_files(app=APP, jobs=JOBS, test_lost=LOST)
    env = env_of(how)
    if how != "copy":
        env["DATABASE_URL"] = env["DATABASE_URL"].replace("asyncpg", "psycopg")
    run = project.run("-q", env=env).expect(passed=8)
    wrote = (
        "code that the test called wrote rows (1 row) and never committed it: lost cause: jobs.py:"
    )
    added = "code that the test called added Row, and never flushed or committed it: lost"
    run.says(wrote, added, "code that the test called changed Row")
    run.says("test_flushes", "test_executes", "test_in_scope", "test_adds", "test_runs_a_loop")
    run.says("test_before_a_query", "test_before_a_request")


def test_what_a_command_or_its_test_undoes_on_purpose_is_not_named(example: Example) -> None:
    """Nor a write in a session that the test, or a unit of work, has open over several calls."""
    project = example.change("pytest.ini", "arena_seed = seed:seed\n", "")
    project = project.with_files(app=APP, jobs=JOBS, test_kept=KEPT)
    run = project.run("-q", "-Werror::pytest_arena.LostWriteWarning").expect(passed=12)
    run.never_says("lost")
