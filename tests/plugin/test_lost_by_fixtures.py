"""What a fixture or a test writes outside of requests and never commits is named."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.plugin.shop import HOWS, env_of

if TYPE_CHECKING:
    from tests.example import Example

APP = """
import os

from fastapi import FastAPI
from sqlalchemy import create_engine, func, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, sessionmaker

engine = create_engine(os.environ.get("DATABASE_URL", "sqlite:///prod.db"))
maker = sessionmaker(engine)
app = FastAPI()


class Base(DeclarativeBase):
    pass


class Row(Base):
    __tablename__ = "rows"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


def count():
    with maker() as session:
        return session.scalar(select(func.count()).select_from(Row))
"""
LOST = """
import pytest
from app import Row, count, maker


def added(flushes=False):
    with maker() as session:
        session.add(Row(name="a"))
        if flushes:
            session.flush()


@pytest.fixture
def closed():
    added()


@pytest.fixture
def flushed():
    added(flushes=True)


@pytest.fixture(scope="module")
def wide():
    added(flushes=True)


def test_closed(closed): assert count() == 0
def test_flushed(flushed): assert count() == 0
def test_wide(wide): assert count() == 0
def test_by_the_test(): added()
"""


def test_what_a_fixture_never_commits_is_named(example: Example) -> None:
    """Also by a fixture of a module. What a test's function loses is named if it fails."""
    project = example.change("pytest.ini", "arena_seed = seed:seed\n", "")
    run = project.with_files(app=APP, test_lost=LOST).run("-q").expect(passed=4)
    run.warns("a fixture added Row, and never flushed or committed it: lost", "test_closed")
    run.warns("a fixture wrote rows (1 row) and never committed it: lost", "test_flushed")
    run.warns("module fixture wide wrote rows (1 row) and never committed it: lost", "test_wide")
    run.never_says("test_by_the_test")


UNDONE = """
import pytest
from app import Row, count, maker


@pytest.fixture
def session():
    with maker() as session:
        yield session


@pytest.fixture
def closed_late():
    session = maker()
    yield session
    session.close()


@pytest.fixture
def rows(session, closed_late):
    session.add(Row(name="a"))
    session.flush()
    closed_late.add(Row(name="b"))


@pytest.fixture
def handled():
    with pytest.raises(ZeroDivisionError), maker() as session:
        session.add(Row(name="a"))
        session.flush()
        1 / 0


@pytest.fixture
def rolled_back():
    with maker() as session:
        session.add(Row(name="a"))
        session.flush()
        session.rollback()


@pytest.fixture
def committed():
    with maker.begin() as session:
        session.add(Row(name="a"))


def test_undone(rows, session): session.add(Row(name="c"))
def test_others(handled, rolled_back, committed): assert count() == 1
"""


def test_what_a_fixture_undoes_on_purpose_is_not_named(example: Example) -> None:
    """Some suites close a session in a fixture's tear-down, and undo each test so."""
    project = example.change("pytest.ini", "arena_seed = seed:seed\n", "")
    run = project.with_files(app=APP, test_undone=UNDONE).run("-q").expect(passed=2)
    run.never_says("lost", "pending")


ASKED_FOR_LATER = """
import pytest
from app import Dancer, app, get_db
from fastapi import Depends


@app.post("/lost/{name}", status_code=201)
async def lose(name: str, db=Depends(get_db)):
    db.add(Dancer(name=name))
    await db.flush()


def add(arena, name):
    with arena.session() as session:
        session.add(Dancer(name=name))
        session.commit()


@pytest.fixture(scope="module")
def first(arena):
    add(arena, "First")


@pytest.fixture(scope="module")
def wide(arena, request):
    add(arena, "Wide")
    request.getfixturevalue("first")


@pytest.fixture
def narrow(arena, request):
    add(arena, "Narrow")
    request.getfixturevalue("wide")


def test_sync(narrow, test_client):
    assert test_client.post("/lost/Ada").status_code == 201


async def test_async(narrow, client):
    assert (await client.post("/lost/Ada")).status_code == 201


def test_by_itself(arena, request, test_client):
    add(arena, "Narrow")
    request.getfixturevalue("wide")
    assert test_client.post("/lost/Ada").status_code == 201


def test_committed(narrow, test_client):
    assert test_client.post("/dancers/Ada").status_code == 201
    assert test_client.get("/dancers").json() == ["Sand", "Narrow", "Wide", "First", "Ada"]

"""


@pytest.mark.parametrize("how", HOWS)
def test_a_wide_fixture_above_the_test_hides_no_lost_write(example: Example, how: str) -> None:
    """The test has written before it asks for the fixture, so its level is the lower one."""
    project = example.with_files(test_it=ASKED_FOR_LATER)
    run = project.run("-q", "-p", "no:randomly", env=env_of(how)).expect(passed=4)
    lost = "POST /lost/Ada 201 wrote dancers (1 row) and never committed it: lost"
    run.warns(lost, "test_sync", "test_async", "test_by_itself")
