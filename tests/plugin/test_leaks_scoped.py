"""Sessions that live on in a registry: a `scoped_session`, an async one, a thread-local."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.plugin.developer import small_example

if TYPE_CHECKING:
    from pathlib import Path

    from tests.example import Run

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

# Factories only add, as is factory_boy's default: no session is on a connection.
PENDING = """
import factory
import pytest
from sqlalchemy.orm import scoped_session, sessionmaker
from app import Dancer, engine, names

Session = scoped_session(sessionmaker(engine, expire_on_commit=False, close_resets_only=False))
KEPT = []

class DancerFactory(factory.alchemy.SQLAlchemyModelFactory):
    class Meta:
        model = Dancer
        sqlalchemy_session = Session

def query():
    with Session.begin():
        return sorted(dancer.name for dancer in Session.query(Dancer))

def test_1_leaves_what_it_made():
    DancerFactory(name="left")
    assert names(engine) == []

def test_2_finds_nothing_of_it():
    assert query() == []

def test_3_leaves_two():
    KEPT.extend(DancerFactory.create_batch(2, name="left"))

def test_4_leaves_what_it_has_committed():
    KEPT.append(DancerFactory(name="left"))
    Session.commit()

def test_5_reads_none_of_that():
    with Session.begin():
        assert Session.get(Dancer, "left") is None

def test_6_asks_too_early():
    DancerFactory(name="never written")
    assert names(engine) == ["never written"]

def test_7_changes_what_it_has_read():
    KEPT.append(DancerFactory(name="left"))
    Session.commit()
    KEPT[-1].name = "changed"

def test_8_leaves_a_transaction():
    DancerFactory(name="flushed")
    Session.flush()

def test_9_cleans_up():
    assert query() == []
    DancerFactory(name="left")
    Session.remove()
"""

ASYNC_PENDING = """
from sqlalchemy import select
from sqlalchemy.ext.asyncio import async_scoped_session, async_sessionmaker, create_async_engine
from app import Dancer, engine

aengine = create_async_engine(engine.url.set(drivername=DRIVER))
Session = async_scoped_session(async_sessionmaker(aengine), scopefunc=lambda: "all")

async def test_1_leaves_what_it_made():
    Session.add(Dancer(name="left"))

async def test_2_finds_nothing_of_it():
    async with Session.begin():
        assert (await Session.scalars(select(Dancer))).all() == []

async def test_3_asks_too_early():
    Session.add(Dancer(name="never written"))
    assert not Session.new
"""

# Once for a wider fixture's session, whose instances stay, once for its thread, that is at work.
WIDE_PENDING = """
import threading
import pytest
from sqlalchemy.orm import scoped_session, sessionmaker
from app import Dancer, engine, names

Session = scoped_session(sessionmaker(engine))
begin, added, go_on = [threading.Event() for _ in range(3)]

def work():
    begin.wait()
    with sessionmaker(engine)() as session:
        session.add(Dancer(name="worker"))
        added.set()
        go_on.wait()
        session.commit()

@pytest.fixture(scope="module", autouse=True)
def crew():
    crew = Dancer(name="crew")
    Session.add(crew)
    Session.commit()
    Session.add(Dancer(name="the fixture's own"))
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    yield crew, thread
    Session.remove()

def test_1_leaves_what_it_made(crew):
    Session.add(Dancer(name="left"))
    begin.set()
    added.wait()

def test_2_finds_what_the_fixture_has_made(crew):
    assert [dancer.name for dancer in Session.new] == ["the fixture's own"]
    assert crew[0] in Session
    go_on.set()
    crew[1].join()
    assert names(engine) == ["crew", "worker"]
"""

# An instance is not known by its place in memory, which another one may have when it is gone.
SAME_PLACE = """
import pytest
from sqlalchemy.orm import scoped_session, sessionmaker
from app import Dancer, engine

Session = scoped_session(sessionmaker(engine))
KEPT = []

@pytest.fixture(scope="module", autouse=True)
def crew():
    KEPT.extend(Dancer(name=f"crew {number}") for number in range(200))
    Session.add_all(KEPT)
    Session.commit()
    yield
    Session.remove()

