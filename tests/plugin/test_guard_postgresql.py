"""Attacks on the developer's own database on a server, and the proof that each is real.

All run twice: with the plugin, where the database has the same rows afterwards and nobody has even
logged in to it, and without it, where each attack must reach it.
"""

from __future__ import annotations

import os
import secrets
import tempfile
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent, indent
from typing import TYPE_CHECKING

import psycopg
import pytest

from pytest_arena._postgresql.servers._cluster import CLUSTERS
from tests.example import Example
from tests.gate.postgresql import SERVER
from tests.servers.waiting import end_cluster

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

REDIRECTED, REFUSED = "redirected", "refused"
SOCKETS = Path("/var/run/postgresql")


@dataclass(frozen=True, slots=True)
class Attack:
    """What is done to the database ``DEV``, and what the guard makes of it.

    ``engine`` is an engine of the app's on it that has not connected yet. An attack puts its own
    ``name`` into a table. The line that a refusal has to name ends with ``# here``.
    """

    name: str
    expected: str
    code: str

    @property
    def function(self) -> str:
        """A function of the inner project."""
        return f"def {self.name}(name, engine):\n{indent(dedent(self.code).strip(), '    ')}\n"


def redirected(name: str, code: str) -> Attack:
    """An attack that lands in the arena."""
    return Attack(name, REDIRECTED, code)


def refused(name: str, code: str) -> Attack:
    """An attack that is refused by its line."""
    return Attack(name, REFUSED, code)


URLS = (
    redirected("url_psycopg", "add(create_engine(f'postgresql+psycopg://{PLACE}/{DEV}'), name)"),
    redirected("url_psycopg2", "add(create_engine(f'postgresql+psycopg2://{PLACE}/{DEV}'), name)"),
    redirected("url_asyncpg", "asyncio.run(aadd(f'postgresql+asyncpg://{PLACE}/{DEV}', name))"),
    redirected("url_async", "asyncio.run(aadd(f'postgresql+psycopg://{PLACE}/{DEV}', name))"),
    redirected(
        "url_of_several_hosts",
        """
        hosts = f"host={HOST}:{PORT}&host=localhost:{PORT}"
        add(create_engine(f"postgresql+psycopg://{USER}@/{DEV}?{hosts}"), name)
        """,
    ),
    redirected(
        "url_of_several_hosts_asyncpg",
        """
        hosts = f"host={HOST}:{PORT}&host=localhost:{PORT}"
        asyncio.run(aadd(f"postgresql+asyncpg://{USER}@/{DEV}?{hosts}", name))
        """,
    ),
    redirected(
        "host_in_arguments",
        """
        to = {"host": HOST, "port": PORT}
        add(create_engine(f"postgresql+psycopg://{USER}@db.invalid/{DEV}", connect_args=to), name)
        """,
    ),
    redirected(
        "dsn_in_arguments",
        """
        to = {"dsn": f"dbname={DEV} port={PORT}"}
        add(create_engine(f"postgresql+psycopg2://{USER}@{HOST}", connect_args=to), name)
        """,
    ),
    redirected(
        "dsn_in_arguments_asyncpg",
        """
        to = {"dsn": f"postgresql://{PLACE}/{DEV}"}
        asyncio.run(aadd("postgresql+asyncpg://", name, connect_args=to))
        """,
    ),
    redirected(
        "conninfo_in_arguments",
        """
        to = {"conninfo": f"dbname={DEV} port={PORT}"}
        add(create_engine(f"postgresql+psycopg://{USER}@{HOST}", connect_args=to), name)
        """,
    ),
    redirected(
        "service_in_arguments",
        "add(create_engine('postgresql+psycopg://', connect_args={'service': 'dev'}), name)",
    ),
    redirected("environment_alone", "add(create_engine('postgresql+psycopg://'), name)"),
    redirected("environment_alone_psycopg2", "add(create_engine('postgresql+psycopg2://'), name)"),
    redirected("environment_alone_asyncpg", "asyncio.run(aadd('postgresql+asyncpg://', name))"),
    redirected("of_null_pool", "add(create_engine(engine.url, poolclass=NullPool), name)"),
    redirected("of_thread", "in_thread(lambda: add(engine, name))"),
    redirected(
        "of_adding_listener",
        """
        @event.listens_for(engine, "do_connect")
        def add_something(dialect, entry, cargs, cparams):
            cparams["application_name"] = "token"
        add(engine, name)
        """,
    ),
)

