"""A test that asks for another isolation than its run's starts from what stands."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.plugin.private_server import PrivateServer, on_postgresql, private_server
from tests.servers.postgresql import URL

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.example import Example, Run

CONFTEST = """
import pytest
from sqlalchemy import func, select, text
from app import Dancer

STANDS = ["Sand", "All", "Wide"]
TRIGGERS = text("SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal")
TABLES = text("SELECT count(*) FROM pg_class WHERE relname = 'dancers_of_the_test'")
MAKE = text("CREATE TABLE dancers_of_the_test (id int)")


@pytest.fixture(scope="session")
def everybody(arena):
    with arena.session() as session:
        session.add(Dancer(name="All"))
        session.commit()


@pytest.fixture(scope="module")
def wide(arena, everybody):
    with arena.session() as session:
        session.add(Dancer(name="Wide"))
        session.commit()
    yield
    with arena.session() as session:
        assert session.scalars(select(Dancer.name).order_by(Dancer.id)).all() == STANDS


async def use(client, db_session, arena, kind):
    assert arena.isolation == kind
    assert bool(await db_session.scalar(TRIGGERS)) == (kind == "undo")
    assert await db_session.scalar(TABLES) == 0
    assert (await client.get("/dancers")).json() == STANDS
    db_session.add(Dancer(name="Fixture"))
    assert (await client.post("/dancers/Dune")).status_code == 201
    assert (await client.get("/dancers")).json() == [*STANDS, "Fixture", "Dune"]
    assert await db_session.scalar(select(func.max(Dancer.id))) == 5
    if kind == "clone":
        await db_session.execute(MAKE)
        await db_session.commit()
"""

TESTS = """
import pytest
from conftest import MAKE, STANDS, TABLES, use
from app import Dancer, maker

by = pytest.mark.arena


async def test_before(wide, client, db_session, arena):
    await use(client, db_session, arena, RUNS)


@by(isolation=OTHER)
@pytest.mark.parametrize("turn", range(2))
async def test_other(wide, client, db_session, arena, turn):
    await use(client, db_session, arena, OTHER)


async def test_between(wide, client, db_session, arena):
    await use(client, db_session, arena, RUNS)


@by(isolation=OTHER)
def test_that_only_reads(wide, test_client):
    assert test_client.get("/dancers").json() == STANDS


@by(isolation=OTHER)
def test_that_uses_nothing(wide): ...


@by(isolation=OTHER, seed=False)
def test_of_an_empty_one(wide, test_client):
    assert test_client.get("/dancers").json() == []
    assert test_client.post("/dancers/Dune").status_code == 201


async def test_after(wide, client, db_session, arena):
    await use(client, db_session, arena, RUNS)
"""

# The first of all tests is one that asks for the other, and its wider fixtures come in it.
FIRST = """
import pytest
from conftest import use


@pytest.fixture(scope="class")
def of_the_class(wide, arena):
    from app import Dancer
    with arena.session() as session:
        dancer = Dancer(name="Class")
        session.add(dancer)
        session.commit()
        session.delete(dancer)
        session.commit()


@pytest.mark.arena(isolation=OTHER)
class TestOther:
    def test_first(self, db_session): ...

    def test_second(self, of_the_class, test_client):
        assert test_client.get("/dancers").json() == ["Sand", "All", "Wide"]
        assert test_client.post("/dancers/Dune").status_code == 201

    def test_third(self, of_the_class, test_client):
        assert test_client.get("/dancers").json() == ["Sand", "All", "Wide"]


def test_last(wide, test_client):
    assert test_client.get("/dancers").json() == ["Sand", "All", "Wide"]
"""


@pytest.fixture(scope="module")
def server() -> Iterator[PrivateServer]:
    """One for all tests here."""
    with private_server() as found:
        yield found


def project(example: Example, runs: str, other: str) -> Example:
    """The tests, for a run of one kind that is asked for another by markers."""
    names = f"RUNS, OTHER = {runs!r}, {other!r}\n"
    files = {"conftest": CONFTEST, "test_it": names + TESTS, "test_a_first": names + FIRST}
    return on_postgresql(example, **files)


def run(example: Example, server: PrivateServer, *words: str, isolation: str) -> Run:
    """Run its tests on the server."""
    return example.run(f"--arena-isolation={isolation}", *words, env=server.env)


KINDS = [("undo", "clone"), pytest.param("clone", "undo", marks=pytest.mark.slow)]


@pytest.mark.slow
@pytest.mark.parametrize("runs,other", KINDS)
def test_a_test_that_asks_for_another_isolation(
    example: Example, server: PrivateServer, runs: str, other: str
) -> None:
    """P2, P6: what wider fixtures wrote is there, before, in it and after; nothing else is."""
    found = run(project(example, runs, other), server, "-v", isolation=runs)
    found.expect(passed=12).says(f"isolation {runs}").never_says("Exception ignored")
    server.check_clean(found.output)


@pytest.mark.slow
@pytest.mark.parametrize("runs,other", KINDS)
def test_workers_and_another_order(
    example: Example, server: PrivateServer, runs: str, other: str
) -> None:
    """P2: each worker has its own, in whichever order they come."""
    suite = project(example, runs, other)
    workers = ("-p", "xdist.plugin", "-n", "2", "--dist=load")
    found = run(suite, server, *workers, isolation=runs).expect(passed=12)
    server.check_clean(found.output)
    backwards = suite.with_files(
        conftest=CONFTEST + "\n\ndef pytest_collection_modifyitems(items):\n    items.reverse()\n"
    )
    found = run(backwards, server, isolation=runs).expect(passed=12)
    server.check_clean(found.output)


@pytest.mark.slow
def test_auto_is_the_runs_own(example: Example, server: PrivateServer) -> None:
    """And a marker for what the run does anyway costs nothing and changes nothing."""
    tests = """
