"""What a request wrote and never committed is told; whoever meant to roll back is left alone."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from pytest_arena._gate._lost_writes import LostWrites
from pytest_arena._gate._pooled import PooledConnection
from pytest_arena._gate._registry import Registry
from pytest_arena._gate._statements import ends_transaction, written_table
from pytest_arena._postgresql.drivers._session_state import changes_session
from tests.gate.lost_app import APP
from tests.servers.postgresql import URL

if TYPE_CHECKING:
    from tests.example import Example

SEED = """
from app import Dancer

def seed(session):
    session.add(Dancer(name="Sand"))
"""

IT = """
import httpx
import pytest
from sqlalchemy import insert
from sqlalchemy.orm import Session
from starlette.testclient import TestClient
import app as shop
from app import LOST, SILENT, Dancer, Score, app, async_engines, sync_engines
from pytest_arena._app._entry import ENTRY
from pytest_arena._gate import _listeners
from pytest_arena._gate._pooled import wrote

WAYS = [f"/sync/{driver}" for driver in sync_engines]
WAYS += [f"/{way}/{driver}" for driver in async_engines for way in ("async", "by-hand")]
ALL = pytest.mark.parametrize("way", WAYS)
MOST = pytest.mark.parametrize("way", [way for way in WAYS if "by-hand" not in way])
SYNC = pytest.mark.parametrize("driver", sync_engines)


def take():
    return _listeners._gates[-1].lost.take()


def post(path, status=200):
    assert take() == []
    assert TestClient(app).post(path).status_code == status
    return take()


@pytest.fixture(autouse=True)
def one_loop_for_each_request():
    token = ENTRY.set(True)  # no request of the test's, which would take what is lost
    yield
    ENTRY.reset(token)
    for engine in async_engines.values():
        engine.sync_engine.dispose(close=False)


@ALL
@pytest.mark.parametrize("case", LOST)
def test_lost(way, case):
    if case == "savepoint released" and "/sqlite" in way:
        # A savepoint outside of a transaction, which Python's driver begins only at a write.
        assert post(f"{way}/case/{case}") == []
        return
    [lost] = post(f"{way}/case/{case}")
    function, tables, rows = LOST[case]
    assert lost.words == wrote(tables, rows)
    line = str(lost.line)
    assert "session." in line.partition("  ")[2] and "app.py:" in line, line
    assert take() == []


@ALL
@pytest.mark.parametrize("case", SILENT)
def test_silent(way, case):
    if case == "autocommit" and "by hand" in way:
        pytest.skip("the recipe begins a transaction all the same")
    assert post(f"{way}/case/{case}") == []
"""

IT += """

@ALL
def test_an_error_on_its_way_out(way):
    assert post(f"{way}/raised", 409) == []


@MOST
def test_an_error_that_the_app_has_caught(way):
    assert post(f"{way}/caught") == []


@MOST
def test_blocks_that_commit(way):
    assert post(f"{way}/begun") == []


@MOST
def test_a_connection_without_a_session(way):
    [lost] = post(f"{way}/connection")
    assert lost.words == "wrote scores (1 row)"
    assert "connection.execute(insert(Score)" in str(lost.line)
    assert post(f"{way}/connection-rolled-back") == []


@SYNC
def test_a_session_that_nobody_has_closed(driver):
    [lost] = post(f"/sync/{driver}/never-closed")
    assert lost.words == "wrote dancers, scores (3 rows)"


@MOST
def test_autocommit(way):
    if "by hand" not in way:  # whose recipe begins all the same
        assert post(f"{way}/autocommit") == []


async def test_in_the_loop_of_the_test():
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        for driver in async_engines:
            await client.post(f"/async/{driver}/case/orm")
            [lost] = take()
            assert "session." in str(lost.line)
            await client.post(f"/async/{driver}/caught")
            assert take() == []


# What is arena's own, or a wider fixture's.


def test_a_session_of_arenas(db_session):
    db_session.add(Dancer(name="Ours"))
    db_session.flush()
    db_session.close()
    assert take() == []


async def test_an_async_session_of_arenas(arena):
    session = arena.session()
    session.add(Dancer(name="Ours"))
    await session.flush() if async_engines else session.flush()


def test_which_was_closed_after_its_test():
    assert take() == []


@pytest.mark.skipif("by hand" not in sync_engines, reason="clone would end such a transaction")
class TestWide:
    @pytest.fixture(scope="class")
    def connection(self):
        with list(sync_engines.values())[-1].connect() as connection:
            connection.begin()
            connection.execute(insert(Score).values(points=1))
            yield connection

    @pytest.fixture
    def session(self, connection):
        with Session(connection, join_transaction_mode="create_savepoint") as session:
            yield session

    @pytest.mark.parametrize("turn", range(2))
    def test_in_a_transaction_of_a_wider_fixture(self, session, turn):
        session.add(Score(points=2))
        session.commit()
        assert take() == []


def test_which_was_closed_without_a_rollback():
    assert take() == []


class TestWideAndClosed:
    @pytest.fixture(scope="class")
    def session(self):
        with Session(list(sync_engines.values())[0]) as session:
            session.add(Score(points=1))
            session.flush()
            yield session

    def test_by_a_test(self, session):
        session.close()
        assert take() == []


@SYNC
def test_what_nobody_has_taken(driver):
    TestClient(app).post(f"/sync/{driver}/connection")


def test_is_not_told_of_the_next_test():
    assert _listeners._gates[-1].lost.losses == []
    assert take() == []


@SYNC
def test_a_leak_is_told_as_a_leak(driver, request):
    session = Session(sync_engines[driver])
    session.add(Dancer(name="Left"))
    session.flush()
    request.config.left = session