MEDDLERS = (
    refused("creator", "add(create_engine('postgresql+psycopg://', creator=open_it), name)"),
    refused(
        "creator_psycopg2",
        """
        def open_psycopg2():
            return psycopg2.connect(LIBPQ)  # here
        add(create_engine("postgresql+psycopg2://", creator=open_psycopg2), name)
        """,
    ),
    refused(
        "async_creator",
        """
        async def open_asyncpg():
            return await asyncpg.connect(f"postgresql://{PLACE}/{DEV}")  # here
        asyncio.run(aadd("postgresql+asyncpg://", name, async_creator=open_asyncpg))
        """,
    ),
    refused("pool", "add(create_engine('postgresql+psycopg://', pool=QueuePool(open_it)), name)"),
    refused(
        "bare_pool",
        """
        connection = QueuePool(open_it).connect()
        put(connection, name)
        """,
    ),
    refused(
        "returning_listener",
        """
        event.listen(engine, "do_connect", lambda *_: open_it())
        add(engine, name)
        """,
    ),
    refused(
        "returning_class_listener_first",
        """
        def give(*_):
            return open_it()
        event.listen(Engine, "do_connect", give, insert=True)
        try:
            add(engine, name)
        finally:
            event.remove(Engine, "do_connect", give)
        """,
    ),
    refused(
        "rewriting_listener",
        """
        def rewrite(dialect, entry, cargs, cparams):
            cparams["dbname"] = DEV
        event.listen(engine, "do_connect", rewrite)
        add_here(engine, name)
        """,
    ),
    refused(
        "replacing_listener",
        """
        def rewrite(dialect, entry, cargs, cparams):
            cargs[:] = [LIBPQ]
            cparams.clear()
        event.listen(engine, "do_connect", rewrite)
        add_here(engine, name)
        """,
    ),
    refused(
        "rewriting_listener_asyncpg",
        """
        made = create_async_engine(f"postgresql+asyncpg://{PLACE}/{DEV}")
        def rewrite(dialect, entry, cargs, cparams):
            cparams.update(host=HOST, port=PORT, user=USER, database=DEV)
        event.listen(made.sync_engine, "do_connect", rewrite)
        async def main():
            try:
                async with made.begin() as connection:  # here
                    await connection.execute(INSERT, {"name": name})
            finally:
                await made.dispose()
        asyncio.run(main())
        """,
    ),
    refused(
        "swapping_listener",
        """
        def swap(dbapi_connection, entry):
            entry.dbapi_connection = open_it()
        event.listen(engine.pool, "connect", swap)
        add(engine, name)
        """,
    ),
    refused(
        "dialect_connect",
        """
        args, options = engine.dialect.create_connect_args(engine.url)
        put(engine.dialect.connect(*args, **options), name)  # here
        """,
    ),
)

RAW = (
    refused("raw_psycopg", "put(open_it(), name)"),
    refused("raw_psycopg_class", "put(psycopg.Connection.connect(LIBPQ), name)  # here"),
    refused("raw_psycopg2", "put(psycopg2.connect(LIBPQ), name)  # here"),
    refused(
        "raw_psycopg2_pool",
        "put(psycopg2.pool.ThreadedConnectionPool(1, 1, LIBPQ).getconn(), name)  # here",
    ),
    refused("raw_environment", "put(psycopg.connect(), name)  # here"),
    refused("raw_service", "put(psycopg.connect(service='dev'), name)  # here"),
    refused("raw_thread", "in_thread(lambda: put(open_it(), name))"),
    refused("raw_localhost", "put(psycopg.connect(LIBPQ, host='localhost'), name)  # here"),
    refused("raw_socket", f"put(psycopg.connect(LIBPQ, host='{SOCKETS}'), name)  # here"),
    refused(
        "raw_asyncpg",
        """
        async def main():
            connection = await asyncpg.connect(f"postgresql://{PLACE}/{DEV}")  # here
            await connection.execute(f"INSERT INTO dancers VALUES ('{name}')")
            await connection.close()
        asyncio.run(main())
        """,
    ),
    refused(
        "raw_asyncpg_pool",
        """
        async def main():
            url = f"postgresql://{PLACE}/{DEV}"
            async with asyncpg.create_pool(url, min_size=1) as pool:  # here
                await pool.execute(f"INSERT INTO dancers VALUES ('{name}')")
        asyncio.run(main())
        """,
    ),
    refused(
        "raw_async_psycopg",
        """
        async def main():
            async with await psycopg.AsyncConnection.connect(LIBPQ) as connection:  # here
                await connection.execute("INSERT INTO dancers VALUES (%s)", (name,))
        asyncio.run(main())
        """,
    ),
    refused(
        "raw_psycopg_pool",
        """
        with psycopg_pool.ConnectionPool(LIBPQ, min_size=1) as pool:  # here
            with pool.connection() as connection:
                connection.execute("INSERT INTO dancers VALUES (%s)", (name,))
        """,
    ),
)

