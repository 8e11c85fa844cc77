"""Other processes: what they find in the environment, and what is said of those that do not."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from tests.plugin.test_postgresql_story import PRODUCTION, on_postgresql

if TYPE_CHECKING:
    from tests.example import Example

CLI = """
import os, sqlite3, sys
url = os.environ.get("DATABASE_URL", "")
with sqlite3.connect(sys.argv[1] if sys.argv[1:] else url.partition(":///")[2]) as db:
    print([name for (name,) in db.execute("SELECT name FROM dancers")])
    db.execute("DELETE FROM dancers")
"""

READS_THE_VARIABLE = """
import subprocess, sys

def test_a_child_finds_the_test_database_before_anybody_has_connected():
    done = subprocess.run([sys.executable, "cli.py"], capture_output=True, text=True, check=True)
    assert done.stdout == "['Sand']\\n"

def test_what_it_did_is_undone(test_client):
    assert test_client.get("/dancers").json() == ["Sand"]
"""

# The path is in the child's code alone.
BY_ITS_CODE = """
import os, sqlite3
db = sqlite3.connect("dev.db")
db.execute("DELETE FROM dancers")
db.commit()
os._exit(0)
"""

KNOWS_THE_FILE = """
import subprocess, sys

def test_a_child_that_has_the_file_from_elsewhere(test_client):
    subprocess.run([sys.executable, "deletes.py"], check=True)
"""

MAKE_DEV = """
import sqlite3
with sqlite3.connect("dev.db") as db:
    db.execute("CREATE TABLE dancers (name TEXT)")
"""


def test_a_child_finds_the_tests_database_in_the_environment(example: Example) -> None:
    """Also where it is the first to open it, and what it does is undone."""
    tests = example.with_files(cli=CLI, test_cli=READS_THE_VARIABLE)
    tests.run(env={"DATABASE_URL": "sqlite+aiosqlite:///dev.db"}).expect(passed=2)


FORKED = """
import multiprocessing
from sqlalchemy import create_engine, text

engine = create_engine("sqlite:///dev.db")

def add():
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO dancers (name) VALUES ('Ruby')"))

def test_a_fork_is_the_first_to_connect(test_client):
    process = multiprocessing.get_context("fork").Process(target=add)
    process.start()
    process.join()
    assert test_client.get("/dancers").json() == ["Sand", "Ruby"]
"""


def test_a_fork_that_connects_first_works_on_the_tests_database(example: Example) -> None:
    """What it writes is seen by its parent, which has not connected before."""
    tests = example.with_files(test_forked=FORKED)
    tests.run("-W", "ignore::DeprecationWarning").expect(passed=1)


def test_a_change_of_the_apps_own_file_by_another_process_is_told(example: Example) -> None:
    """The guard stands in this process; of what goes around it, the summary speaks."""
    tests = example.with_files(deletes=BY_ITS_CODE, test_cli=KNOWS_THE_FILE, make_dev=MAKE_DEV)
    tests.python("make_dev.py")
    os.utime(tests.folder / "dev.db", (1, 1))
    run = tests.run("-q").expect(1, passed=1)
    run.says(f"arena: {tests.folder / 'dev.db'} was changed during this run, by another program")


@pytest.mark.slow
def test_a_change_that_stands_in_the_wal_is_told(example: Example) -> None:
    """The file itself is as it was."""
    tests = example.with_files(
        deletes=BY_ITS_CODE,
        test_cli=KNOWS_THE_FILE,
        make_dev=MAKE_DEV + 'db.execute("PRAGMA journal_mode=wal")',
    )
    tests.python("make_dev.py")
    os.utime(tests.folder / "dev.db", (1, 1))
    tests.run().expect(1, passed=1).says(f"{tests.folder / 'dev.db'} was changed during this run")
    assert (tests.folder / "dev.db").stat().st_mtime == 1


BEFORE_THE_ENGINE = """
import asyncio
import sqlite3
from contextlib import closing
import aiosqlite
import pytest
from sqlalchemy import create_engine, text

MAKE = "CREATE TABLE IF NOT EXISTS items (name TEXT)"

async def amake():
    async with aiosqlite.connect("own.db") as db:
        await db.execute(MAKE)

@pytest.fixture(scope="session")
def file(request):
    if "asyncio" in request.config.getoption("-k"):
        asyncio.run(amake())
    elif "writes" in request.config.getoption("-k"):
        with closing(sqlite3.connect("own.db")) as db:
            db.execute(MAKE)
    else:
        with closing(sqlite3.connect("own.db")) as db:
            db.execute("SELECT * FROM sqlite_master").fetchall()
    return "own.db"

@pytest.mark.parametrize("how", ["writes", "asyncio", "reads"])
def test_by_an_engine(file, how):
    engine = create_engine(f"sqlite:///{file}")
    with engine.connect() as connection:
        assert connection.scalars(text("SELECT name FROM sqlite_master")).all() == []
    engine.dispose()
