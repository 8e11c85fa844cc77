"""Attacks on the developer's files: each is redirected or refused, and its twin shows it is real.

All run twice: with the plugin, where no file may change or come to be, and without it, where each
attack must reach its file. An attack that has no effect without the plugin proves nothing.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from importlib.util import find_spec
from textwrap import dedent, indent
from typing import TYPE_CHECKING

import pytest

from tests.plugin.developer import change_of, small_example

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from tests.example import Example

REDIRECTED, REFUSED = "redirected", "refused"
STOPPED = "stopped"  # by SQLite, to which the guard has forbidden it: there is no line


@dataclass(frozen=True, slots=True)
class Attack:
    """What is done to the file ``file``, and what the guard makes of it.

    ``engine`` is an engine of the app that has not connected yet: on the file where that is the
    ``apps``. The line that the refusal has to name ends with ``# here``. Where ``makes`` is set,
    there is no file before.
    """

    name: str
    expected: str
    code: str
    makes: bool = False
    apps: bool = True

    @property
    def file(self) -> str:
        """The developer's own file of this attack."""
        return f"{self.name}.db"

    @property
    def function(self) -> str:
        """A function of the inner project."""
        return f"def {self.name}(file, engine):\n{indent(dedent(self.code).strip(), '    ')}\n"


def redirected(name: str, code: str) -> Attack:
    """An attack that lands in the arena."""
    return Attack(name, REDIRECTED, code)


def refused(name: str, code: str) -> Attack:
    """An attack that is refused by its line."""
    return Attack(name, REFUSED, code)


def makes(name: str, code: str) -> Attack:
    """An attack that would make the app's file, where there is none yet."""
    return Attack(name, REFUSED, code, makes=True)


def stopped(name: str, code: str) -> Attack:
    """An attack that goes around the guard's own code."""
    return Attack(name, STOPPED, code)


def nobodys(name: str, code: str) -> Attack:
    """An attack by SQLAlchemy's means on a file that no engine has named."""
    return Attack(name, REFUSED, code, apps=False)


URLS = (
    redirected("relative", "add(create_engine(f'sqlite:///{file}'))"),
    redirected("dots", "add(create_engine(f'sqlite:///../{Path.cwd().name}/./{file}'))"),
    redirected("absolute", "add(create_engine(f'sqlite:///{Path(file).absolute()}'))"),
    redirected("url_object", "add(create_engine(URL.create('sqlite', database=file)))"),
    redirected("driver_named", "add(create_engine(f'sqlite+pysqlite:///{file}'))"),
    redirected("uri_rwc", "add(create_engine(f'sqlite:///file:{file}?mode=rwc&uri=true'))"),
    redirected(
        "uri_percent",
        "add(create_engine('sqlite:///file:%75ri_percent%2Edb?uri=true&mode=rw'))",
    ),
    redirected(
        "uri_three_slashes",
        "add(create_engine(f'sqlite:///file://{Path(file).absolute()}?uri=true'))",
    ),
    redirected(
        "uri_localhost",
        "add(create_engine(f'sqlite:///file://localhost{Path(file).absolute()}?uri=true'))",
    ),
    redirected(
        "symlink",
        """
        Path("link.db").symlink_to(file)
        add(create_engine("sqlite:///link.db"))
        """,
    ),
    redirected(
        "symlinked_folder",
        """
        Path("folder").symlink_to(".")
        add(create_engine(f"sqlite:///folder/{file}"))
        """,
    ),
    redirected(
        "chdir",
        """
        with contextlib.chdir(".."):
            add(create_engine(f"sqlite:///project/{file}"))
        """,
    ),
)