CHILDREN = (
    refused("child_by_url", "child(name, f'postgresql+psycopg://{PLACE}/{DEV}')"),
    refused("child_by_another_driver", "child(name, f'postgresql+pg8000://{PLACE}/{DEV}')"),
    refused("child_by_libpqs_url", "child(name, f'postgres://{PLACE}/{DEV}')"),
    refused("child_by_another_name", "child(name, f'postgresql://{USER}@localhost:{PORT}/{DEV}')"),
    refused("child_by_option", "child(name, f'--url=postgresql://{PLACE}/{DEV}')"),
    refused(
        "child_of_a_shell", "os.system(f'{COMMAND} {name} postgresql://{PLACE}/{DEV}')  # here"
    ),
    refused(
        "child_of_a_loop",
        """
        async def main():
            url = engine.url.render_as_string(hide_password=False)
            made = await asyncio.create_subprocess_exec(*COMMAND.split(), name, url)  # here
            await made.wait()
        asyncio.run(main())
        """,
    ),
)

ATTACKS = (*URLS, *MEDDLERS, *RAW, *CHILDREN)

HEADER = f"""
import asyncio, contextlib, os, subprocess, sys, threading
import asyncpg, psycopg, psycopg2, psycopg2.pool, psycopg_pool
import pytest
from sqlalchemy import create_engine, event, text
from sqlalchemy.engine import Engine
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool, QueuePool

HOST, PORT, USER, DEV = {SERVER.host!r}, {SERVER.port}, {SERVER.user!r}, os.environ["DEV"]
PLACE = f"{{USER}}@{{HOST}}:{{PORT}}"
LIBPQ = f"host={{HOST}} port={{PORT}} user={{USER}} dbname={{DEV}}"
INSERT = text("INSERT INTO dancers VALUES (:name)")

def add(engine, name):
    with engine.begin() as connection:
        connection.execute(INSERT, {{"name": name}})
    engine.dispose()

def add_here(engine, name):
    with engine.begin() as connection:  # here
        connection.execute(INSERT, {{"name": name}})

async def aadd(url, name, **options):
    made = create_async_engine(url, **options)
    try:
        async with made.begin() as connection:
            await connection.execute(INSERT, {{"name": name}})
    finally:
        await made.dispose()

def open_it():
    return psycopg.connect(LIBPQ)  # here

def put(connection, name):
    connection.cursor().execute("INSERT INTO dancers VALUES (%s)", (name,))
    connection.commit()
    connection.close()

COMMAND = f"{{sys.executable}} child.py"

def child(*args):
    subprocess.run([*COMMAND.split(), *args], check=True)  # here

def in_thread(call):
    failed = []
    def run():
        try:
            call()
        except BaseException as error:
            failed.append(error)
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    for error in failed:
        raise error
"""

FOOTER = """
@pytest.fixture
def arena_or_none(request):
    with contextlib.suppress(pytest.FixtureLookupError):
        return request.getfixturevalue("arena")

REDIRECTED = [name for name, (_, expected) in ATTACKS.items() if expected == "redirected"]

def engine_of_app():
    return create_engine(f"postgresql+psycopg://{PLACE}/{DEV}")

def test_redirected():
    # In one test, since each that writes costs a database; and all of them see the same one.
    for name in REDIRECTED:
        ATTACKS[name][0](name, engine_of_app())
    with engine_of_app().connect() as connection:
        assert set(REDIRECTED) <= set(connection.scalars(text("TABLE dancers")))

@pytest.mark.parametrize("name", [name for name in ATTACKS if name not in REDIRECTED])
def test_refused(name, arena_or_none):
    if arena_or_none is None:
        ATTACKS[name][0](name, engine_of_app())
        return
    with arena_or_none.expect_refusal() as refused:
        ATTACKS[name][0](name, engine_of_app())
    assert "# here" in refused.error.cause, refused.error
"""

