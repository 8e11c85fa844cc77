"""Attacks on a developer's databases. Without the plugin each of them reaches its database."""

from __future__ import annotations

import itertools
import os
import secrets
import sqlite3
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import make_url

from tests.example import Example, Run
from tests.plugin.attacks import moments
from tests.plugin.attacks.changes import CHANGES
from tests.plugin.developer import CONFIG, change_of, small_example
from tests.servers.postgresql import connect

if TYPE_CHECKING:
    from collections.abc import Iterator

ATTACKS = Path(__file__).parent / "attacks"
KINDS = {"@redirected", "@refused", "@prevented", "@by_driver"}
BARE = "[pytest]\npythonpath = .\n"


def attacks_on(kind: str) -> tuple[dict[str, str], list[str]]:
    names = ["attack.py", "changing.py", "child.py", "server_child.py"]
    files = {name: (ATTACKS / name).read_text() for name in names}
    text = (ATTACKS / f"on_{kind}.py").read_text()
    files[f"test_{kind}.py"] = text
    found = [after for line, after in itertools.pairwise(text.splitlines()) if line in KINDS]
    return files, [line.removeprefix("def ").partition("(")[0] for line in found]


@pytest.mark.parametrize("plugin", [True, False])
def test_attacks_on_files(tmp_path: Path, *, plugin: bool) -> None:
    texts, names = attacks_on("files")
    example = small_example(tmp_path).with_paths({**texts, "pytest.ini": BARE})
    files = [f"{name}.db" for name in names]
    with change_of(example, *files) as changed:
        example.run("-W", "ignore", plugin=plugin).expect(passed=len(names))
    assert changed == ([] if plugin else files)


@pytest.fixture(name="developer")
def _developer() -> Iterator[str]:
    name = f"developer_{secrets.token_hex(4)}"
    with closing(connect("postgres")) as control:
        control.execute(f"CREATE DATABASE {name}")
        with closing(connect(name)) as connection:
            connection.execute("CREATE TABLE dancers (name varchar PRIMARY KEY)")
        yield name
        control.execute(f"DROP DATABASE {name} WITH (FORCE)")


def variables(developer: str) -> dict[str, str]:
    url = make_url(os.environ["TESTS_POSTGRESQL"])
    return {
        "PGHOST": str(url.host),
        "PGPORT": str(url.port),
        "PGUSER": str(url.username),
        "PGDATABASE": developer,
        "PGSERVICEFILE": "services.conf",
    }


def on_server(folder: Path, developer: str, files: dict[str, str]) -> Example:
    place = variables(developer)
    service = (
        f"[dev]\nhost={place['PGHOST']}\nport={place['PGPORT']}\nuser={place['PGUSER']}\n"
        f"dbname={developer}\n"
    )
    schema = "CREATE TABLE dancers (name varchar PRIMARY KEY);"
    config = f"{BARE}arena_schema = schema.sql\n"
    fixed = {"services.conf": service, "schema.sql": schema, "pytest.ini": config}
    return Example(folder / "project", fixed | files, place)


@contextmanager
def rows_of(developer: str) -> Iterator[list[str]]:
    """Yield the list of the names that the developer's database has at the end."""
    names: list[str] = []
    yield names
    with closing(connect(developer)) as connection:
        names += [str(name) for (name,) in connection.execute("SELECT name FROM dancers")]


@pytest.mark.parametrize("drivers", ["redirect", "refuse", ""])
def test_attacks_on_a_server(tmp_path: Path, developer: str, drivers: str) -> None:
    files, names = attacks_on("servers")
    example = on_server(tmp_path, developer, files)
    config = example.files["pytest.ini"] + f"arena_drivers = {drivers}\n" if drivers else BARE
    with rows_of(developer) as rows:
        run = example.with_paths({"pytest.ini": config}).run(
            "-W", "ignore", plugin=bool(drivers), env={"ARENA_DATABASE": SERVER, "DRIVERS": drivers}
        )
        run.expect(passed=len(names))
    assert sorted(rows) == ([] if drivers else sorted(names))


SERVER = os.environ.get("TESTS_POSTGRESQL", "")
ALLOWED = """
import asyncio
import asyncpg, psycopg
import pytest
from test_servers import DEV, LIBPQ, PLACE, aadd, add, connect, create_engine, put

def by_engine(name):
    add(create_engine(f"postgresql+psycopg://{PLACE}"), name)

def by_creator(name):
    add(create_engine("postgresql+psycopg://", creator=connect), name)

def by_driver(name):
    put(connect(), name)

def by_async_creator(name):
    aadd("postgresql+asyncpg://", name, async_creator=lambda: asyncpg.connect(f"postgresql://{PLACE}"))

@pytest.mark.parametrize("way", [by_engine, by_creator, by_driver, by_async_creator])
def test_it(way, arena):
    way(way.__name__)
    with arena.expect_refusal():
        psycopg.connect(LIBPQ, dbname="template1")
"""


