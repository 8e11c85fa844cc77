"""Connections that the app opens or sets up itself."""

import asyncio
import logging
import sqlite3
import threading
from queue import SimpleQueue

import aiosqlite
import pytest
from models import Base, Order
from orders import aadd, add, engine, items
from sqlalchemy import create_engine, event, func, select, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool, StaticPool

POOLS = {
    "pre_ping": {"pool_pre_ping": True},
    "static": {"poolclass": StaticPool},
    "null": {"poolclass": NullPool},
    "one": {"pool_size": 1, "max_overflow": 0, "pool_timeout": 5},
    "recycle": {"pool_recycle": 0},
}
kept = {name: create_engine("sqlite:///shop.db", **options) for name, options in POOLS.items()}


@pytest.mark.parametrize("turn", [1, 2])
@pytest.mark.parametrize("name", POOLS)
def test_pools_of_every_kind(name, turn):
    for number in range(3):
        add(kept[name], f"{number}")
    assert items(engine) == items(kept[name]) == ["0", "1", "2"]


@pytest.fixture
def file(arena):
    return arena.url.partition(":///")[2]


def test_a_creator_opens_the_tests_file(file, made, turn):
    for pool in (NullPool, StaticPool):
        add(made("sqlite://", creator=lambda: sqlite3.connect(file), poolclass=pool), "vase")
    assert items(engine) == ["vase", "vase"]


async def test_an_async_creator_opens_the_tests_file(file):
    made = create_async_engine("sqlite+aiosqlite://", async_creator=lambda: aiosqlite.connect(file))
    await aadd(made, "vase")
    assert items(engine) == ["vase"]
    await made.dispose()


def test_a_listener_returns_a_connection_to_the_tests_file(file, made):
    own = made("sqlite:///shop.db")
    event.listen(own, "do_connect", lambda *_: sqlite3.connect(file))
    add(own, "vase")
    assert items(engine) == ["vase"]


def test_a_listener_opens_a_memory_database(file, made):
    own = made("sqlite:///shop.db")
    event.listen(own, "do_connect", lambda *_: sqlite3.connect(":memory:"))
    with own.connect() as connection:
        assert connection.scalars(text("SELECT name FROM sqlite_master")).all() == []


def test_a_listener_changes_the_arguments(made):
    own = made("sqlite:///shop.db")
    seen = []

    @event.listens_for(own, "do_connect")
    def token(dialect, record, cargs, cparams):
        cparams["timeout"] = 1.5
        seen.append(cargs[0])

    add(own, "vase")
    assert items(engine) == ["vase"]
    assert "shop.db" in seen[0]


def test_a_time_out_of_the_app_stays(made):
    with made("sqlite:///shop.db", connect_args={"timeout": 1.5}).connect() as connection:
        assert connection.scalar(text("PRAGMA busy_timeout")) == 1500


def test_a_connect_listener_sets_up_each_connection(made):
    own = made("sqlite:///shop.db")

    @event.listens_for(own, "connect")
    def set_up(dbapi_connection, record):
        dbapi_connection.execute("PRAGMA foreign_keys = ON")
        dbapi_connection.execute("PRAGMA busy_timeout = 1234")
        dbapi_connection.create_function("twice", 1, lambda value: value * 2)
        dbapi_connection.row_factory = sqlite3.Row
        sqlite3.connect("side.sqlite").close()  # no file of the app

    for _ in range(2):
        with own.connect() as connection:
            raw = connection.connection.driver_connection
            assert raw.execute("SELECT twice(21) AS a").fetchone()["a"] == 42
            assert raw.execute("PRAGMA foreign_keys").fetchone()[0] == 1
            assert raw.execute("PRAGMA busy_timeout").fetchone()[0] == 1234


def open_side_file(*_):
    sqlite3.connect("side.sqlite").close()