"""


def run_on(example: Example, **options: str) -> None:
    """All cases over all drivers, in one run."""
    ini = example.files["pytest.ini"].replace(
        "[pytest]", f"[pytest]\narena_database = {options['on']}"
    )
    project = example.with_files(app=APP, seed=SEED, test_it=IT).with_paths({"pytest.ini": ini})
    env = {"DRIVERS": options["drivers"], "REST": options["rest"]}
    run = project.run("-q", "-W", "ignore", env=env)
    errors = run.outcomes.get("errors", 0)
    assert set(run.outcomes) <= {"passed", "skipped", "errors"}, run.output
    # The last test, by each sync driver, leaves its transaction open.
    assert errors == run.output.count("ERROR test_it.py::test_a_leak_is_told_as_a_leak") > 0, (
        run.output
    )


def test_on_sqlite(example: Example) -> None:
    """Python's own driver, as it comes and by SQLAlchemy's recipe, and aiosqlite."""
    run_on(example, on="sqlite", drivers="sqlite/sqlite+aiosqlite", rest="///dev.db")


@pytest.mark.slow
def test_on_postgresql(example: Example) -> None:
    """All drivers that there are."""
    drivers = "postgresql+psycopg postgresql+psycopg2/postgresql+asyncpg postgresql+psycopg"
    url = URL.set(database="").render_as_string(hide_password=False).rstrip("/")
    run_on(example, on=url, drivers=drivers, rest="//me:s3cret@db.example.org/shop")


def test_a_driver_that_nobody_here_knows_is_asked_for_nothing() -> None:
    """Of a database that ``arena_allow`` names: what it lacks would be an error of the app's."""
    resolver: Any = None
    pooled: Any = type("Pooled", (), {"info": {}})()
    PooledConnection.create(pooled)
    lost = LostWrites(resolver, Registry())
    connection: Any = SimpleNamespace(connection=pooled, closed=False, invalidated=False)
    context = SimpleNamespace(isinsert=True)
    lost.after_execute(connection, object(), "INSERT INTO orders VALUES (1)", (), context)
    assert lost.take() == []


@pytest.mark.parametrize(
    "statement, table",
    [
        ("INSERT INTO orders VALUES (1)", "orders"),
        ('  insert into "Or""ders"(id) values (1)', 'Or"ders'),
        ("INSERT OR REPLACE INTO main.orders VALUES (1)", "orders"),
        ("REPLACE INTO `orders` VALUES (1)", "orders"),
        ("UPDATE ONLY audit . log SET a = 1", "audit.log"),
        ("UPDATE OR IGNORE [my orders] SET a = 1", "my orders"),
        ("-- why\n/* because */ DELETE FROM public.orders", "orders"),
        ("INSERT /* shop.items.add */ INTO item VALUES ('a')", "item"),
        ("UPDATE -- the stock\n item SET qty = 1", "item"),
        ("UPDATE/**/item SET qty = 1", "item"),
        ("DELETE /* x */ FROM /* y /* z */ */ item", "item"),
        ("MERGE /* x */ INTO item USING more ON true WHEN MATCHED THEN DELETE", "item"),
        ("WITH a AS (INSERT /* x */ INTO item VALUES ('--') RETURNING 1) SELECT 1", "item"),
        ("WITH a AS (SELECT '--' FROM b) UPDATE c SET d = '/*'", "c"),
        ("MERGE INTO stock USING more ON true WHEN MATCHED THEN DELETE", "stock"),
        ("WITH a AS (DELETE FROM orders RETURNING *) SELECT * FROM a", "orders"),
        ("with a as (select 1) update orders set a = 1", "orders"),
        ("WITH a AS (SELECT * FROM b FOR UPDATE OF b) SELECT 1", ""),
        ("WITH a AS (SELECT 1) SELECT * FROM b FOR NO KEY UPDATE SKIP LOCKED", ""),
        ("with a as (select 1) select * from b for no key update of t", ""),
        ("WITH a AS (SELECT 1) SELECT * FROM b\nFOR\nUPDATE NOWAIT", ""),
        ("WITH a AS (SELECT * FROM b FOR UPDATE) UPDATE c SET d = 1 FROM a", "c"),
        ("SELECT * FROM orders FOR UPDATE", ""),
        ("SELECT 'INSERT INTO orders'", ""),
        ("UPDATED", ""),
        ("COMMIT", ""),
        ("", ""),
    ],
)
def test_what_a_statement_writes_to(statement: str, table: str) -> None:
    """By its words, as the app wrote them."""
    assert written_table(statement) == table


def test_a_head_of_many_comments_is_read_at_once() -> None:
    """Each of them once, not in all combinations: 60 would take longer than anybody waits."""
    head = "/* a * b */ -- c\n" * 60
    assert written_table(f"{head}DELETE FROM orders") == "orders"
    assert not changes_session(f"{head}SELECT 1")
    assert changes_session(f"{head}SET a = 1")


def test_a_comment_in_a_comment_is_part_of_it() -> None:
    """PostgreSQL has them. SQLite ends a comment at the first end."""
    nested = "/* a /* b /* c */ d */ e */ -- f\n" * 60
    assert written_table(f"{nested}DELETE FROM orders") == "orders"
    assert changes_session(f"{nested}SET a = 1")
    assert not changes_session(f"{nested}SELECT 1")
    assert written_table("/* a /* b */ DELETE FROM orders") == "orders"
    assert written_table("/* " * 2000 + "DELETE FROM orders") == ""  # it has no end


def test_what_ends_a_transaction() -> None:
    """By hand, and on all products."""
    assert all(map(ends_transaction, ("COMMIT", "-- x\n end;", "rollback")))
    assert not any(map(ends_transaction, ("SAVEPOINT a", "ROLLBACK TO a", "committed", "")))