def test_an_allowed_database_is_reached(tmp_path: Path, developer: str) -> None:
    place = variables(developer)
    allowed = f"postgresql://{place['PGHOST']}:{place['PGPORT']}/{developer}"
    files, _ = attacks_on("servers")
    example = on_server(tmp_path, developer, {**files, "test_allowed.py": ALLOWED})
    config = f"{example.files['pytest.ini']}arena_allow = {allowed}\n"
    example = example.with_paths({"pytest.ini": config})
    with rows_of(developer) as rows:
        example.run("test_allowed.py", env={"ARENA_DATABASE": SERVER}).expect(passed=4)
    assert sorted(rows) == ["by_async_creator", "by_creator", "by_driver", "by_engine"]


CHANGED = """
import subprocess
from conftest import ENGINES

def test_the_engines_name_the_files():
    subprocess.run("rm go*.db", shell=True, check=True)
    for engine in ENGINES:
        engine.dispose()
"""


@pytest.mark.parametrize("plugin", [True, False])
def test_a_file_that_code_changes_in_another_way_fails_the_run(
    tmp_path: Path, *, plugin: bool
) -> None:
    """Before an engine names it, or by its path."""
    names = ["conftest_of_changes.py", "changes.py", "child.py"]
    texts = {name: (ATTACKS / name).read_text() for name in names}
    texts["conftest.py"] = texts.pop("conftest_of_changes.py")
    files = {**texts, "test_changed.py": CHANGED, "pytest.ini": BARE}
    example = small_example(tmp_path).with_paths(files)
    names = [f"{name}.db" for name in (*CHANGES, "gone")]
    with change_of(example, *names) as changed:
        run = example.run("-q", plugin=plugin).expect(int(plugin), passed=1)
    assert changed == names
    if plugin:
        run.says(*(f"{example.folder / name} was changed during this run" for name in names))
        run.says(f"arena_allow = {example.folder / 'written.db'}")


LOGGED = """
import os, sqlite3
from sqlalchemy import create_engine

with sqlite3.connect("logged.db") as connection:
    connection.execute("INSERT INTO dancers VALUES ('Grain')")
connection.close()
engine = create_engine("sqlite:///logged.db")

def test_the_engine_names_the_file():
    engine.dispose()

def test_the_log_stays(arena):
    with arena.expect_refusal():
        os.remove("logged.db-wal")
"""


def test_a_row_in_the_log_of_a_file_fails_the_run(tmp_path: Path) -> None:
    """Another connection of the developer is open, so SQLite leaves the row in the log."""
    example = small_example(tmp_path).with_paths({"pytest.ini": BARE, "test_logged.py": LOGGED})
    with closing(sqlite3.connect(example.write() / "logged.db")) as developer:
        developer.execute("PRAGMA journal_mode = WAL")
        developer.execute("CREATE TABLE dancers (name)")
        run = example.run("-q", "test_logged.py").expect(1, passed=2)
    run.says("logged.db was changed during this run")


def test_the_empty_log_of_a_reader_is_no_change(tmp_path: Path) -> None:
    """SQLite creates it at the first read."""
    read = LOGGED.replace("INSERT INTO dancers VALUES ('Grain')", "SELECT * FROM dancers")
    read = read.replace("connection.close()\n", "")
    example = small_example(tmp_path).with_paths({"pytest.ini": BARE, "test_read.py": read})
    with closing(sqlite3.connect(example.write() / "logged.db")) as developer:
        developer.execute("PRAGMA journal_mode = WAL")
        developer.execute("CREATE TABLE dancers (name)")
    example.run("-q", "test_read.py").expect(passed=2)


# It writes a row when somebody opens its pipe to write.
BESIDE = """
import sqlite3
connection = sqlite3.connect("dev.db", isolation_level=None)
connection.execute("SELECT * FROM dancers").fetchall()
print("ready", flush=True)
while True:
    open("ask").close()
    connection.execute("INSERT INTO dancers VALUES (random())")
    open("answer", "w").close()
"""
ASKING = """
import os, subprocess, sys
from pathlib import Path
from app import engine, names

def test_another():
    assert names(engine) == []

def test_it():
    open("ask", "w").close()
    open("answer").close()
    """
