"""Connections that a driver opens by itself: refused before a socket is, led, or let be.

The drivers of a process are changed for good, so that each test is a process of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.example import Example
from tests.gate.postgresql import SERVER

if TYPE_CHECKING:
    from pathlib import Path

# A resolver that knows one database of the arena's: `postgres` on the server, under another name.
HEADER = f"""
import asyncio, inspect, importlib, socket, sys, threading
from types import SimpleNamespace
from pytest_arena._postgresql._driver_guard import CONNECTIONS, watch_drivers
from pytest_arena._product import ConnectTarget, Key
from pytest_arena._gate._engines import requested_by_engine
from pytest_arena._gate._engines import known_engines
from pytest_arena._ledger import Ledger
from pytest_arena._values import Address
from pytest_arena.errors import ProductionDatabaseError, RefusedError, UnknownDatabaseError

PLACE = ({SERVER.host!r}, {SERVER.port}, {SERVER.user!r}, {SERVER.database!r})
ADDRESS = Address("postgresql", *PLACE)
ENDED = []
ISOLATION = SimpleNamespace(end=lambda pid, *_, cancel: ENDED.append(pid))
PRODUCT = SimpleNamespace(users=SimpleNamespace(login_of=lambda *_: None))
BASE = SimpleNamespace(isolation=ISOLATION, product=PRODUCT)
TARGET = ConnectTarget(Key("server", "postgresql/shop"), "", (1, 1), ADDRESS, database=BASE)
ALLOWED = "postgresql://127.0.0.1:{SERVER.port}/template1"
OUTSIDE = "host=192.0.2.1 dbname=shop user=u password=secret"
DSN = "postgresql://u:secret@192.0.2.1/shop"

class Resolver:
    def __init__(self):
        self.ledger, self.opened, self.asked, self.level = Ledger(), [], [], 7
        self.files = SimpleNamespace(is_allowed=lambda name: name == ALLOWED)
    def ensure_target(self, asked):
        self.asked.append((asked.name, asked.dialect.driver, asked.dialect.is_async))
        return TARGET
    config = property(lambda self: SimpleNamespace(drivers=mode))
    def provisioned(self):
        database = SimpleNamespace(target=TARGET, is_shared=False)
        ours = lambda asked: database if asked.database == ADDRESS.database else None
        return [SimpleNamespace(product=SimpleNamespace(name="postgresql", live_at=ours))]
    def is_named_by_engine(self, asked):
        engines = map(requested_by_engine, known_engines.find())
        return asked.database in [engine.database for engine in engines]
    def refuse_in_build(self, asked): ...
    def refuse_late(self, *, is_statement=False): ...
    def copied(self, driver_connection, statement):
        pass

    def opened_raw(self, key):
        self.opened.append(key)
    def serial(self):
        return self.level

arena = Resolver()
mode = "refuse"
resolver = lambda: arena
def install():
    watch_drivers(lambda: resolver())

def line_of(call):
    try:
        call()
    except RefusedError as error:
        return error.cause, error
    raise AssertionError("was not refused")
"""

# Each way by which a driver connects, as a function of its arguments.
WAYS = """
import asyncpg, psycopg, psycopg2, psycopg2.pool, psycopg_pool

async def by_asyncpg():
    await (await asyncpg.connect(DSN)).close()  # here
async def by_asyncpg_arguments():
    await (await asyncpg.connection.connect(host="192.0.2.1", database="shop")).close()  # here
async def by_asyncpg_pool():
    async with asyncpg.create_pool(DSN, min_size=1, max_size=1) as pool:  # here
        await pool.fetchval("SELECT 1")
def by_psycopg():
    psycopg.connect(OUTSIDE).close()  # here
def by_psycopg_class():
    psycopg.Connection.connect(host="192.0.2.1", dbname="shop").close()  # here
def by_psycopg_subclass():
    class Mine(psycopg.Connection):
        pass
    Mine.connect(DSN).close()  # here
async def by_async_psycopg():
    await (await psycopg.AsyncConnection.connect(DSN)).close()  # here
def by_psycopg_pool():
    with psycopg_pool.ConnectionPool(DSN, min_size=1) as pool:  # here
        pool.wait()
def by_psycopg_null_pool():
    with psycopg_pool.NullConnectionPool(DSN) as pool:  # here
        pool.getconn()
async def by_async_psycopg_pool():
    async with psycopg_pool.AsyncConnectionPool(DSN, min_size=1) as pool:  # here
        await pool.wait()
