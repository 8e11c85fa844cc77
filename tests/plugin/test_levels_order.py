"""Levels are a stack, and fixtures are not: what pytest sets up and ends in any order."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.plugin.test_levels_scopes import CONFTEST

if TYPE_CHECKING:
    from tests.example import Example

LOG = """

LOG = []

@pytest.fixture(scope="session")
def quiet():
    LOG.append("quiet")
    yield
"""

LATE = """
import pytest
from sqlalchemy import text
from app import Dancer, engine, maker
from conftest import LOG

def write(arena, name):
    with arena.session() as session:
        session.add(Dancer(name=name))
        session.commit()

@pytest.fixture(scope="session")
def wide(arena):
    LOG.append("wide")
    write(arena, "wide")
    yield
    LOG.append("end of wide")
    write(arena, "end of wide")

@pytest.fixture(scope="module")
def early(arena, request):
    write(arena, "early")
    request.getfixturevalue("wide")
    request.getfixturevalue("quiet")
    write(arena, "early too")
    yield
    write(arena, "end of early")

def test_1_inside_another(early, found, mess):
    assert found() == ["Sand", "early", "wide", "early too"]
    mess()

def test_2_whole_again(early, found):
    assert found() == ["Sand", "early", "wide", "early too"]
"""

LATER = """
import pytest
from conftest import LOG
from test_a import wide, write

def test_1_early_is_gone_and_wide_with_it(found):
    assert found() == ["Sand"]
    assert LOG == ["wide", "quiet", "end of wide"]

@pytest.fixture(scope="module")
def late(arena):
    LOG.append("late")
    write(arena, "late")
    yield
    LOG.append("end of late")

def test_2_asked_for_in_a_clean_test(request, found, mess):
    assert found() == ["Sand"]
    request.getfixturevalue("late")
    assert found() == ["Sand", "late"]
    mess()

def test_3_it_lives_on(late, found, arena):
    assert found() == ["Sand", "late"]
    assert LOG[3:] == ["late"]

@pytest.fixture(scope="module")
def latest(arena):
    LOG.append("latest")
    write(arena, "latest")
    yield
    LOG.append("end of latest")

def test_4_asked_for_in_a_test_that_has_written(request, arena, found):
    write(arena, "mine")
    request.getfixturevalue("latest")
    assert found() == ["Sand", "late", "mine", "latest"]

def test_5_it_ended_with_the_test(found):
    assert found() == ["Sand", "late"]
    assert LOG[4:] == ["latest", "end of latest"]

def test_6_and_is_set_up_again(latest, quiet, found):
    assert found() == ["Sand", "late", "latest"]
    assert LOG.count("quiet") == 1

@pytest.mark.parametrize("turn", [1, 2])
def test_7_and_stays(latest, late, found, mess, turn):
    assert found() == ["Sand", "late", "latest"]
    assert LOG.count("latest") == 2
    mess()
"""

BROKEN = """
import pytest
from test_a import write

@pytest.fixture(scope="module")
def half(arena):
    write(arena, "half")
    raise RuntimeError("half-way")

@pytest.fixture(scope="module")
def half_with_finalizer(arena, request):
    request.addfinalizer(lambda: write(arena, "finalizer"))
    write(arena, "half")
    raise RuntimeError("half-way")

@pytest.fixture(scope="module")
def failing_end(arena):
    write(arena, "failing end")
    yield
    write(arena, "before it failed")
    raise RuntimeError("at the end")

@pytest.fixture(scope="class")
def tear_down_only(arena):
    yield
    write(arena, "tear-down only")

@pytest.mark.xfail(raises=RuntimeError, strict=True)
def test_1(half): ...
def test_2(found): assert found() == ["Sand"]
@pytest.mark.xfail(raises=RuntimeError, strict=True)
def test_3(half): ...
@pytest.mark.xfail(raises=RuntimeError, strict=True)
def test_4(half_with_finalizer): ...
def test_5(found): assert found() == ["Sand"]

class TestTearDown:
    def test_6(self, tear_down_only, found, mess):
        assert found() == ["Sand"]
        mess()

def test_7(found): assert found() == ["Sand"]

def test_8(failing_end, found):
    assert found() == ["Sand", "failing end"]
"""

HOLDING = """
import pytest
import pytest_asyncio
from sqlalchemy import func, select, text
from app import Dancer, engine, maker

pytestmark = pytest.mark.asyncio(loop_scope="module")

@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def reading():
    async with engine.connect() as connection:
        yield connection

@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def session():
    async with maker() as session:
        session.add(Dancer(name="held"))
        await session.commit()
        yield session

async def names(connection):
    return list(await connection.scalars(select(Dancer.name).order_by(Dancer.id)))