def test_1_leaves_another_in_the_same_place():
    places, made = set(map(id, KEPT)), []
    while not made or id(made[-1]) not in places:
        KEPT.pop()  # one goes, and the next one is likely to stand where it stood
        made.append(Dancer(name="left"))
    Session.add(made[-1])

def test_2_finds_nothing_of_it():
    assert not Session.new
"""

# What the test holds when its wide fixture is set up at last is the test's all the same.
LATE = """
import pytest
from sqlalchemy.orm import Session, scoped_session, sessionmaker
from app import Dancer, engine

Scoped = scoped_session(sessionmaker(engine))
FIRST, KEPT = Dancer(name="the first fixture's"), []

@pytest.fixture(scope="module", autouse=True)
def first():
    Scoped.add(FIRST)
    yield
    Scoped.remove()

@pytest.fixture(scope="module")
def late():
    Scoped.add(Dancer(name="of a late one"))

def test_1_leaves_what_it_made(request):
    KEPT.append(Session(engine))
    KEPT[-1].add(Dancer(name="left"))
    Scoped.add(Dancer(name="left"))
    request.getfixturevalue("late")

def test_2_finds_what_the_fixtures_have_made(late):
    assert not KEPT[-1].new
    assert {dancer.name for dancer in Scoped.new} == {"the first fixture's", "of a late one"}

def test_3_leaves_a_connection(request):
    KEPT.append(Session(engine))
    KEPT[-1].connection()
    request.getfixturevalue("later")

@pytest.fixture(scope="module")
def later(): ...

def test_4_leaves_a_transaction(request):
    KEPT.append(Session(engine))
    KEPT[-1].add(Dancer(name="left"))
    KEPT[-1].flush()
    request.getfixturevalue("latest")

@pytest.fixture(scope="module")
def latest(): ...
"""

# The test has written before it asks for the fixture, so the fixture's level is above its own.
OF_A_FIXTURE_ABOVE = """
import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session
from app import Dancer, add, engine

@pytest.fixture(scope="module")
def wide():
    with Session(engine) as session:
        session.add(Dancer(name="wide"))
        session.commit()
        yield session

@pytest.fixture
def rows(request):
    add(engine, "narrow")
    return request.getfixturevalue("wide")

@pytest.mark.parametrize("turn", [1, 2])
def test_reads(rows, turn):
    assert sorted(rows.scalars(select(Dancer.name))) == ["narrow", "wide"]
"""

LOCAL = """
from sqlalchemy.orm import Session
from app import Dancer, engine, names

def test_1_drops_a_session():
    Session(engine).add(Dancer(name="left"))
"""

TOLD = "in a fixture's tear-down. For a scoped_session: Session.remove()"
ISOLATIONS = [
    "copy",
    pytest.param("undo", marks=pytest.mark.slow),
    pytest.param("clone", marks=pytest.mark.slow),
]
LATER = [pytest.param(each, marks=pytest.mark.slow) for each in ("copy", "clone")]
LIVES_ON = "pending in a session that outlives the test"
NOT_COMMITTED = "    the test or its fixture added Dancer and did not commit it: "
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
    more = {"PYTEST_ADDOPTS": f"--arena-verify --arena-isolation={isolation}"}
    return project.run("-p", "no:randomly", env={**env, **more})


@pytest.mark.parametrize("isolation", ISOLATIONS)
def test_a_scoped_session_that_is_left_open_is_told_in_each_test_pitfall_146(
    tmp_path: Path, isolation: str
) -> None:
    """Only those that leave it are red, and the next one finds nothing of it."""
    run = run_of(tmp_path, isolation, SCOPED).expect(1, passed=7, errors=2)
    run.says("ConnectionLeak: the test ended with an open transaction", TOLD)
    run.never_says("PendingRollbackError", "StatementError")


@pytest.mark.slow
@pytest.mark.parametrize("isolation", ["undo", *LATER])
def test_an_async_scoped_session_pitfall_147(tmp_path: Path, isolation: str) -> None:
    """What closes it has no loop; it asks nobody, as its connection is gone by then."""
    run_of(tmp_path, isolation, ASYNC_SCOPED).expect(1, passed=5, errors=1).says(TOLD)


@pytest.mark.slow
@pytest.mark.parametrize("isolation", ["undo", *LATER])
def test_a_session_in_a_thread_local_pitfall_147(tmp_path: Path, isolation: str) -> None:
    """No registry of SQLAlchemy's knows it."""
    run_of(tmp_path, isolation, THREAD_LOCAL).expect(1, passed=3, errors=1).says(TOLD)


