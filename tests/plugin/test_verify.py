"""``--arena-verify``: what an isolation forgets to bring back fails the test that changed it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.plugin.test_postgresql_story import PRODUCTION
from tests.servers.postgresql import URL

if TYPE_CHECKING:
    from tests.example import Example

SERVER = URL.render_as_string(hide_password=False)


def unverified(example: Example) -> Example:
    """Return the example without ``--arena-verify``, with which the suite runs it."""
    return replace(example, options=())


WRITES = """
import pytest
from sqlalchemy import text
from app import Dancer, engine


async def test_writes(client):
    assert (await client.post("/dancers/Bob")).status_code == 201


async def test_starts_as_ever(client):
    assert (await client.get("/dancers")).json() == ["Sand"]


async def test_uses_nothing():
    pass
"""

# A file that is brought back but for one thing. The planted plugin comes before the first test.
COPY_LIES = """
import sqlite3
from pytest_arena._sqlite._copy import Copy

restore = Copy._restore


def lie(self, picture):
    changed = restore(self, picture)
    if changed:
        with sqlite3.connect(self.live) as connection:
            connection.execute({statement!r})
        connection.close()
    return changed


Copy._restore = lie
"""

CLONE_LIES = """
from contextlib import closing
from pytest_arena._postgresql._control import open_control
from pytest_arena._postgresql.isolation import ServerIsolation

restore_copy = ServerIsolation._restore_copy
leave_by_force = ServerIsolation.leave_by_force
lies = True


def lie(self, level):
    restore_copy(self, level)
    if lies:
        with closing(open_control(self.live.address)) as control:
            control.run({statement!r})


def by_force(self):
    global lies
    lies = False  # from here on: another writer's work may call for a further copy
    leave_by_force(self)


ServerIsolation._restore_copy, ServerIsolation.leave_by_force = lie, by_force
"""

LEFT = [
    ("INSERT INTO dancers (name) VALUES ('Left')", "table dancers (2 rows, and had 1 rows)"),
    ("UPDATE dancers SET name = 'Left'", "table dancers"),
    ("DELETE FROM dancers", "table dancers (0 rows, and had 1 rows)"),
    ("CREATE TABLE notes (a int)", "table notes (is new), definition of table notes"),
    ("CREATE INDEX by_name ON dancers (name)", "definition of"),
    ("CREATE VIEW names AS SELECT name FROM dancers", "definition of view names"),
]
A_NUMBER = ("SELECT setval('dancers_id_seq', 70)", "sequence dancers_id_seq")
ON_A_SERVER = [
    *LEFT,
    ("COMMENT ON TABLE dancers IS 'left'", "definition of comments"),
    ("GRANT SELECT ON dancers TO PUBLIC", "definition of table dancers"),
    ("ALTER TABLE dancers ALTER name SET DEFAULT 'left'", "definition of table dancers"),
    ("CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'", "function public.f()"),
    ("SELECT lo_create(0)", "large objects"),
]


def expect_found(project: Example, what: str, isolation: str) -> None:
    """The test that wrote fails, the next one starts as it should."""
    run = project.run("--arena-verify").expect(1, passed=3, errors=1)
    run.says("IsolationError", "is not as it was before", what, "why:", "cause:", "next:", "[A501]")
    run.says(isolation, "ERROR test_it.py::test_writes", "verified ", " times")


@pytest.mark.parametrize(
    "statement, what",
    [LEFT[0], *(pytest.param(*left, marks=pytest.mark.slow) for left in LEFT[1:])],
)
def test_what_copy_would_leave_is_named_and_put_right(
    example: Example, statement: str, what: str
) -> None:
    """By force, which a difference leads to."""
    lies = COPY_LIES.format(statement=statement)
    app = example.change("pytest.ini", "[pytest]", "[pytest]\naddopts = -p liar")
    expect_found(app.with_files(test_it=WRITES, liar=lies), what, "'copy'")


@pytest.mark.slow
@pytest.mark.parametrize(
    "statement, what",
    [A_NUMBER, *(pytest.param(*one, marks=pytest.mark.slow) for one in ON_A_SERVER)],
)
def test_what_clone_would_leave_is_named_and_put_right(
    example: Example, statement: str, what: str
) -> None:
    """By another copy."""
    lies = CLONE_LIES.format(statement=statement)
    options = f"arena_database = {SERVER}\narena_isolation = clone\naddopts = -p liar"
    app = example.change("app.py", "sqlite+aiosqlite:///dev.db", PRODUCTION)
    app = app.change("pytest.ini", "[pytest]", f"[pytest]\n{options}")
    expect_found(app.with_files(test_it=WRITES, liar=lies), what, "'clone'")


@pytest.mark.slow
def test_without_it_nothing_is_read(example: Example) -> None:
    """It is for one run, and says what it cost."""
    project = unverified(example).with_files(test_it=WRITES)
    project.run().expect(passed=3).never_says("verified")
    once = project.run("--arena-verify").expect(passed=3)
    once.says(" times by reading a whole database, which took ")
    workers = project.run("--arena-verify", "-p", "xdist.plugin", "-n", "2").expect(passed=3)
    lines = [line for line in workers.output.splitlines() if line.startswith("verified ")]
    assert len(lines) == 1, lines


UNDO_LIES = """
from pytest_arena._postgresql.journal._journal import Journal