@pytest.mark.parametrize("turn", [1, 2, 3])
async def test_a_connection_held_over_tests(reading, session, found, client, turn):
    expected = ["Sand", "held"]
    assert found() == await names(reading) == await names(session) == expected
    await client.post("/dancers/more")
    session.add(Dancer(name=f"turn {turn}"))
    await session.commit()
    assert await names(reading) == await names(session) == [*expected, "more", f"turn {turn}"]

async def test_and_then_begins_a_transaction(session):
    session.add(Dancer(name="not committed"))
    await session.flush()

async def test_after_that(session, found):
    assert found() == ["Sand", "held"]
"""

OWN_SAVEPOINTS = """
import pytest
from sqlalchemy import NullPool, create_engine, event, select, text
from sqlalchemy.orm import Session
from app import Dancer

@pytest.fixture(scope="module")
def connection(arena):
    engine = create_engine(arena.url.replace("+aiosqlite", ""), poolclass=NullPool)
    event.listen(engine, "connect", lambda c, _: setattr(c, "isolation_level", None))
    event.listen(engine, "begin", lambda c: c.exec_driver_sql("BEGIN"))
    with engine.connect() as connection, connection.begin() as outer:
        connection.execute(text("INSERT INTO dancers (name) VALUES ('outer')"))
        yield connection
        outer.rollback()

@pytest.fixture
def session(connection):
    with Session(connection, join_transaction_mode="create_savepoint") as session:
        yield session

@pytest.mark.parametrize("turn", [1, 2, 3])
def test_a_suite_that_undoes_itself(connection, turn):
    nested = connection.begin_nested()
    session = Session(connection, join_transaction_mode="create_savepoint")
    session.add(Dancer(name="mine"))
    session.commit()
    assert list(session.scalars(select(Dancer.name))) == ["Sand", "outer", "mine"]
    session.close()
    nested.rollback()
"""


def test_levels_in_any_order(example: Example) -> None:
    """P6: late fixtures, fixtures inside of others, in tests; finished early and set up again."""
    project = example.with_paths({"conftest.py": CONFTEST + LOG})
    run = project.with_files(test_a=LATE, test_b=LATER).run("test_a.py", "test_b.py")
    run.expect(passed=10)


def test_levels_of_broken_fixtures_are_gone_at_once(example: Example) -> None:
    """P6: half-way after a commit, with a finalizer that writes, with a tear-down that fails."""
    project = example.with_paths({"conftest.py": CONFTEST + LOG}).with_files(
        test_a=LATE, test_c=BROKEN
    )
    last = "\ndef test_nothing_is_left(found):\n    assert found() == ['Sand']\n"
    run = project.with_files(test_d=last).run("test_c.py", "test_d.py")
    run.expect(1, passed=6, xfailed=3, errors=1).says("RuntimeError: at the end")


@pytest.mark.slow
def test_levels_with_connections_held_over_tests(example: Example) -> None:
    """P6, P2: what a fixture holds open goes on working; what a test begins on it is undone."""
    project = example.with_paths({"conftest.py": CONFTEST + LOG}).with_files(
        test_a=HOLDING, test_b=OWN_SAVEPOINTS
    )
    run = project.run()
    run.expect(1, passed=8, errors=1)
    run.says("ERROR at teardown of test_and_then_begins_a_transaction", "open transaction")
    run.says("keeps a transaction open during its tests")


ASKED_IN_A_SET_UP = """
import pytest
from app import Dancer

LOG = []

def add(arena, name):
    with arena.session() as session:
        session.add(Dancer(name=name))
        session.commit()

@pytest.fixture(scope="module")
def below(arena):
    add(arena, "below")
    yield

@pytest.fixture(scope="session")
def inner(arena):
    add(arena, "inner")
    yield
    LOG.append("inner ends")

@pytest.fixture(scope="session")
def outer(arena, request):
    request.getfixturevalue("inner")  # pytest-asyncio asks for its runner so
    add(arena, "outer")
    yield
    LOG.append("outer ends")
    assert LOG == ["outer ends"]

def test_one(below): ...
def test_two(outer): ...
"""


@pytest.mark.slow
def test_what_a_set_up_has_asked_for_ends_after_it(example: Example) -> None:
    """Its level lies above, and ends early with a fixture below both."""
    files = {"test_asked": ASKED_IN_A_SET_UP, "test_last": "def test_last(): ..."}
    example.with_files(**files).run().expect(passed=3)


BROKEN_AFTER_ASKING = """
import pytest
from test_a import write

@pytest.fixture(scope="module")
def inner(arena):
    write(arena, "inner")

@pytest.fixture(scope="module")
def outer(arena, request):
    write(arena, "outer")
    request.getfixturevalue("inner")
    raise RuntimeError("half-way")