ENGINES = (
    redirected("of_config", "add(engine_from_config({'sqlalchemy.url': f'sqlite:///{file}'}))"),
    redirected(
        "of_pool_from_url",
        """
        from sqlalchemy import create_pool_from_url
        connection = create_pool_from_url(f"sqlite:///{file}").connect()
        connection.cursor().execute(TABLE)
        connection.commit()
        connection.close()
        """,
    ),
    redirected(
        "of_raw_connection",
        """
        connection = engine.raw_connection()
        connection.cursor().execute(TABLE)
        connection.commit()
        connection.close()
        """,
    ),
    redirected("of_options", "add(engine.execution_options(stream_results=True))"),
    redirected("of_copy", "add(copy.copy(engine))"),
    redirected("of_null_pool", "add(create_engine(f'sqlite:///{file}', poolclass=NullPool))"),
    redirected("of_static_pool", "add(create_engine(f'sqlite:///{file}', poolclass=StaticPool))"),
    redirected("of_pre_ping", "add(create_engine(f'sqlite:///{file}', pool_pre_ping=True))"),
    redirected(
        "of_async",
        """
        async def main():
            made = create_async_engine(f"sqlite+aiosqlite:///{file}")
            async with made.begin() as connection:
                await connection.execute(text(TABLE))
            await made.dispose()
        asyncio.run(main())
        """,
    ),
    redirected("of_thread", "in_thread(lambda: add(engine))"),
    redirected(
        "of_factory",
        """
        class Mine(sqlite3.Connection):
            pass
        add(create_engine(f"sqlite:///{file}", connect_args={"factory": Mine}))
        """,
    ),
    redirected("of_reset_pool", "engine.dispose()\nadd(engine)"),
    redirected(
        "of_adding_listener",
        """
        @event.listens_for(engine, "do_connect")
        def add_something(dialect, entry, cargs, cparams):
            cparams["timeout"] = 1.0
        add(engine)
        """,
    ),
    *(
        refused(
            f"of_rewriting_class_listener_{kind}",
            f"""
            def rewrite(dialect, entry, cargs, cparams):
                if cargs[0].endswith("elsewhere.db"):
                    cargs[0] = {kind}(file)
            event.listen(Engine, "do_connect", rewrite, insert=True)
            try:
                add_here(create_engine("sqlite:///elsewhere.db"))
            finally:
                event.remove(Engine, "do_connect", rewrite)
            """,
        )
        for kind in ("str", "Path", "in_bytes")
    ),
)

MEDDLERS = (
    refused("creator", "add(create_engine('sqlite://', creator=lambda: open_file(file)))"),
    refused(
        "creator_of_the_driver",
        """
        def open_it():
            return _sqlite3.connect(file)  # here
        add(create_engine("sqlite://", creator=open_it))
        """,
    ),
    refused(
        "creator_of_uri",
        """
        def open_it():
            return sqlite3.connect(f"file:{file}", uri=True)  # here
        add(create_engine("sqlite://", creator=open_it))
        """,
    ),
    refused(
        "async_creator",
        """
        async def open_it():
            return await aiosqlite.connect(file)  # here
        async def main():
            made = create_async_engine("sqlite+aiosqlite://", async_creator=open_it)
            try:
                async with made.begin() as connection:
                    await connection.execute(text(TABLE))
            finally:
                await made.dispose()
        asyncio.run(main())
        """,
    ),
    refused("pool", "add(create_engine('sqlite://', pool=QueuePool(lambda: open_file(file))))"),
    refused(
        "bare_pool",
        """
        connection = QueuePool(lambda: open_file(file)).connect()
        connection.cursor().execute(TABLE)
        connection.commit()
        connection.close()
        """,
    ),
    refused(
        "module",
        """
        class Driver:
            def __getattr__(self, name):
                return getattr(sqlite3, name)
            def connect(self, *args, **options):
                return sqlite3.connect(file)  # here
        add(create_engine("sqlite:///some.db", module=Driver()))
        """,
    ),
    refused(
        "dialect_connect",
        """
        made = create_engine(f"sqlite:///{file}")
        args, options = made.dialect.create_connect_args(made.url)
        connection = made.dialect.connect(*args, **options)  # here
        connection.execute(TABLE)
        connection.commit()
        """,
    ),
    refused(
        "returning_listener",
        """
        event.listen(engine, "do_connect", lambda *_: open_file(file))
        add(engine)
        """,
    ),
    refused(
        "returning_listener_first",
        """
        event.listen(engine, "do_connect", lambda *_: open_file(file), insert=True)
        add(engine)
        """,
    ),
    refused(
        "returning_class_listener_first",
        """
        def give(*_):
            return open_file(file)
        event.listen(Engine, "do_connect", give, insert=True)
        try:
            add(engine)
        finally:
            event.remove(Engine, "do_connect", give)
        """,
    ),
    refused(
        "rewriting_listener",
        """
        def rewrite(dialect, entry, cargs, cparams):
            cargs[:] = [file]
        event.listen(engine, "do_connect", rewrite)
        add_here(engine)
        """,
    ),
    refused(
        "emptying_listener",
        """
        def rewrite(dialect, entry, cargs, cparams):
            cargs.clear()
            cparams.clear()
            cparams["database"] = file
        event.listen(engine, "do_connect", rewrite)
        add_here(engine)
        """,
    ),
    refused(
        "swapping_listener",
        """
        def swap(dbapi_connection, entry):
            entry.dbapi_connection = open_file(file)
        event.listen(engine.pool, "connect", swap)
        add(engine)
        """,
    ),
    nobodys(
        "swapping_to_a_file_of_nobody",
        """
        raw = sqlite3.connect(file)
        def swap(dbapi_connection, entry):
            entry.dbapi_connection = raw
        made = create_engine("sqlite:///swapped.db")
        event.listen(made, "connect", swap)
        add_here(made)
        """,
    ),
    nobodys(
        "creator_of_nobody", "add_here(create_engine('sqlite://', creator=lambda: open_file(file)))"
    ),
    nobodys(
        "creator_that_gives_what_is_open",
        """
        raw = sqlite3.connect(file)
        add_here(create_engine("sqlite://", creator=lambda: raw))
        """,
    ),
    nobodys(
        "listener_to_a_file_of_nobody",
        """
        def rewrite(dialect, entry, cargs, cparams):
            cargs[:] = [file]
        event.listen(engine, "do_connect", rewrite)
        add_here(engine)
        """,
    ),
)