APP = """
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

class Base(DeclarativeBase):
    pass

class Dancer(Base):
    __tablename__ = "dancers"
    name: Mapped[str] = mapped_column(primary_key=True)
"""

# A command as people have them: it connects to what its last argument names.
CHILD = """
import sys
import psycopg
from sqlalchemy import make_url

url = make_url(sys.argv[2].removeprefix("--url=").replace("postgres://", "postgresql://"))
with psycopg.connect(url.set(drivername="postgresql").render_as_string(False)) as connection:
    connection.execute("INSERT INTO dancers VALUES (%s)", (sys.argv[1],))
"""

CONFIG = "[pytest]\narena_schema = app:Base\npythonpath = .\n"


@dataclass(frozen=True, slots=True)
class Developer:
    """The developer's own database."""

    name: str

    @property
    def environment(self) -> dict[str, str]:
        """A shell in which everything leads there."""
        return {
            "DEV": self.name,
            "PGHOST": SERVER.host,
            "PGPORT": str(SERVER.port),
            "PGUSER": SERVER.user,
            "PGDATABASE": self.name,
            "PGSERVICEFILE": "services.conf",
        }

    @property
    def services(self) -> str:
        """A service file of hers."""
        place = f"host={SERVER.host}\nport={SERVER.port}\nuser={SERVER.user}"
        return f"[dev]\n{place}\ndbname={self.name}\n"

    def rows(self) -> list[tuple[str, str]]:
        """What is in it, and by which transactions."""
        with _connected(self.name) as connection:
            found = connection.execute("SELECT name, xmin::text FROM dancers ORDER BY name")
            return [(name, xmin) for name, xmin in found]

    def logins(self) -> int:
        """How many sessions there have been, ours included.

        A session is counted before the server forgets it, and one that has just been closed may
        still be there.
        """
        with _connected(SERVER.database) as connection:
            while self._number(connection, "count(*)", "pg_stat_activity"):
                pass
            return self._number(connection, "max(sessions)", "pg_stat_database")

    def _number(self, connection: psycopg.Connection, what: str, table: str) -> int:
        row = connection.execute(f"SELECT {what} FROM {table} WHERE datname = %s", (self.name,))
        return int(row.fetchall()[0][0])

    @contextmanager
    def untouched(self) -> Iterator[None]:
        """Assert that the same rows are there at the end, and that nobody has logged in."""
        rows, logins = self.rows(), self.logins()
        yield
        assert self.logins() == logins
        assert self.rows() == rows


@contextmanager
def _connected(database: str) -> Iterator[psycopg.Connection]:
    place = f"host={SERVER.host} port={SERVER.port} user={SERVER.user}"
    with closing(psycopg.connect(place, dbname=database, autocommit=True)) as connection:
        yield connection


@pytest.fixture(name="developer")
def _developer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Developer]:
    for name in [name for name in os.environ if name.startswith("PG")]:
        monkeypatch.delenv(name)
    name = f"developer_{secrets.token_hex(4)}"
    with _connected(SERVER.database) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    try:
        with _connected(name) as connection:
            connection.execute("CREATE TABLE dancers (name varchar PRIMARY KEY)")
            connection.execute("INSERT INTO dancers VALUES ('the developer')")
        yield Developer(name)
    finally:
        with _connected(SERVER.database) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(name="private", scope="module")
def _private() -> Iterator[dict[str, str]]:
    """Another server for the arena's databases, in memory: most attacks do not care where."""
    memory = Path("/dev/shm")  # noqa: S108 - a folder of its own is made in it
    with tempfile.TemporaryDirectory(dir=memory if memory.exists() else None) as name:
        folder = Path(name)
        folder.chmod(0o711)  # the server may run as another user
        yield {"ARENA_DATABASE": "own", "ARENA_CLUSTERS": str(folder / "c")}
        for path in folder.glob("c/*/*/"):
            end_cluster(CLUSTERS.folder(path))


def example_of(folder: Path, developer: Developer, **files: str) -> Example:
    """A project beside the developer's database."""
    texts = {f"{name}.py": text for name, text in files.items()}
    fixed = {
        "app.py": APP,
        "child.py": CHILD,
        "pytest.ini": CONFIG,
        "services.conf": developer.services,
    }
    return Example(folder / "project", fixed | texts)