CHILD = "subprocess.Popen([sys.executable, 'beside.py'], stdout=subprocess.DEVNULL)"
SPOILING = [
    "Path('dev.db').write_bytes(b'')",
    "os.truncate('dev.db', 0)",
    "os.replace('new', 'dev.db')",
    "os.link('dev.db', 'link'); os.truncate('link', 0)",
    "os.rename('../project', '../moved')",
    "subprocess.run([sys.executable, '-c', 'import os; os.remove(\"dev\" + \".db\")'])",
]


@contextmanager
def beside(project: Example) -> Iterator[None]:
    """Run the development server: it has the file open before the run, and writes meanwhile."""
    with change_of(project) as changed:
        process = project.start_python("beside.py")
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield
        finally:
            process.kill()
            process.communicate()
    assert changed == ["dev.db"]


def asking(folder: Path, code: str = "") -> Example:
    """Return a project whose first test waits for a row of the server, and also does something."""
    project = small_example(folder, test_it=ASKING + code, beside=BESIDE)
    project = project.with_paths({"new": "new"})
    for pipe in ("ask", "answer"):
        os.mkfifo(project.write() / pipe)
    return project


def in_own_process(project: Example, *options: str) -> Run:
    """Run pytest without a script of the tests, which has not imported SQLAlchemy."""
    process = project.start(*options)
    output, _ = process.communicate()
    return Run(process.returncode, output, project.folder)


@pytest.mark.parametrize("code", SPOILING)
def test_a_file_to_which_a_server_writes_stays(tmp_path: Path, code: str) -> None:
    """Its time is that of the server's last row, and it is older than the run."""
    project = asking(tmp_path, code)
    with beside(project):
        project.run().expect(1, passed=1, failed=1).says("refused: ", "[A201]")
    with closing(sqlite3.connect(project.folder / "dev.db")) as connection:
        assert "The developer" in [name for (name,) in connection.execute("SELECT * FROM dancers")]


CONFTEST = f"""
import subprocess, sys
child = {CHILD}

def pytest_unconfigure():
    child.kill()
    child.wait()
"""
CONNECTING = """
def test_it():
    from app import engine
    engine.connect().close()
"""
EARLY = f"""{CONNECTING}
    open("ask", "w").close()
    open("answer").close()
"""


ONCE = """
import os

def pytest_configure(config):
    if not hasattr(config, "workerinput"):
        os.remove("dev.db")
"""


def test_a_worker_knows_what_the_controller_removed(tmp_path: Path) -> None:
    """The process of pytest-xdist that starts the workers has no engine for the file."""
    project = small_example(tmp_path, conftest=ONCE, test_it=CONNECTING)
    with change_of(project) as changed:
        run = in_own_process(project, "-p", "xdist.plugin", "-n", "2").expect(1, passed=1)
    run.says("dev.db was changed during this run")
    assert changed == ["dev.db"]


@pytest.mark.parametrize("config", [BARE, CONFIG])
def test_a_development_server_that_a_conftest_starts_fails_the_run(
    tmp_path: Path, config: str
) -> None:
    """The same program as before. Without an option the run begins later, with the import."""
    project = asking(tmp_path).with_paths({"pytest.ini": config})
    project = project.with_files(conftest=CONFTEST, test_it=EARLY)
    with change_of(project) as changed:
        in_own_process(project).expect(1, passed=1).says("dev.db was changed during this run")
    assert changed == ["dev.db"]


MOMENTS = """
from conftest import attack
attack("module")

def test_attack(wide):
    attack("test")
"""


@pytest.mark.parametrize("plugin", [True, False])
def test_attacks_at_each_moment(tmp_path: Path, *, plugin: bool) -> None:
    files = {
        "conftest.py": (ATTACKS / "conftest_of_moments.py").read_text(),
        "moments.py": (ATTACKS / "moments.py").read_text(),
        "test_moments.py": MOMENTS,
        "pytest.ini": BARE,
    }
    example = small_example(tmp_path).with_paths(files)
    with change_of(example, *moments.FILES) as changed:
        run = example.run("-s", plugin=plugin)
    assert changed == ([] if plugin else moments.FILES), run.output
    if not plugin:
        return
    assert run.status == 1, run.output  # the app swallows refusals
    for moment in moments.DURING:
        run.says(f"{moment} by_engine done", f"{moment} by_driver ProductionDatabaseError")
    for moment in moments.AFTER:
        run.says(f"{moment} by_engine AfterSessionError")