RAW = (
    refused("raw", "write(open_file(file))"),
    refused("raw_bytes", "write(open_file(os.fsencode(file)))"),
    refused("raw_path", "write(open_file(Path(file).absolute()))"),
    refused("raw_uri", "write(sqlite3.connect(f'file:{file}', uri=True))  # here"),
    refused(
        "raw_uri_of_two_modes",
        "write(sqlite3.connect(f'file:{file}?mode=memory&mode=rwc', uri=True))  # here",
    ),
    refused(
        "raw_uri_of_two_systems",
        "write(sqlite3.connect(f'file:{file}?vfs=memdb&vfs=unix', uri=True))  # here",
    ),
    refused(
        "raw_uri_of_memory_in_the_fragment",
        "write(sqlite3.connect(f'file:{file}#?mode=memory', uri=True))  # here",
    ),
    refused("raw_dbapi2", "write(sqlite3.dbapi2.connect(file))  # here"),
    refused("raw_c_module", "write(_sqlite3.connect(file))  # here"),
    refused("raw_class", "write(sqlite3.Connection(file))  # here"),
    refused(
        "raw_subclass",
        """
        class Mine(sqlite3.Connection):
            pass
        write(Mine(file))  # here
        """,
    ),
    refused(
        "raw_reloaded",
        """
        importlib.reload(sqlite3.dbapi2)
        importlib.reload(sqlite3)
        write(sqlite3.connect(file))  # here
        """,
    ),
    refused(
        "raw_imported_anew",
        """
        kept = {name: sys.modules.pop(name) for name in ("sqlite3", "sqlite3.dbapi2")}
        try:
            import sqlite3 as anew
            raw = anew.connect(":memory:")
            raw.execute("ATTACH ? AS x", (file,))  # here
            raw.execute("DELETE FROM x.dancers")
            raw.commit()
        finally:
            sys.modules.update(kept)
        """,
    ),
    refused(
        "raw_patched",
        """
        with mock.patch.object(sqlite3, "connect", REAL_CONNECT):
            write(sqlite3.connect(file))  # here
        """,
    ),
    refused("raw_thread", "in_thread(lambda: write(open_file(file)))"),
    refused(
        "raw_aiosqlite",
        """
        async def main():
            async with aiosqlite.connect(file) as raw:  # here
                await raw.execute(TABLE)
                await raw.commit()
        asyncio.run(main())
        """,
    ),
    refused(
        "raw_symlink",
        """
        Path("soft.db").symlink_to(file)
        write(sqlite3.connect("soft.db"))  # here
        """,
    ),
    refused(
        "raw_backup",
        """
        with sqlite3.connect(":memory:") as source:
            source.execute(TABLE)
        source.backup(sqlite3.connect(file))  # here
        """,
    ),
    refused(
        "engine_backup",
        """
        add(create_engine("sqlite:///engine_backup_source.db"))
        with create_engine("sqlite:///engine_backup_source.db").connect() as connection:
            connection.connection.driver_connection.backup(open_file(file))
        """,
    ),
    refused(
        "dbm_module",
        """
        import dbm.sqlite3
        dbm.sqlite3.open(file, "w")  # here
        """,
    ),
)

