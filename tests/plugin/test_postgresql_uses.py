"""PostgreSQL: whichever way a connection came, what was done on it is seen and taken back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.plugin.test_postgresql_story import on_postgresql

if TYPE_CHECKING:
    from tests.example import Example

WAYS = """
import psycopg
import pytest
import sqlalchemy
from sqlalchemy import event, text

COUNT = text("SELECT count(*) FROM dancers")
ADD = text("INSERT INTO dancers (name) VALUES ('New')")
URL = "postgresql+psycopg://me:s3cret@db.example.org/shop"

listened = sqlalchemy.create_engine(URL)
event.listen(listened, "do_connect", lambda *_: None)  # one that sets a token, as for a cloud


@pytest.mark.parametrize("turn", range(3))
def test_an_engine_with_a_listener_of_its_own_pitfall_014(turn):
    with listened.begin() as connection:
        assert connection.scalar(COUNT) == 1
        connection.execute(ADD)


@pytest.mark.parametrize("turn", range(3))
def test_an_engine_with_a_creator_pitfall_015(arena, turn):
    dsn = arena.url.replace("+asyncpg", "")
    engine = sqlalchemy.create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(dsn))
    with engine.begin() as connection:
        assert connection.scalar(COUNT) == 1
        connection.execute(ADD)
    engine.dispose()
"""

DETACHED = """

kept = []


def test_takes_one_out_of_its_pool_for_good():
    engine = sqlalchemy.create_engine(URL, isolation_level="AUTOCOMMIT")
    kept.append(engine.connect())
    kept[0].detach()
    assert kept[0].scalar(COUNT) == 1


def test_and_writes_on_it_later():
    try:
        kept[0].execute(ADD)
    except sqlalchemy.exc.OperationalError:
        pass  # its database was given up, and nothing can be given to it instead
    kept[0].close()


def test_is_gone():
    with listened.connect() as connection:
        assert connection.scalar(COUNT) == 1
"""


@pytest.mark.slow
def test_connections_that_came_another_way_are_seen(example: Example) -> None:
    """Else a test that wrote would be taken for one that had used no database."""
    run = on_postgresql(example, test_it=WAYS + DETACHED).run("-v", "-W", "ignore")
    run.expect(passed=9).says("1] had shop; changed shop")


SESSIONS = '''
import sqlalchemy
from sqlalchemy import text

engine = sqlalchemy.create_engine("postgresql+psycopg://me:s3cret@db.example.org/shop")

TEMPORARY = """DO $$ BEGIN FOR i IN 1..300 LOOP
    EXECUTE format('CREATE TEMP TABLE t%s (a serial PRIMARY KEY)', i);
END LOOP; END $$"""


def test_several_wait_in_the_pool():
    several = [engine.connect() for _ in range(3)]
    for one in several:
        one.close()


def test_one_is_altered():
    with engine.begin() as connection:
        connection.execute(text("SELECT pg_advisory_lock(7)"))


def test_another_one_is_taken():
    with engine.begin() as connection:
        assert connection.scalar(text("SELECT pg_try_advisory_lock(7)"))
        # PostgreSQL drops these, and then releases the lock.
        connection.execute(text(TEMPORARY))


def test_the_server_has_ended_it():
    with engine.begin() as connection:
        assert connection.scalar(text("SELECT pg_try_advisory_lock(7)"))


def test_the_last_of_several_statements():
    with engine.begin() as connection:
        connection.exec_driver_sql("SELECT 1; SET statement_timeout = '7s'")


def test_is_seen():
    for one in [engine.connect() for _ in range(3)]:
        assert one.scalar(text("SHOW statement_timeout")) == "0"
        one.close()
'''


def test_what_a_session_holds_ends_with_its_test_pitfall_131_132(example: Example) -> None:
    """Whichever connection of the pool the next test is given."""
    on_postgresql(example, test_sessions=SESSIONS).run().expect(passed=6)


LATE_APP = """
async def start():
    global maker
    maker = async_sessionmaker(create_async_engine(URL))


app.router.on_startup.append(start)
"""
LATE = """
import pytest
from app import Dancer


@pytest.mark.parametrize("turn", range(3))
async def test_seeds_first(client, db_session, turn):
    db_session.add(Dancer(name="Storm"))
    await db_session.commit()
    assert (await client.get("/dancers")).json() == ["Sand", "Storm"]
    assert (await client.post("/dancers/Crumbs")).status_code == 201
"""


@pytest.mark.slow
def test_what_is_done_before_the_app_has_an_engine_is_taken_back(example: Example) -> None:
    """The database has another name from there on, and is counted by that."""
    late = on_postgresql(example, test_it=LATE)
    late = late.change("app.py", "engine = create_async_engine(", "URL = str(")
    late = late.change("app.py", "async_sessionmaker(engine)", "async_sessionmaker()")
    run = late.with_files(app=late.files["app.py"] + LATE_APP).run("-v", "-W", "ignore")
    run.expect(passed=3).says("3 of 3 tests had a separate database, and 3 changed it")