undo = Journal.undo


def lie(self, start):
    Journal.undo = undo
    self._control.run(
        "DELETE FROM pg_arena.j WHERE op = 1 "
        f"AND NOT pg_visible_in_snapshot(x, '{start.snapshot}')"
    )
    return undo(self, start)


Journal.undo = lie
"""

ONE_TEST = """
async def test_writes(client):
    assert (await client.post("/dancers/Bob")).status_code == 201
"""


@pytest.mark.parametrize("options", [pytest.param("", marks=pytest.mark.slow), "-q"])
def test_a_row_that_copy_leaves_fails_the_run(example: Example, options: str) -> None:
    """Without the option, after the last test. No test fails."""
    statement, difference = LEFT[0]
    lies = COPY_LIES.format(statement=statement)
    app = example.change("pytest.ini", "[pytest]", "[pytest]\naddopts = -p liar")
    app = unverified(app.with_files(test_it=ONE_TEST, liar=lies))
    run = app.run(*options.split())
    run.expect(1, passed=1)
    run.says("dev is not as it was before the first test", difference, "pytest --arena-verify")


DROPS = """
import asyncio

from app import Base, engine


async def drop():
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.drop_all)


def pytest_sessionfinish():
    asyncio.run(drop())
"""


def test_a_hook_that_drops_the_tables_after_the_last_test(example: Example) -> None:
    """A suite's own clean-up in ``pytest_sessionfinish`` is no change that a restore missed."""
    run = unverified(example).with_files(test_it=ONE_TEST, conftest=DROPS).run()
    run.expect(0, passed=1)


@pytest.mark.slow
def test_a_row_that_undo_leaves_fails_the_run(example: Example) -> None:
    """Likewise."""
    options = f"arena_database = {SERVER}\narena_isolation = undo\naddopts = -p liar"
    app = example.change("app.py", "sqlite+aiosqlite:///dev.db", PRODUCTION)
    app = app.change("pytest.ini", "[pytest]", f"[pytest]\n{options}")
    run = unverified(app).with_files(test_it=ONE_TEST, liar=UNDO_LIES).run()
    run.expect(1, passed=1)
    run.says("is not as it was before the first test", "table dancers (2 rows, and had 1 rows)")


ON_A_WIDE_LEVEL = """
import pytest
from app import Dancer


@pytest.fixture(scope="module")
def crew(arena):
    with arena.session() as session:
        session.add(Dancer(name="Crew"))
        session.commit()


async def test_writes(crew, client):
    assert (await client.post("/dancers/Bob")).status_code == 201


async def test_starts_as_ever(crew, client):
    assert (await client.get("/dancers")).json() == ["Sand", "Crew"]


async def test_uses_nothing(crew):
    pass
"""


@pytest.mark.parametrize(
    "story",
    [pytest.param(WRITES, marks=pytest.mark.slow), ON_A_WIDE_LEVEL],
    ids=["a test's", "on a wide level"],
)
def test_what_undo_would_leave_is_named_and_put_right(example: Example, story: str) -> None:
    """By a copy of the template, with the rows of wider fixtures."""
    options = f"arena_database = {SERVER}\narena_isolation = undo\naddopts = -p liar"
    app = example.change("app.py", "sqlite+aiosqlite:///dev.db", PRODUCTION)
    app = app.change("pytest.ini", "[pytest]", f"[pytest]\n{options}")
    expect_found(app.with_files(test_it=story, liar=UNDO_LIES), "table dancers (", "'undo'")