ATTACHED = (
    refused("attach_raw", "attach(sqlite3.connect(':memory:'), f\"ATTACH '{file}' AS x\")"),
    refused("attach_bound", "attach(sqlite3.connect(':memory:'), 'ATTACH ? AS x', (file,))"),
    refused(
        "attach_named",
        "attach(sqlite3.connect(':memory:'), 'ATTACH :f AS x', {'f': file})",
    ),
    refused(
        "attach_commented",
        "attach(sqlite3.connect(':memory:'), f\"-- a\\n/* b */ aTTach/*;*/'{file}'as x\")",
    ),
    refused(
        "attach_expression",
        "attach(sqlite3.connect(':memory:'), f\"ATTACH '{file[:3]}' || '{file[3:]}' AS x\")",
    ),
    refused(
        "attach_part_of_a_parameter",
        "attach(sqlite3.connect(':memory:'), \"ATTACH ? || '.db' AS x\", (file[:-3],))",
    ),
    refused(
        "attach_uri",
        "attach(sqlite3.connect('file::memory:', uri=True), f\"ATTACH 'file:{file}' AS x\")",
    ),
    refused(
        "attach_script",
        """
        raw = sqlite3.connect(":memory:")
        raw.executescript(f"SELECT 1; ATTACH '{file}' AS x; DELETE FROM x.dancers;")  # here
        """,
    ),
    refused(
        "attach_again",
        """
        raw = sqlite3.connect(":memory:")
        raw.execute("ATTACH ':memory:' AS x")
        raw.execute("DETACH x")
        attach(raw, f"ATTACH '{file}' AS x")
        """,
    ),
    refused(
        "attach_aiosqlite",
        """
        async def main():
            async with aiosqlite.connect(":memory:") as raw:
                await raw.execute("ATTACH ? AS x", (file,))  # here
                await raw.execute("DELETE FROM x.dancers")
                await raw.commit()
        asyncio.run(main())
        """,
    ),
    refused(
        "attach_on_an_engine",
        """
        made = create_engine("sqlite:///attaching.db")
        @event.listens_for(made, "connect")
        def attach_it(dbapi_connection, entry):
            dbapi_connection.execute(f"ATTACH '{file}' AS x")  # here
        with made.begin() as connection:
            connection.execute(text("CREATE TABLE IF NOT EXISTS x.attacks (a)"))
        """,
    ),
    refused(
        "attach_on_memory",
        """
        with create_engine("sqlite://").begin() as connection:
            connection.exec_driver_sql("ATTACH ? AS x", (file,))  # here
            connection.exec_driver_sql("CREATE TABLE IF NOT EXISTS x.attacks (a)")
        """,
    ),
    refused(
        "attach_on_an_async_engine",
        """
        async def main():
            made = create_async_engine("sqlite+aiosqlite:///attaching.db")
            async with made.begin() as connection:
                await connection.execute(text("ATTACH :file AS x"), {"file": file})  # here
                await connection.execute(text("CREATE TABLE IF NOT EXISTS x.attacks (a)"))
            await made.dispose()
        asyncio.run(main())
        """,
    ),
    stopped(
        "attach_on_a_tests_own_class",
        """
        class Mine(sqlite3.Connection):
            pass
        attach(sqlite3.connect(":memory:", factory=Mine), f"ATTACH '{file}' AS x")
        """,
    ),
    stopped(
        "attach_on_an_engine_of_a_factory_function",
        """
        def make(*args, **options):
            return sqlite3.Connection(*args, **options)
        made = create_engine("sqlite:///by_function.db", connect_args={"factory": make})
        with made.connect() as connection:
            raw = connection.connection.driver_connection
            raw.execute("ATTACH ? AS x", (file,))
            raw.execute("CREATE TABLE x.attacks (a)")
            raw.commit()
        """,
    ),
    stopped(
        "attach_by_the_class_of_cursors",
        """
        raw = sqlite3.connect(":memory:")
        sqlite3.Cursor(raw).execute("ATTACH ? AS x", (file,))
        raw.execute("CREATE TABLE x.attacks (a)")
        raw.commit()
        """,
    ),
    stopped(
        "attach_by_the_class_of_connections",
        """
        with create_engine("sqlite:///by_class.db").connect() as connection:
            raw = connection.connection.driver_connection
            sqlite3.Connection.execute(raw, "ATTACH ? AS x", (file,))
            raw.execute("CREATE TABLE x.attacks (a)")
            raw.commit()
            raw.execute("DETACH x")
        """,
    ),
    makes(
        "vacuum_into",
        """
        raw = sqlite3.connect(":memory:")
        raw.execute("CREATE TABLE t (a)")
        raw.execute(f"VACUUM INTO '{file}'")  # here
        """,
    ),
    makes(
        "vacuum_into_bound",
        """
        raw = sqlite3.connect(":memory:")
        raw.execute("CREATE TABLE t (a)")
        raw.execute("VACUUM INTO ?", (file,))  # here
        """,
    ),
    makes(
        "vacuum_into_of_an_engine",
        """
        with create_engine("sqlite:///vacuumed.db").connect() as connection:
            connection.exec_driver_sql("CREATE TABLE IF NOT EXISTS t (a)")
            connection.commit()
            connection.exec_driver_sql(f"VACUUM INTO '{file}'")  # here
        """,
    ),
)