def by_psycopg2():
    psycopg2.connect(OUTSIDE).close()  # here
def by_psycopg2_arguments():
    psycopg2.connect(host="192.0.2.1", database="shop").close()  # here
def by_psycopg2_pool():
    psycopg2.pool.SimpleConnectionPool(1, 1, OUTSIDE).closeall()  # here
def in_thread():
    failed = []
    def run():
        try:
            psycopg.connect(DSN)  # here
        except RefusedError as error:
            failed.append(error)
    thread = threading.Thread(target=run)
    thread.start(); thread.join()
    for error in failed:
        raise error

def run(way):
    asyncio.run(way()) if inspect.iscoroutinefunction(way) else way()

ALL = [by_asyncpg, by_asyncpg_arguments, by_asyncpg_pool, by_psycopg, by_psycopg_class,
       by_psycopg_subclass, by_async_psycopg, by_psycopg_pool, by_psycopg_null_pool,
       by_async_psycopg_pool, by_psycopg2, by_psycopg2_arguments,
       by_psycopg2_pool, in_thread]
"""

REFUSED = """
import gc
for way in ALL:
    cause, error = line_of(lambda: run(way))
    assert "# here" in cause, (way, cause)
    assert "secret" not in str(error) and "postgresql://192.0.2.1:5432/shop" in str(error), error
assert len(arena.ledger.refusals) == len(ALL), arena.ledger.refusals
assert not arena.opened
print("all refused")
"""


def run(folder: Path, *parts: str) -> None:
    """Run the parts as one script, which must come to its end."""
    text = "\n".join((*parts, "print('came to its end')"))
    done = Example(folder / "project", {"script.py": text}).python("-W", "error", "script.py")
    assert done.status == 0, done.output
    done.says("came to its end")


def test_each_driver_is_refused_by_its_line(tmp_path: Path) -> None:
    """Whether it is imported before the guard is there or after it, and without any socket."""
    no_socket = "def never(event, args):\n    assert event != 'socket.connect', args\n"
    no_socket += "sys.addaudithook(never)\n"
    run(tmp_path / "after", HEADER, no_socket, "install()", WAYS, REFUSED)
    run(tmp_path / "before", HEADER, no_socket, WAYS, "install()", "install()", REFUSED)


def test_each_driver_is_led_where_the_user_wants_it(tmp_path: Path) -> None:
    """It lands in the arena's database, and is known by its line, its level and its backend."""
    run(
        tmp_path,
        HEADER,
        "install()",
        WAYS,
        """
mode = "redirect"
for way in ALL[:-1]:
    before = len(arena.opened)
    arena.asked.clear()
    run(way)
    assert len(arena.opened) > before, way
    assert {name for name, *_ in arena.asked} == {"postgresql://192.0.2.1:5432/shop"}, way
    assert all(is_async == ("async" in way.__name__) for *_, is_async in arena.asked), arena.asked
assert not arena.ledger.refusals

CONNECTIONS.end(7)
first, second = psycopg.connect(DSN), psycopg2.connect(DSN)
arena.level = 8
third = psycopg2.connect(DSN)
CONNECTIONS.end(7)
assert CONNECTIONS.find(third) and not CONNECTIONS.find(first) and not CONNECTIONS.find(second)
assert ENDED[-2:] == [one.info.backend_pid for one in (first, second)], ENDED
for one in (first, second, third):
    one.close()

async def both():
    one = await asyncpg.connect(DSN, server_settings={"search_path": "app"})
    assert await one.fetchval("SHOW search_path") == "app"
    assert CONNECTIONS.find(one)
    await one.close()
asyncio.run(both())
""",
    )


def test_what_is_inside_or_allowed_is_let_be(tmp_path: Path) -> None:
    """By the database's name, whoever logs in there; and with ``off``, all."""
    run(
        tmp_path,
        HEADER,
        "install()",
        WAYS,
        """
place = f"host={ADDRESS.host} port={ADDRESS.port} user={ADDRESS.user}"
inside = psycopg.connect(f"{place} dbname={ADDRESS.database} application_name=mine")
assert inside.info.parameter_status("application_name") == "mine"
assert arena.opened == [TARGET.key] and not arena.asked
inside.close()
# A name of the arena's on another server leads to the arena's own.
psycopg2.connect(f"host=192.0.2.1 user={ADDRESS.user} dbname={ADDRESS.database}").close()

allowed = psycopg2.connect(f"{place} dbname=template1")
assert allowed.info.dbname == "template1" and CONNECTIONS.find(allowed).target is None
allowed.close()
line_of(lambda: psycopg2.connect(host="127.0.0.1,192.0.2.1", dbname="template1"))

mode = "off"
off = psycopg.connect(f"{place} dbname=template1", application_name="off")
assert off.info.dbname == "template1"
off.close()
""",
    )