@pytest.mark.slow
@pytest.mark.parametrize("isolation", ["clone", pytest.param("undo", marks=pytest.mark.slow)])
def test_a_scoped_session_of_a_wide_fixture_goes_on_pitfall_146(
    tmp_path: Path, isolation: str
) -> None:
    """It has only read in the test: in the next one it is on that one's database."""
    run_of(tmp_path, isolation, WIDE).expect(passed=3).never_says(
        "a fixture keeps a transaction open"
    )


def test_what_is_pending_in_a_scoped_session_goes_with_its_test_pitfall_146(tmp_path: Path) -> None:
    """Told once for a class, and where a test fails: what has not been written may be why."""
    run = run_of(tmp_path, "copy", PENDING).expect(1, passed=8, failed=1, errors=1)
    run.warns(f"LeakWarning: the test left Dancer {LIVES_ON}")
    run.says(NOT_COMMITTED, "test_8_leaves_a_transaction")
    run.never_says("permanently closed")


@pytest.mark.slow
@pytest.mark.parametrize("isolation", ["undo", *LATER])
def test_what_is_pending_in_an_async_scoped_session_pitfall_147(
    tmp_path: Path, isolation: str
) -> None:
    """It is emptied outside of any loop: nothing is asked of a connection."""
    run = run_of(tmp_path, isolation, ASYNC_PENDING).expect(1, passed=2, failed=1)
    run.warns(f"LeakWarning: the test left Dancer {LIVES_ON}", "test_1_leaves_what_it_made")
    run.says(NOT_COMMITTED)


@pytest.mark.slow
def test_what_a_wide_fixture_has_pending_stays(tmp_path: Path) -> None:
    """Its instances do, and what its thread has not committed yet; what a test has added goes."""
    run = run_of(tmp_path, "undo", WIDE_PENDING).expect(passed=2)
    run.warns(f"LeakWarning: the test left Dancer {LIVES_ON}", "test_1_leaves_what_it_made")


def test_an_instance_in_the_place_of_one_that_is_gone_is_the_tests_own(tmp_path: Path) -> None:
    """It goes with the test, and is told."""
    run = run_of(tmp_path, "copy", SAME_PLACE).expect(passed=2)
    run.warns(
        f"LeakWarning: the test left Dancer {LIVES_ON}", "test_1_leaves_another_in_the_same_place"
    )


@pytest.mark.slow
@pytest.mark.parametrize("isolation", ISOLATIONS)
def test_what_a_test_holds_when_a_wide_fixture_comes_late_is_its_own(
    tmp_path: Path, isolation: str
) -> None:
    """What the fixture adds is the fixture's; the rest goes with the test, and is told."""
    run = run_of(tmp_path, isolation, LATE).expect(1, passed=4, errors=1)
    run.says("ERROR at teardown of test_4")
    run.warns(f"LeakWarning: the test left Dancer {LIVES_ON}", "test_1_leaves_what_it_made")


def test_a_session_that_nobody_keeps_is_no_news(tmp_path: Path) -> None:
    """It is not closed, and a cycle keeps it until the collector runs."""
    run_of(tmp_path, "copy", LOCAL).expect(passed=1).never_says("outlives the test")


@pytest.mark.slow
@pytest.mark.parametrize("isolation", ISOLATIONS)
def test_the_session_of_a_fixture_above_the_test_is_no_leak(tmp_path: Path, isolation: str) -> None:
    """The fixture closes it after the test."""
    run_of(tmp_path, isolation, OF_A_FIXTURE_ABOVE).expect(passed=2)