def module_of(attacks: Iterable[Attack]) -> str:
    """A test module: each attack is a test of its own."""
    attacks = list(attacks)
    table = "\n".join(f"    {one.name!r}: ({one.name}, {one.expected!r})," for one in attacks)
    functions = "\n".join(one.function for one in attacks)
    return f"{HEADER}\n{functions}\nATTACKS = {{\n{table}\n}}\n{FOOTER}"


def available() -> list[Attack]:
    """Return the attacks without those that need a socket, if it is elsewhere."""
    has_socket = (SOCKETS / f".s.PGSQL.{SERVER.port}").exists()
    return [each for each in ATTACKS if has_socket or "socket" not in each.name]


def test_no_attack_reaches_the_developers_server_pitfall_135(
    tmp_path: Path, developer: Developer, private: dict[str, str]
) -> None:
    """Redirected, or refused by the line that tried, without a login."""
    attacks = available()
    example = example_of(tmp_path, developer, test_attacks=module_of(attacks))
    with developer.untouched():
        run = example.run("-W", "ignore", env=developer.environment | private)
    run.expect(passed=1 + sum(one.expected == REFUSED for one in attacks))


@pytest.mark.slow
def test_without_the_plugin_each_attack_reaches_the_server(
    tmp_path: Path, developer: Developer
) -> None:
    """The twin."""
    attacks = available()
    example = example_of(tmp_path, developer, test_attacks=module_of(attacks))
    example = example.with_paths({"pytest.ini": "[pytest]\npythonpath = .\n"})
    run = example.run("-W", "ignore", plugin=False, env=developer.environment)
    run.expect(passed=1 + sum(one.expected == REFUSED for one in attacks))
    reached = {name for name, _ in developer.rows()} - {"the developer"}
    assert reached == {one.name for one in attacks}
    assert developer.logins() > len(attacks) / 2  # which is what `untouched` looks at


@pytest.mark.slow
def test_a_listener_hears_its_own_test_alone_pitfall_130(
    tmp_path: Path, developer: Developer, private: dict[str, str]
) -> None:
    """An app with a connection of its driver's beside its engine, where the user has it led.

    Kept in a global. Where nothing is written, the database of the next test is the very same.
    """
    app = f"""{APP}
import os
import asyncpg
from sqlalchemy.ext.asyncio import create_async_engine
URL = "postgresql://{SERVER.user}@{SERVER.host}:{SERVER.port}/{developer.name}"
engine = create_async_engine(URL.replace("://", "+asyncpg://"))
heard, kept = [], []

async def listen():
    kept.append(await asyncpg.connect(URL))
    await kept[-1].add_listener("dancers", lambda *news: heard.append(news[-1]))
"""
    test = """
import asyncio
import psycopg
import pytest
from sqlalchemy import create_engine, text
from app import URL, engine, heard, kept, listen

pids = []

async def notify(word):
    async with engine.begin() as connection:
        await connection.execute(text("SELECT pg_notify('dancers', :word)"), {"word": word})

async def names():
    return [await one.fetchval("SELECT current_database()") for one in kept if not one.is_closed()]

async def is_ended(connection):
    ended = asyncio.Event()
    if not connection.is_closed():
        connection.add_termination_listener(lambda _: ended.set())
        async with asyncio.timeout(5):
            await ended.wait()

made = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(URL))

@pytest.mark.parametrize("turn", range(3))
def test_what_a_pool_has_opened_by_a_driver_is_the_pools(turn):
    with made.connect() as connection:
        pids.append(connection.connection.driver_connection.info.backend_pid)
        assert connection.scalar(text("SELECT count(*) FROM dancers")) == 0
    if turn == 2:
        # It did not end with its level, which no test had changed. Turn 0 built the template.
        assert pids[1] == pids[2]
        made.dispose()

async def test_that_listens():
    await listen()

async def test_that_is_not_heard():
    await notify("nobody")
    await is_ended(kept[0])
    assert heard == []

async def test_that_is_heard():
    await listen()
    await notify("one")
    async with engine.connect() as connection:
        assert [await connection.scalar(text("SELECT current_database()"))] == await names()
    assert heard == ["one"]

async def test_that_is_not_heard_either():
    await notify("two")
    await is_ended(kept[1])
    assert heard == ["one"]
"""
    config = f"{CONFIG}asyncio_mode = auto\nasyncio_default_test_loop_scope = session\n"
    config += "asyncio_default_fixture_loop_scope = session\narena_drivers = redirect\n"
    example = example_of(tmp_path, developer, app=app, test_news=test)
    with developer.untouched():
        run = example.with_paths({"pytest.ini": config}).run(env=developer.environment | private)
    run.expect(passed=7)