"""


@pytest.mark.parametrize("how", ["writes", "asyncio"])
def test_a_file_that_was_written_before_an_engine_meant_it_is_told(
    example: Example, how: str
) -> None:
    """P3: its rows are not where the engine is led to, which nobody would guess; nor undone."""
    tests = example.with_files(test_own=BEFORE_THE_ENGINE)
    run = tests.run("-q", "-k", how, "test_own.py").expect(1, passed=1)
    file = tests.folder / "own.db"
    run.says(
        f"arena: {file} was changed during this run",
        "before the app had an engine for the file",
        f"arena_allow = {file}",
    )


def test_a_file_that_was_read_before_an_engine_meant_it_is_as_it_was(example: Example) -> None:
    """There is nothing to tell."""
    make = MAKE_DEV.replace("dev.db", "own.db")
    tests = example.with_files(test_own=BEFORE_THE_ENGINE, make_dev=make)
    tests.python("make_dev.py")
    tests.run("-k", "reads", "test_own.py").expect(passed=1).never_says("was changed")


DEFAULTS = """
import os, sys
from sqlalchemy import create_engine, text
url = os.environ.get(sys.argv[1], "sqlite:///dev.db").replace("+aiosqlite", "")
url = url.replace("+asyncpg", "+psycopg")
with create_engine(url).begin() as connection:
    connection.execute(text("INSERT INTO dancers (name) VALUES ('Child')"))
"""

UNSET = """
import subprocess, sys
import pytest

def child(name):
    command = [sys.executable, "cli.py", name]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.returncode, done.stderr.strip().splitlines()[-2:]

@pytest.mark.parametrize("turn", range(2))
def test_a_child_has_the_tests_database_by_the_name_that_nobody_has_set(test_client, turn):
    assert child("SHOP_URL") == (0, [])
    assert test_client.get("/dancers").json() == ["Sand", "Child"]
"""


@pytest.mark.slow
def test_a_variable_that_nobody_has_set_is_set_for_children(example: Example) -> None:
    """They would fall back to the app's default, which is the developer's own database."""
    tests = example.with_files(cli=DEFAULTS, test_cli=UNSET, make_dev=MAKE_DEV)
    tests.python("make_dev.py")
    tests.run("-oarena_env=SHOP_URL").expect(passed=2).never_says("was changed")


ON_A_SERVER = """
import subprocess, sys

def test_a_child_reaches_nobody(test_client):
    command = [sys.executable, "cli.py", "DATABASE_URL"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode
    # An older psycopg does not say the name.
    assert "arena.invalid" in done.stderr or "Name or service not known" in done.stderr
"""


@pytest.mark.slow
def test_on_a_server_such_a_child_reaches_nobody(example: Example) -> None:
    """The database may have another name in the next test: `arena.url` says it."""
    tests = on_postgresql(example, cli=DEFAULTS, test_cli=ON_A_SERVER)
    tests.run("test_cli.py").expect(passed=1)


IN_A_CHILD_RUN = """
import os

AT_IMPORT = "DATABASE_URL" in os.environ

def test_the_app_has_found_no_variable(test_client):
    assert not AT_IMPORT
    assert test_client.get("/dancers").json() == ["Sand"]
"""


@pytest.mark.slow
def test_a_child_run_of_arenas_finds_the_variable_unset_as_its_parent_did(
    example: Example,
) -> None:
    """What stands there is the parent's own: the app would take it for another database."""
    live = f"sqlite+aiosqlite:///{example.folder}/of_parent.db"
    env = {"DATABASE_URL": live, "ARENA_ORIGINAL_URLS": json.dumps({live: ""})}
    example.with_files(test_it=IN_A_CHILD_RUN).run(env=env).expect(passed=1)
    assert not (example.folder / "of_parent.db").exists()


@pytest.mark.slow
def test_a_child_whose_arguments_name_the_apps_file_is_refused(example: Example) -> None:
    """The message says where it may go; `arena_allow` lets it through."""
    test = """
import subprocess, sys

def test_a_script(test_client):
    assert test_client.get("/dancers").json() == ["Sand"]
    subprocess.run([sys.executable, "cli.py", "dev.db"], check=True)

def test_the_tests_own_database(arena, test_client):
    file = arena.url.partition("///")[2]
    subprocess.run([sys.executable, "cli.py", file], check=True)
    assert test_client.get("/dancers").json() == []
"""
    tests = example.with_files(cli=CLI, test_cli=test, make_dev=MAKE_DEV)
    tests.python("make_dev.py")
    run = tests.run("test_cli.py").expect(1, passed=1, failed=1)
    run.says(
        f"refused: a process whose arguments name {tests.folder / 'dev.db'}, a database of the app",
        "test_cli.py:6",
        "arena.url",
        f"arena_allow = {tests.folder / 'dev.db'}",
    )
    run.never_says("was changed during this run")


def test_a_child_whose_arguments_name_the_apps_server_is_refused(example: Example) -> None:
    """The URL of the test's database is let through."""
    test = f"""
import subprocess

def test_the_developers_database(test_client):
    assert test_client.get("/dancers").json() == ["Sand"]
    subprocess.run(["true", "--url={PRODUCTION.replace(":s3cret", "")}"])

def test_the_tests_own_database(arena):
    subprocess.run(["true", arena.url], check=True)
"""
    run = on_postgresql(example, test_cli=test).run("test_cli.py").expect(1, passed=1, failed=1)
    name = "postgresql://db.example.org:5432/shop"
    run.says(f"refused: a process whose arguments name {name}", f"arena_allow = {name}")
