"""What a fixture or a test writes outside of requests and never commits is named."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.plugin.shop import HOWS, env_of

if TYPE_CHECKING:
    from pytest_arena.testing import Example

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
FIXTURES = """
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
"""
LOST = (
    FIXTURES
    + """

def test_closed(closed): assert count() == 0
def test_flushed(flushed): assert count() == 0
def test_wide(wide): assert count() == 0
def test_by_the_test(): added()
"""
)


def test_what_a_fixture_never_commits_is_named(example: Example) -> None:
    """Also by a fixture of a module. What a test's function loses is named if it fails."""
    project = example.change("pytest.ini", "arena_seed = seed:seed\n", "")
    run = project.with_files(app=APP, test_lost=LOST).run("-q").expect(passed=4)
    run.says("test_closed: a fixture added Row, and never flushed or committed it: lost")
    run.says("test_flushed: a fixture wrote rows (1 row) and never committed it: lost")
    run.says("module fixture wide wrote rows (1 row) and never committed it: lost")
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


STRICT = (
    FIXTURES
    + """

def test_flushed(flushed): pass
def test_wide(wide): pass
"""
)


@pytest.mark.slow
@pytest.mark.parametrize("how", HOWS)
def test_a_fixture_that_never_commits_fails_its_test_if_the_option_says_so(
    example: Example, how: str
) -> None:
    """On both products."""
    project = example.change("pytest.ini", "arena_seed = seed:seed\n", "arena_lost_writes = fail\n")
    env = env_of(how)
    if env:
        env["DATABASE_URL"] = "postgresql+psycopg://me:s3cret@db.example.org/shop"
    run = project.with_files(app=APP, test_strict=STRICT).run("-q", env=env)
    run.expect(1, passed=1, errors=2)
    run.says("a fixture wrote rows (1 row), and never committed it")
    run.says("module fixture wide wrote rows (1 row), and never committed it")