@pytest.mark.slow
def test_before_tests_and_after_them_pitfall_135(tmp_path: Path, developer: Developer) -> None:
    """At the import of a conftest, in collection, after the session, at exit, in a child process.

    All errors are swallowed, as an app may do: the run fails, and names the lines.
    """
    attempt = f"""
import atexit, os, pathlib, subprocess, sys
import psycopg, psycopg2

LIBPQ = "host={SERVER.host} port={SERVER.port} user={SERVER.user} dbname={developer.name}"

def attempt(moment, connect=psycopg.connect):
    try:
        connect(LIBPQ).close()
        outcome = "reached"
    except Exception as error:
        outcome = type(error).__name__
    with pathlib.Path("outcomes").open("a") as file:
        print(moment, outcome, file=file)
"""
    conftest = """
import atexit
from attempt import attempt
attempt("conftest")
atexit.register(attempt, "exit")

def pytest_collection_finish():
    attempt("collection")

def pytest_sessionfinish():
    attempt("session's end")

def pytest_unconfigure():
    attempt("the very end")
"""
    test = """
import os, subprocess, sys
import psycopg2
from attempt import attempt
attempt("module", psycopg2.connect)

def test_swallowed():
    attempt("test")

def test_child():
    code = "import os, psycopg; psycopg.connect(os.environ['DATABASE_URL'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "OperationalError" in done.stderr and "arena.invalid" in done.stderr, done.stderr
"""
    url = f"postgresql://{SERVER.user}@{SERVER.host}:{SERVER.port}/{developer.name}"
    example = example_of(tmp_path, developer, attempt=attempt, conftest=conftest, test_it=test)
    with developer.untouched():
        run = example.run(env={**developer.environment, "DATABASE_URL": url})
    outcomes = (example.folder / "outcomes").read_text().splitlines()
    moments = [line.rpartition(" ")[0] for line in outcomes]
    assert moments == [
        *("conftest", "module", "collection", "test", "session's end", "the very end", "exit"),
    ], run.output
    assert not [line for line in outcomes if not line.endswith("Error")], outcomes
    assert run.status == 1, run.output
    run.says("attempt.py:9", "by psycopg2, and not by the app's engine")


def test_what_is_allowed_is_reached_by_any_way(tmp_path: Path, developer: Developer) -> None:
    """By an engine, by its creator, by a driver; and no other database is."""
    test = f"""{HEADER}
import pytest
@pytest.mark.parametrize("way", ["engine", "creator", "driver", "asyncpg"])
def test_it(way, arena):
    if way == "engine":
        add(create_engine(f"postgresql+psycopg://{{PLACE}}/{{DEV}}"), way)
    elif way == "creator":
        add(create_engine("postgresql+psycopg://", creator=open_it), way)
    elif way == "driver":
        put(psycopg2.connect(LIBPQ), way)
    else:
        async def opened():
            return await asyncpg.connect(f"postgresql://{{PLACE}}/{{DEV}}")
        asyncio.run(aadd("postgresql+asyncpg://", way, async_creator=opened))
    with arena.expect_refusal():
        psycopg.connect(LIBPQ, dbname="template1")
    with arena.expect_refusal():
        psycopg.connect(LIBPQ, host=f"{{HOST}},192.0.2.1")
"""
    allowed = f"postgresql://{SERVER.host}:{SERVER.port}/{developer.name}"
    example = example_of(tmp_path, developer, test_it=test)
    example = example.with_paths({"pytest.ini": f"{CONFIG}arena_allow = {allowed}\n"})
    example.run(env=developer.environment).expect(passed=4)
    names = {name for name, _ in developer.rows()}
    assert names == {"the developer", "engine", "creator", "driver", "asyncpg"}