@pytest.mark.xfail(raises=RuntimeError, strict=True)
@pytest.mark.parametrize("turn", [1, 2])
def test_1(outer, turn): ...
def test_2(found): assert found() == ["Sand"]
"""


@pytest.mark.slow
def test_a_set_up_that_fails_after_it_has_asked_for_a_fixture(example: Example) -> None:
    """Its error is raised, and both levels are left."""
    project = example.with_paths({"conftest.py": CONFTEST + LOG})
    files = {"test_a": LATE, "test_broken": BROKEN_AFTER_ASKING}
    project.with_files(**files).run("test_broken.py").expect(passed=1, xfailed=2)


OF_ANOTHER_PARAMETER = """
import pytest
from app import Dancer

@pytest.fixture(scope="module", params=["Storm", "Dune"])
def dancer(request, seeded):
    seeded(request.param)
    return request.param

@pytest.fixture(scope="module")
def partner(dancer, seeded):
    seeded(f"{dancer}'s partner")

@pytest.fixture(scope="session", params=["Rock", "Wave"])
def master(request, seeded):
    seeded(request.param)
    return request.param

def test_alone(dancer, partner, found):
    assert found() == ["Sand", dancer, f"{dancer}'s partner"]

def test_with_a_master(master, dancer, partner, found):
    assert found() == ["Sand", master, dancer, f"{dancer}'s partner"]
"""
SEEDING = """
import pytest
from sqlalchemy import create_engine, text

engine = create_engine("sqlite:///dev.db")

@pytest.fixture(scope="session")
def seeded():
    def insert(name):
        with engine.begin() as connection:
            connection.execute(text("insert into dancers (name) values (:name)"), {"name": name})
    return insert

@pytest.fixture
def found():
    def names():
        with engine.connect() as connection:
            return [*connection.scalars(text("select name from dancers order by id"))]
    return names
"""


def test_levels_where_a_parameter_ends_what_lies_below(example: Example) -> None:
    """What the test has set up above it by then must not go with it: its rows would be missing."""
    changed = example.with_files(conftest=SEEDING, test_it=OF_ANOTHER_PARAMETER)
    changed.run().expect(passed=6)


HOOKS = """
import app


def pytest_runtest_setup(item):
    if item.get_closest_marker("seeded"):
        app.add("of a hook")
"""
OF_HOOKS = """
import pytest


@pytest.mark.seeded
def test_a(test_client):
    assert "of a hook" in test_client.get("/dancers").json()


def test_b(test_client):  # alone it is red
    assert "of a hook" in test_client.get("/dancers").json()
"""
AT_IMPORT = """
import app

app.add("at import")


def test_it(test_client):
    assert "at import" in test_client.get("/dancers").json()
"""
ADD = """
from sqlalchemy import create_engine, insert

sync_engine = create_engine("sqlite:///dev.db")


def add(name):
    with sync_engine.begin() as connection:
        connection.execute(insert(Dancer).values(name=name))
"""


WRITE_AT_IMPORT = """WRITE = insert(app.Dancer).values(name="at import")
with app.sync_engine.begin() as connection:
    connection.execute(WRITE)
"""


@pytest.mark.slow
def test_rows_that_neither_a_test_nor_a_fixture_writes_are_named(example: Example) -> None:
    """They stay: no level restores them."""
    app = example.files["app.py"] + ADD
    project = example.with_files(app=app, conftest=HOOKS, test_a=OF_HOOKS)
    markers = "[pytest]\nmarkers = seeded\n"
    run = project.change("pytest.ini", "[pytest]\n", markers).run("-q").expect(passed=2)
    told = "writes rows outside of tests and fixtures"
    by = "connection.execute(insert(Dancer).values(name=name)). The rows stay for the whole run"
    run.says(f'conftest.py:7  app.add("of a hook") {told}, by app.py:', by)
    run = example.with_files(app=app, conftest="", test_a=AT_IMPORT).run("-q").expect(passed=1)
    run.says(f'test_a.py:4  app.add("at import") {told}, by app.py:')


@pytest.mark.slow
def test_a_module_that_writes_as_it_is_imported_is_named_by_its_line(example: Example) -> None:
    """Not by the import alone, which may be that of the whole app."""
    filled = "import app\nfrom sqlalchemy import insert\n\n" + WRITE_AT_IMPORT
    test = "import filled\n\n\ndef test_it(test_client):\n    test_client.get('/dancers')\n"
    app = example.files["app.py"] + ADD
    run = example.with_files(app=app, filled=filled, test_a=test).run("-q").expect(passed=1)
    told = "test_a.py:1  import filled writes rows outside of tests and fixtures, by filled.py:6"
    run.says(f"{told}  connection.execute(WRITE). The rows stay for the whole run")