def test_a_tool_opens_a_file_while_the_app_works_on_its_engine(made):
    own = made("sqlite:///shop.db", echo_pool="debug")
    handler = logging.Handler()
    handler.emit = open_side_file
    logging.getLogger("sqlalchemy.pool").addHandler(handler)
    for name in ("do_connect", "after_cursor_execute", "commit"):
        event.listen(own, name, open_side_file)
    event.listen(own.pool, "checkout", open_side_file)
    add(own, "vase")
    logging.getLogger("sqlalchemy.pool").removeHandler(handler)
    assert items(engine) == ["vase"]


def test_sqlite3_is_as_it_was(file):
    add(engine, "vase")
    for name in (file, "side.sqlite", "file:side.sqlite?mode=rwc"):
        raw = sqlite3.connect(name, uri=True)
        raw.row_factory = sqlite3.Row
        assert raw.execute("SELECT 1 AS n").fetchone()["n"] == 1
        raw.close()
    with pytest.raises(TypeError):
        sqlite3.connect(3)
    raw = sqlite3.connect(":memory:", factory=sqlite3.Connection)
    assert type(raw) is sqlite3.Connection

    class Own(sqlite3.Cursor):
        pass

    assert isinstance(raw.cursor(Own), Own)
    assert isinstance(raw.cursor(factory=Own), Own)
    with pytest.raises(TypeError):
        raw.execute(3)
    raw.close()


async def test_other_files_are_free_for_aiosqlite():
    async with aiosqlite.connect("side.sqlite") as raw:
        await raw.execute("CREATE TABLE IF NOT EXISTS t (a)")
        assert await raw.execute_fetchall("SELECT a FROM t") == []


def test_a_loop_that_ends_before_the_driver_has_connected():
    workers = SimpleQueue()
    may_open = threading.Event()
    opened = []

    def slowly(*args, **kwargs):
        workers.put(threading.current_thread())
        may_open.wait()
        opened.append(sqlite3.Connection(*args, **{**kwargs, "check_same_thread": False}))
        return opened[0]

    async def begin():
        slow = create_async_engine("sqlite+aiosqlite:///shop.db", connect_args={"factory": slowly})
        return asyncio.ensure_future(slow.connect().start()), await asyncio.to_thread(workers.get)

    _, worker = asyncio.run(begin())
    may_open.set()
    worker.join()
    opened[0].close()


def test_a_session_begins_as_the_apps_engine_does(arena, made):
    """By the recipe of SQLAlchemy's documentation for real transactions."""
    own = made("sqlite:///late.sqlite")

    @event.listens_for(own, "connect")
    def leave_it(dbapi_connection, record):
        dbapi_connection.isolation_level = None
        dbapi_connection.execute("PRAGMA foreign_keys = ON")

    @event.listens_for(own, "begin")
    def begin(connection):
        connection.exec_driver_sql("BEGIN")

    own.connect().close()
    with arena.session(database="late") as session:
        assert session.scalar(text("PRAGMA foreign_keys")) == 1
        Base.metadata.create_all(session.connection())
        session.commit()
        session.add(Order(item="vase"))
        session.flush()
        session.rollback()
        assert session.scalar(select(func.count(Order.id))) == 0


def test_an_engine_counts_as_soon_as_it_is_made(arena, made):
    made("sqlite:///counts.sqlite")
    with arena.expect_refusal():
        sqlite3.connect("counts.sqlite")


def test_an_allowed_file_is_reached(made):
    for url in ("sqlite:///allowed.sqlite", "sqlite:///./allowed.sqlite"):
        with made(url).begin() as connection:
            connection.exec_driver_sql("CREATE TABLE IF NOT EXISTS t (a)")
    raw = sqlite3.connect("allowed.sqlite")
    assert raw.execute("SELECT count(*) FROM t").fetchone() == (0,)
    raw.close()


KEPT = []


def test_a_connection_to_an_allowed_file_outlives_its_test():
    KEPT.append(create_engine("sqlite:///allowed.sqlite").connect())
    assert KEPT[0].exec_driver_sql("SELECT 1").scalar_one() == 1


def test_it_is_still_open():
    assert KEPT[0].exec_driver_sql("SELECT 1").scalar_one() == 1
    KEPT[0].close()
    KEPT.pop().engine.dispose()