@pytest.mark.slow
def test_an_allowed_engine_is_asked_where_a_listener_has_led_it_pitfall_137(
    tmp_path: Path, developer: Developer
) -> None:
    """With no eye on the drivers. The refusal names the very server: no other is to be allowed."""
    test = f"""{HEADER}
import pytest

@pytest.mark.parametrize("driver", ["psycopg", "psycopg2", "asyncpg"])
def test_it(driver, arena):
    name = "database" if driver == "asyncpg" else "dbname"
    elsewhere = f"{{HOST}}:{{PORT}}/{SERVER.database}"

    def asked(change):
        make = create_async_engine if driver == "asyncpg" else create_engine
        made = make(f"postgresql+{{driver}}://{{PLACE}}/{{DEV}}")
        heard = lambda dialect, entry, cargs, cparams: cparams.update(change)
        event.listen(getattr(made, "sync_engine", made), "do_connect", heard)
        question = text("SELECT current_database()")
        async def ask():
            try:
                async with made.connect() as connection:
                    return await connection.scalar(question)
            finally:
                await made.dispose()
        if driver == "asyncpg":
            return asyncio.run(ask())
        with made.connect() as connection:
            return connection.scalar(question)

    assert asked({{}}) == DEV
    with arena.expect_refusal() as refused:
        asked({{name: {SERVER.database!r}}})
    assert f"arena_allow = postgresql://{{elsewhere}}" in refused.error.fix, refused.error
    with arena.expect_refusal() as refused:
        asked({{name: {SERVER.database!r}, "host": "localhost"}})
    assert f"arena_allow = postgresql://localhost:{{PORT}}/{SERVER.database}" in refused.error.fix
    if driver != "asyncpg":  # a name beside the number is for certificates
        with arena.expect_refusal() as refused:
            asked({{name: {SERVER.database!r}, "host": "allowed.invalid", "hostaddr": HOST}})
        assert f"arena_allow = postgresql://{{elsewhere}}" in refused.error.fix, refused.error
"""
    place = f"postgresql://{SERVER.host}:{SERVER.port}/{developer.name}"
    allowed = f"\n    {place}\n    postgresql://allowed.invalid:*/*"
    config = f"{CONFIG}arena_drivers = off\narena_allow = {allowed}\n"
    example = example_of(tmp_path, developer, test_it=test).with_paths({"pytest.ini": config})
    example.run("-W", "ignore", env=developer.environment).expect(passed=3)


def test_the_live_connection_decides_pitfall_137(tmp_path: Path, private: dict[str, str]) -> None:
    """On the very server that the arena uses, and with no eye on the drivers: by the database."""
    test = """
import asyncio
import asyncpg, psycopg, psycopg2
import pytest
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.ext.asyncio import create_async_engine

COUNT = text("SELECT count(*) FROM dancers")

def of_asyncpg(place, name):
    async def opened():
        return await asyncpg.connect(**place, database=name)
    async def count():
        engine = create_async_engine("postgresql+asyncpg://", async_creator=opened)
        try:
            async with engine.connect() as connection:
                return await connection.scalar(COUNT)
        finally:
            await engine.dispose()
    return asyncio.run(count())

def counted(driver, creator):
    engine = create_engine(f"postgresql+{driver}://", creator=creator)
    try:
        with engine.connect() as connection:
            return connection.scalar(COUNT)
    finally:
        engine.dispose()

def of_psycopg(place, name):
    return counted("psycopg", lambda: psycopg.connect(**place, dbname=name))

def of_psycopg2(place, name):
    return counted("psycopg2", lambda: psycopg2.connect(**place, dbname=name))

def test_it(arena):
    with create_engine("postgresql+psycopg://db.example/shop").begin() as connection:
        connection.execute(text("INSERT INTO dancers VALUES ('inside')"))
    url = make_url(arena.url)
    host = url.host or url.query["host"]
    place = {"host": host, "port": url.port or 5432, "user": url.username}
    inside, outside = url.database, "look_alike"
    with psycopg.connect(**place, dbname="postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {outside} TEMPLATE template0")
    with psycopg.connect(**place, dbname=outside) as connection:
        connection.execute("CREATE TABLE dancers (name varchar)")
    for way in (of_psycopg, of_psycopg2, of_asyncpg):
        assert way(place, inside) == 1
        with arena.expect_refusal() as refused:
            way(place, outside)
        assert outside in refused.error.what and not refused.error.what.endswith(inside)
    with psycopg.connect(**place, dbname="postgres", autocommit=True) as connection:
        # Those that were refused are closed: this is not forced.
        connection.execute(f"DROP DATABASE {outside}")
"""
    files = {"app.py": APP, "test_it.py": test, "pytest.ini": f"{CONFIG}arena_drivers = off\n"}
    run = Example(tmp_path / "project", files).run("-W", "ignore", env=private)
    run.expect(passed=1)