import pytest


@pytest.mark.arena(isolation="undo")
def test_named(test_client, arena):
    assert arena.isolation == "undo"
    test_client.post("/dancers/Dune")


@pytest.mark.arena(isolation="auto")
def test_auto(test_client, arena):
    assert arena.isolation == "undo"
    assert test_client.get("/dancers").json() == ["Sand"]
"""
    found = run(on_postgresql(example, test_it=tests), server, isolation="auto")
    found.expect(passed=2).says("isolation undo")


FAILING = """
import pytest
from sqlalchemy import text
from app import Dancer, engine

kept = []


@pytest.mark.arena(isolation=OTHER)
async def test_that_leaves_a_transaction_open():
    kept.append(await engine.connect())
    await kept[0].execute(text("INSERT INTO dancers (name) VALUES ('Open')"))


@pytest.mark.arena(isolation=OTHER, keep="failed")
def test_that_fails(test_client):
    assert test_client.get("/dancers").json() == ["Sand"]
    test_client.post("/dancers/Kept")
    assert False, "as it was told to"


def test_after(test_client):
    assert test_client.get("/dancers").json() == ["Sand"]
    assert test_client.post("/dancers/Dune").status_code == 201


@pytest.fixture(scope="module")
def open_transaction(arena):
    with arena.session() as session:
        session.add(Dancer(name="Half"))
        session.flush()
        yield session


@pytest.mark.arena(isolation=OTHER)
def test_beside_an_open_transaction(open_transaction, test_client): ...


def test_last(test_client):
    assert test_client.get("/dancers").json() == ["Sand"]
"""


@pytest.mark.slow
@pytest.mark.parametrize("runs,other", KINDS)
def test_what_goes_wrong_in_such_a_test(
    example: Example, server: PrivateServer, runs: str, other: str
) -> None:
    """P7, P8: a leak is ended and named, a failed test's database kept for a look.

    The fixture's transaction is named once: the close of its session is no further error.
    """
    names = f"RUNS, OTHER = {runs!r}, {other!r}\n"
    suite = on_postgresql(example, test_it=names + FAILING)
    found = run(suite, server, "-v", isolation=runs)
    assert found.outcomes == {"passed": 3, "failed": 1, "errors": 2}, found.output
    found.says(
        "as it was told to",
        "the test ended with an open transaction",
        "an open transaction of a wider fixture is in the way",
    )
    [kept] = [name for name in server.names() if name.startswith("arena_kept_")]
    assert server.rows("SELECT name FROM dancers ORDER BY id", kept) == [("Sand",), ("Kept",)]
    assert server.rows("SELECT 1 FROM pg_trigger WHERE NOT tgisinternal", kept) == []
    server.arena("sweep", "--all", "--yes")


ALWAYS = """
import pytest
from sqlalchemy import text
from app import Dancer

MAKE = [
    "CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
    "CREATE TRIGGER noted AFTER INSERT ON dancers FOR EACH ROW EXECUTE FUNCTION nothing()",
    "ALTER TABLE dancers ENABLE ALWAYS TRIGGER noted",
]


@pytest.fixture(scope="module")
def triggers(arena):
    with arena.session() as session:
        for statement in MAKE:
            session.execute(text(statement))
        session.add(Dancer(name="Wide"))
        session.commit()


@pytest.mark.parametrize("turn", range(2))
async def test_beside_it(triggers, client, arena, turn):
    assert arena.isolation == "clone"
    assert (await client.get("/dancers")).json() == ["Sand", "Wide"]
    assert (await client.post("/dancers/Dune")).status_code == 201


@pytest.mark.arena(isolation="undo")
def test_that_asks_for_undo(triggers, arena): ...
"""
AFTER_IT = """
async def test_after_it(client, arena):
    assert arena.isolation == "undo"
    assert (await client.get("/dancers")).json() == ["Sand"]
"""


@pytest.mark.slow
def test_a_fixture_makes_a_trigger_that_no_journal_can_have(example: Example) -> None:
    """Tests are isolated by clone as long as the fixture is set up, unless undo is asked for."""
    project = on_postgresql(example, test_1=ALWAYS, test_2=AFTER_IT)
    env = {"ARENA_DATABASE": URL.render_as_string(hide_password=False)}
    run = project.run("-p", "no:randomly", env=env).expect(1, passed=3, failed=1)
    reason = "public.dancers has the trigger noted, which is ENABLE ALWAYS"
    run.says(f"is isolated by clone, since {reason}")
    run.says("pytest_arena.errors.IsolationError: undo is not possible").never_says("Unjournaled")
    run = project.run("-p", "no:randomly", "--arena-isolation=undo", env=env)
    run.expect(1, passed=1, errors=2, failed=1).says(
        f"undo is not possible for this database: {reason}"
    )