PROCESSES = (
    redirected(
        "forked",
        """
        if (child := os.fork()) == 0:
            try:
                add(engine)
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        """,
    ),
    redirected(
        "forked_by_multiprocessing",
        """
        process = multiprocessing.get_context("fork").Process(target=add, args=(engine,))
        process.start()
        process.join()
        """,
    ),
    refused("child_by_file", "child(file)"),
    refused("child_by_path", "child(Path(file).absolute())"),
    refused("child_by_option", "child('--file', f'--file={Path(file).absolute()}')"),
    refused("child_by_url", "child('-', f'sqlite+aiosqlite:///{file}')"),
    refused("child_by_uri", "child('-', f'file:{file}?mode=rw')"),
    refused("child_by_bytes", "child(os.fsencode(file))"),
    refused(
        "child_in_a_folder",
        """
        Path("beside").mkdir(exist_ok=True)
        child(f"../{file}", cwd="beside")
        """,
    ),
    refused(
        "child_by_a_link", "Path('l').mkdir(); os.symlink('..', 'l/up'); child('l/up/' + file)"
    ),
    refused(
        "child_by_its_code",
        """
        code = f"import sqlite3; sqlite3.connect('{file}').execute({TABLE!r})"
        subprocess.run([sys.executable, "-c", code], check=True)  # here
        """,
    ),
    refused("child_of_a_shell", "subprocess.run(f'{COMMAND} {file}', shell=True)  # here"),
    refused("child_of_the_system", "os.system(f'{COMMAND} {file}')  # here"),
    refused("child_spawned", "spawn([sys.executable, 'child.py', file])"),
    refused(
        "child_of_a_loop",
        """
        async def main():
            made = await asyncio.create_subprocess_exec(sys.executable, "child.py", file)  # here
            await made.wait()
        asyncio.run(main())
        """,
    ),
)

GENERAL = (*URLS, *ENGINES, *MEDDLERS, *RAW, *ATTACHED, *PROCESSES)

