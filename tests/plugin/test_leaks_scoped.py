"""Sessions that live on in a registry: a `scoped_session`, an async one, a thread-local."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.plugin.developer import small_example

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_arena.testing import Run

# A factory as factory_boy's documentation has it, by what it does: add, and flush.
SCOPED = """
import threading
import pytest
from sqlalchemy import select
from sqlalchemy.orm import scoped_session, sessionmaker
from app import Dancer, add, engine, names

Session = scoped_session(sessionmaker(engine))

def create(name):
    dancer = Dancer(name=name)
    Session.add(dancer)
    Session.flush()
    return dancer

def query():
    return sorted(dancer.name for dancer in Session.query(Dancer))

KEPT = []

def test_1_flushes():
    KEPT.append(create("left"))
    assert query() == ["left"]

def test_2_reads():
    assert query() == []

def test_3_reads_again_and_others_write():
    add(engine, "other")
    assert query() == ["other"]

def test_4_commits():
    KEPT.append(create("committed"))
    Session.commit()
    assert names(engine) == ["committed"]
    assert query() == ["committed"]

def test_5_flushes_again():
    assert Session.get(Dancer, "committed") is None
    create("left")

def test_6_cleans_up():
    create("left")
    Session.remove()

def test_7_is_green():
    assert names(engine) == []
"""

THREAD_LOCAL = """
import threading
from sqlalchemy.orm import sessionmaker
from app import Dancer, engine, names

maker, local = sessionmaker(engine), threading.local()

def session():
    if not hasattr(local, "session"):
        local.session = maker()
    return local.session

def test_1_flushes():
    session().add(Dancer(name="left"))
    session().flush()

def test_2_reads():
    assert session().query(Dancer).all() == []

def test_3_cleans_up():
    assert session().query(Dancer).all() == []
    session().add(Dancer(name="left"))
    session().commit()
    session().close()
"""

ASYNC_SCOPED = """
import asyncio
from sqlalchemy import select
from sqlalchemy.ext.asyncio import (
    AsyncSession, async_scoped_session, async_sessionmaker, create_async_engine
)
from app import Dancer, anames, engine

aengine = create_async_engine(engine.url.set(drivername=DRIVER))
Session = async_scoped_session(async_sessionmaker(aengine), scopefunc=lambda: "all")

async def query():
    return sorted(dancer.name for dancer in await Session.scalars(select(Dancer)))

async def test_1_flushes():
    Session.add(Dancer(name="left"))
    await Session.flush()
    assert await query() == ["left"]

async def test_2_reads():
    assert await query() == []

async def test_3_reads_again():
    assert await query() == []

async def test_4_cleans_up():
    Session.add(Dancer(name="left"))
    await Session.commit()
    assert await anames(aengine) == ["left"]
    await Session.remove()

async def test_5_is_green():
    assert await anames(aengine) == []
"""

WIDE = """
import pytest
from sqlalchemy.orm import scoped_session, sessionmaker
from app import Dancer, add, engine, names

Session = scoped_session(sessionmaker(engine))

@pytest.fixture(scope="module", autouse=True)
def crew():
    Session.add(Dancer(name="crew"))
    Session.commit()

def query():
    return sorted(dancer.name for dancer in Session.query(Dancer))

@pytest.mark.parametrize("turn", range(3))
def test_reads_and_others_write(turn):
    assert query() == ["crew"]
    add(engine, f"other {turn}")
    assert query() == ["crew", f"other {turn}"]
"""

TOLD = "in a fixture's tear-down; of a scoped_session: Session.remove()"
ISOLATIONS = ["copy", "undo", pytest.param("clone", marks=pytest.mark.slow)]
LATER = [pytest.param(each, marks=pytest.mark.slow) for each in ("copy", "clone")]
SERVER = "postgresql+psycopg://me:s3cret@db.example.org/shop"


def run_of(folder: Path, isolation: str, tests: str) -> Run:
    """Run these tests on a file, or on a server."""
    is_file = isolation == "copy"
    driver = "sqlite+aiosqlite" if is_file else "postgresql+asyncpg"
    project = small_example(folder, test_it=tests.replace("DRIVER", repr(driver)))
    project = project.change(
        "app.py", "sqlite:///dev.db", "sqlite:///dev.db" if is_file else SERVER
    )
    env = {} if is_file else {"ARENA_DATABASE": os.environ["TESTS_POSTGRESQL"]}
    more = {"ARENA_VERIFY": "1", "ARENA_ISOLATION": isolation}
    return project.run("-p", "no:randomly", env={**env, **more})


@pytest.mark.parametrize("isolation", ISOLATIONS)
def test_a_scoped_session_that_is_left_open_is_told_in_each_test_pitfall_146(
    tmp_path: Path, isolation: str
) -> None:
    """Only those that leave it are red, and the next one finds nothing of it."""
    run = run_of(tmp_path, isolation, SCOPED).expect(1, passed=7, errors=5)
    run.says("ConnectionLeak: the test ended with an open transaction", TOLD)
    run.never_says("PendingRollbackError", "StatementError")


@pytest.mark.parametrize("isolation", ["undo", *LATER])
def test_an_async_scoped_session_pitfall_147(tmp_path: Path, isolation: str) -> None:
    """What closes it has no loop; it asks nobody, as its connection is gone by then."""
    run_of(tmp_path, isolation, ASYNC_SCOPED).expect(1, passed=5, errors=3).says(TOLD)


@pytest.mark.parametrize("isolation", ["undo", *LATER])
def test_a_session_in_a_thread_local_pitfall_147(tmp_path: Path, isolation: str) -> None:
    """No registry of SQLAlchemy's knows it."""
    run_of(tmp_path, isolation, THREAD_LOCAL).expect(1, passed=3, errors=2).says(TOLD)


@pytest.mark.parametrize("isolation", ["clone", pytest.param("undo", marks=pytest.mark.slow)])
def test_a_scoped_session_of_a_wide_fixture_goes_on_pitfall_146(
    tmp_path: Path, isolation: str
) -> None:
    """It has only read in the test: in the next one it is on that one's database."""
    run_of(tmp_path, isolation, WIDE).expect(passed=3).never_says("a fixture holds a connection")
