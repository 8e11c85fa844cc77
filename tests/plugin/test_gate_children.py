"""Other processes: what they find in the environment, and what is said of those that do not."""

from __future__ import annotations

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