HEADER = """
import _sqlite3, asyncio, contextlib, copy, importlib, multiprocessing, os, sqlite3, subprocess
import sys, threading
from pathlib import Path
from unittest import mock
import aiosqlite
import pytest
from sqlalchemy import URL, create_engine, engine_from_config, event, text
from sqlalchemy.engine import Engine
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool, QueuePool, StaticPool

TABLE = "CREATE TABLE IF NOT EXISTS attacks (a)"
REAL_CONNECT = getattr(sqlite3.connect, "__wrapped__", sqlite3.connect)

def add(engine):
    with engine.begin() as connection:
        connection.execute(text(TABLE))

def add_here(engine):
    with engine.begin() as connection:  # here
        connection.execute(text(TABLE))

def open_file(file):
    return sqlite3.connect(file)  # here

in_bytes = os.fsencode

def write(raw):
    raw.execute(TABLE)
    raw.commit()
    raw.close()

def attach(raw, statement, values=()):
    raw.execute(statement, values)  # here
    raw.execute("CREATE TABLE x.attacks (a)")
    raw.commit()
    raw.close()

COMMAND = f"{sys.executable} child.py"

def child(*args, **options):
    command = [sys.executable, Path("child.py").absolute(), *args]
    subprocess.run(command, check=True, **options)  # here

def spawn(command):
    made = os.posix_spawn(command[0], command, os.environ)  # here
    os.waitpid(made, 0)

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
ENGINES = {
    name: create_engine(f"sqlite:///{name}.db" if apps else f"sqlite:///own_of_{name}.db")
    for name, (_, _, apps) in ATTACKS.items()
}

@pytest.fixture
def arena_or_none(request):
    with contextlib.suppress(pytest.FixtureLookupError):
        return request.getfixturevalue("arena")

@pytest.mark.parametrize("name", ATTACKS)
def test_attack(name, arena_or_none):
    attack, expected, _ = ATTACKS[name]
    if expected == "redirected" or arena_or_none is None:
        attack(f"{name}.db", ENGINES[name])
        return
    if expected == "stopped":
        with pytest.raises(sqlite3.OperationalError, match="too many attached"):
            attack(f"{name}.db", ENGINES[name])
        return
    with arena_or_none.expect_refusal() as refused:
        attack(f"{name}.db", ENGINES[name])
    assert "# here" in refused.error.cause, refused.error.cause
"""


def module_of(attacks: Iterable[Attack]) -> str:
    """A test module: each attack is a test of its own."""
    rows = (f"    {one.name!r}: ({one.name}, {one.expected!r}, {one.apps})," for one in attacks)
    table = "\n".join(rows)
    functions = "\n".join(one.function for one in attacks)
    return f"{HEADER}\n{functions}\nATTACKS = {{\n{table}\n}}\n{FOOTER}"


CONFIG = "[pytest]\npythonpath = .\n"

# A command as people have them: it opens what its last argument names.
CHILD = """
import sqlite3, sys
named = sys.argv[-1].partition(":///")[2] or sys.argv[-1].removeprefix("--file=")
with sqlite3.connect(named, uri=True) as db:
    db.execute("CREATE TABLE IF NOT EXISTS attacks (a)")
"""


def example_of(folder: Path, attacks: Iterable[Attack]) -> Example:
    """A project in which all attacks are made in one run."""
    example = small_example(folder, test_attacks=module_of(attacks), child=CHILD)
    return example.with_paths({"pytest.ini": CONFIG})


def reached(attacks: Iterable[Attack], example: Example, *, plugin: bool) -> list[str]:
    """Run, and return the names of the attacks that changed their file, or made it."""
    attacks = list(attacks)
    files = {one.file: one.makes for one in attacks}
    with change_of(example, files) as changed:
        run = example.run("-W", "ignore", plugin=plugin)
        run.expect(passed=len(attacks))
    return [file.removesuffix(".db") for file in changed]


def available(attacks: Iterable[Attack]) -> list[Attack]:
    """Without what this Python or this SQLite does not have."""
    missing = {
        "dbm": find_spec("dbm.sqlite3") is None,
        "vacuum_into": sqlite3.sqlite_version_info < (3, 27),
    }
    left_out = tuple(name for name, is_missing in missing.items() if is_missing)
    return [one for one in attacks if not one.name.startswith(left_out)]


def test_no_attack_reaches_the_developers_files_pitfall_135(tmp_path: Path) -> None:
    """Redirected, or refused by the line that tried."""
    attacks = available(GENERAL)
    assert reached(attacks, example_of(tmp_path, attacks), plugin=True) == []


@pytest.mark.slow
def test_without_the_plugin_each_attack_reaches_its_file(tmp_path: Path) -> None:
    """The twin."""
    attacks = available(GENERAL)
    names = [one.name for one in attacks]
    assert reached(attacks, example_of(tmp_path, attacks), plugin=False) == names