def test_an_engine_that_was_led_is_let_through(tmp_path: Path) -> None:
    """Unless a listener of the app's leads it elsewhere afterwards: refused, whatever the mode."""
    run(
        tmp_path,
        HEADER,
        "install()",
        """
from sqlalchemy import create_engine, event, text
from sqlalchemy.ext.asyncio import create_async_engine
from pytest_arena._postgresql._arguments import redirect

def engine_of(driver, change=None):
    make = create_async_engine if driver in ("asyncpg", "psycopg_async") else create_engine
    engine = make(f"postgresql+{driver}://u:secret@192.0.2.1/shop")
    sync = getattr(engine, "sync_engine", engine)
    @event.listens_for(sync, "do_connect")
    def lead(dialect, entry, cargs, cparams):
        redirect(dialect.driver, ADDRESS, cargs, cparams)
    if change:
        @event.listens_for(sync, "do_connect")
        def elsewhere(dialect, entry, cargs, cparams):
            cparams.update(change)  # here
    return engine

def ask(engine):
    if not hasattr(engine, "sync_engine"):
        with engine.connect() as connection:
            return connection.scalar(text("SELECT current_database()"))
    async def main():
        async with engine.connect() as connection:
            return await connection.scalar(text("SELECT current_database()"))
        await engine.dispose()
    async def all():
        try:
            return await main()
        finally:
            await engine.dispose()
    return asyncio.run(all())

for driver in ("asyncpg", "psycopg", "psycopg_async", "psycopg2"):
    name = "database" if driver == "asyncpg" else "dbname"
    engine = engine_of(driver)
    assert ask(engine) == ADDRESS.database
    if not hasattr(engine, "sync_engine"):
        engine.dispose()
    for mode in ("refuse", "redirect", "off"):
        cause, error = line_of(lambda: ask(engine_of(driver, {name: "template1"})))
        assert "listener" in error.why, error
    mode = "refuse"
    line_of(lambda: ask(engine_of(driver, {"host": "192.0.2.1", name: "shop"})))
    # The name of a database of the arena's leads there, whatever host stands before it.
    assert ask(engine_of(driver, {"host": "192.0.2.1"})) == ADDRESS.database
""",
    )


def test_the_arenas_own_connections_are_let_through(tmp_path: Path) -> None:
    """The guard does not ask about them."""
    run(
        tmp_path,
        HEADER,
        "install()",
        """
from pytest_arena._postgresql import _control as control
own = control.open_control(ADDRESS)
assert own.rows("SELECT current_database()") == [(ADDRESS.database,)]
own.close()
assert not arena.opened and not arena.ledger.refusals
""",
    )


def test_a_refusal_says_whose_database_it_was(tmp_path: Path) -> None:
    """The app's own, where an engine means it; and what is to be written, to go on."""
    run(
        tmp_path,
        HEADER,
        "install()",
        """
import psycopg
from sqlalchemy import create_engine
from pytest_arena._gate._engines import known_engines, watch_engines
watch_engines(lambda engine: known_engines.add(engine, 0))
engine = create_engine("postgresql+psycopg://192.0.2.1/shop")
_, error = line_of(lambda: psycopg.connect(DSN))
assert type(error) is ProductionDatabaseError, error
assert "arena_drivers = redirect" in error.fix and "db_session" in error.fix, error.fix
assert "arena_allow = postgresql://192.0.2.1:5432/shop" in error.fix, error.fix
_, error = line_of(lambda: psycopg.connect(DSN, dbname="other"))
assert type(error) is UnknownDatabaseError, error
_, error = line_of(lambda: psycopg.connect(host="arena.invalid", dbname="shop"))
assert "arena_allow" not in error.fix, error.fix
_, error = line_of(lambda: psycopg.connect(host="a,b", dbname="shop"))
assert "arena_allow = postgresql://a:5432/shop, postgresql://b:5432/shop" in error.fix, error.fix
assert len(str(error).splitlines()) <= 12
""",
    )
