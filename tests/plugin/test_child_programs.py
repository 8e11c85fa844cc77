"""PostgreSQL: processes of multiprocessing, and Python programs of a test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.plugin.test_postgresql_story import PRODUCTION, on_postgresql

if TYPE_CHECKING:
    from tests.example import Example

READS = f'os.environ.get("DATABASE_URL", "{PRODUCTION}")'

JOBS = """
import asyncio
from sqlalchemy import create_engine, text
from app import Dancer, engine, maker

def add(name):
    async def main():
        async with maker.begin() as session:
            session.add(Dancer(name=name))
        await engine.dispose()
    asyncio.run(main())

def add_elsewhere():
    with create_engine("postgresql+psycopg://me@db.example.org/other").begin() as connection:
        connection.execute(text("SELECT 1"))

def add_by_grandchild(name):
    import multiprocessing
    process = multiprocessing.get_context("spawn").Process(target=add, args=(name,))
    process.start()
    process.join()
    assert process.exitcode == 0
"""

SPAWNED = """
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
import pytest
import jobs

def run(how, *call):
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(how)) as pool:
        return pool.submit(*call).result()

@pytest.mark.parametrize("how", ["spawn", "forkserver"])
def test_it_is_seen_and_undone(test_client, how):
    run(how, jobs.add, how)
    assert test_client.get("/dancers").json() == ["Sand", how]

def test_a_process_of_such_a_process(test_client):
    run("spawn", jobs.add_by_grandchild, "Ruby")
    assert test_client.get("/dancers").json() == ["Sand", "Ruby"]

def test_a_database_that_the_test_has_not():
    run("spawn", jobs.add_elsewhere)

def test_the_tests_own_url(arena, test_client):
    run("spawn", add_by_url, arena.url.replace("+asyncpg", "+psycopg"))
    assert test_client.get("/dancers").json() == ["Sand", "Own"]

def add_by_url(url):
    with jobs.create_engine(url).begin() as connection:
        connection.execute(jobs.text("INSERT INTO dancers (name) VALUES ('Own')"))

def test_a_process_without_a_database():
    assert run("spawn", abs, -1) == 1
"""


@pytest.mark.slow  # `test_guard_postgresql` has the same without an app
@pytest.mark.parametrize("isolation", ["auto", "clone"])
@pytest.mark.parametrize("url", [f'"{PRODUCTION}"', ""])
def test_a_process_of_multiprocessing_works_on_the_tests_database(
    example: Example, url: str, isolation: str
) -> None:
    """It imports the app a second time, with the developer's URL. A fork does not."""
    project = on_postgresql(example, test_it=SPAWNED, jobs=JOBS)
    env = {"PYTEST_ADDOPTS": f"--arena-isolation={isolation}", "DATABASE_URL": PRODUCTION}
    run = project.change("app.py", READS, url or READS).run(env=env).expect(1, passed=5, failed=1)
    run.says(
        "refused: a connection to postgresql://db.example.org:5432/other in a process that "
        "multiprocessing has spawned",
        "jobs.py:14",
    )
    run.never_says("s3cret", "a Python program was started")


@pytest.mark.slow
def test_a_process_of_multiprocessing_works_on_the_tests_file(example: Example) -> None:
    """Also where the path is in the app's code, and where the file is opened without an engine."""
    test = (
        SPAWNED
        + """
def test_by_the_path(test_client):
    run("spawn", add_by_path)
    assert test_client.get("/dancers").json() == ["Sand", "Path"]

def add_by_path():
    import sqlite3
    with sqlite3.connect("dev.db") as connection:
        connection.execute("INSERT INTO dancers (name) VALUES ('Path')")
"""
    )
    url = "sqlite+aiosqlite:///dev.db"
    project = example.with_files(
        test_it=test.replace("+asyncpg", "+aiosqlite").replace("+psycopg", ""), jobs=JOBS
    )
    project = project.change("app.py", f'os.environ.get("DATABASE_URL", "{url}")', f'"{url}"')
    run = project.run("-k", "not a_database_that").expect(passed=6)
    run.never_says("was changed")
    assert not (project.folder / "dev.db").exists()


EARLY = """
import multiprocessing
import jobs

def work():
    pool = multiprocessing.get_context("spawn").Pool(1)
    pool.apply(int)
    return pool

EARLY = work() if __name__ == "test_it" else None

def test_a_process_of_a_time_before_any_test(test_client):
    assert test_client.get("/dancers").json() == ["Sand"]
    EARLY.apply(jobs.add, ["Nobody"])
"""


@pytest.mark.slow
def test_a_process_that_is_older_than_the_tests_goes_nowhere(example: Example) -> None:
    """As a fork of that time."""
    run = on_postgresql(example, test_it=EARLY, jobs=JOBS).run("-W", "ignore").expect(1, failed=1)
    run.says("shop in a process that multiprocessing has spawned", "start the process in a fixture")


PYTHON = """
import os, subprocess, sys

def start(*command, **options):
    subprocess.run(command, check=True, **options)

def test_a_script_of_the_project(test_client):
    assert test_client.get("/dancers").json() == ["Sand"]
    subprocess.run([sys.executable, "worker.py"], check=True)

def test_a_module_by_a_shell(arena):
    assert os.system(f"cd . && {sys.executable} -m worker") == 0

def test_a_script_that_names_its_interpreter():
    os.chmod("command", 0o755)
    start("./command")

def test_without_its_variables():
    start(sys.executable, "worker.py", env={"PATH": os.environ["PATH"]})
"""

LED = """
import subprocess, sys
from tests_python import start

def test_the_url_as_an_argument(arena):
    start(sys.executable, "worker.py", arena.url)

def test_a_process_of_arenas(arena):
    with arena.process([sys.executable, "worker.py"]) as worker:
        assert worker.wait() == 0

def test_other_programs():
    subprocess.run(["git", "--version"])
    start(sys.executable, "-m", "pytest", "--version")
"""


def python_example(example: Example, url: str, **files: str) -> Example:
    """The app on a server, with its URL from somewhere, beside programs in Python."""
    project = on_postgresql(example, worker="print('at work')", **files)
    project = project.with_paths({"command": "#!/usr/bin/env python3\nprint('at work')\n"})
    return project.change("app.py", READS, url).change("app.py", "import os\n", SETTINGS)


# As pydantic-settings: a field has the name of its variable, with the prefix.
SETTINGS = f"""
import os

class Plain:
    database_url: str = "{PRODUCTION}"
"""


@pytest.mark.parametrize("url", [f'"{PRODUCTION}"', "Prefixed.database_url"])
@pytest.mark.slow
def test_a_python_program_that_may_have_the_apps_url_is_named(example: Example, url: str) -> None:
    """It imports the app with the developer's URL, which pytest-arena cannot see."""
    project = python_example(example, url, test_it=PYTHON)
    project = project.change("app.py", "class Plain:", "class Prefixed:\n    env_prefix = 'SHOP_'")
    run = project.run("-q").expect(passed=4)
    for line in ("test_it.py:9  subprocess", "test_it.py:12  assert os.system", "test_it.py:5"):
        run.says(f"arena: a Python program was started without the test's database: {line}")
    run.says(
        "The app does not read postgresql://db.example.org:5432/shop from DATABASE_URL",
        "arena_env = …   (or pass arena.url to the program)",
    )
    run.never_says("s3cret")
    assert run.output.count("a Python program was started") == 3


@pytest.mark.slow
@pytest.mark.parametrize("isolation", ["undo", "rollback"])
def test_a_python_program_that_has_the_tests_database_is_not_named(
    example: Example, isolation: str
) -> None:
    """Nor is any other program, or a run of pytest, which has a guard."""
    project = python_example(example, f'"{PRODUCTION}"', test_it=LED, tests_python=PYTHON)
    project = project.change("app.py", "database_url", "url")
    run = project.run("-q", "test_it.py", f"--arena-isolation={isolation}")
    run.expect(passed=3).never_says("a Python program was started")


@pytest.mark.slow
@pytest.mark.parametrize(
    "how",
    [
        pytest.param("set", marks=pytest.mark.slow),
        "not set",
        pytest.param("settings", marks=pytest.mark.slow),
    ],
)
def test_a_python_program_of_an_app_with_its_url_in_a_variable(example: Example, how: str) -> None:
    """The variable leads it nowhere, also if it is not set. It is named if it lacks that."""
    project = python_example(
        example, "Plain.database_url" if how == "settings" else READS, test_it=PYTHON
    )
    env = {"DATABASE_URL": PRODUCTION} if how == "set" else {}
    run = project.run("-q", env=env).expect(passed=4)
    place = "test_it.py:5"
    run.says(
        f"arena: a Python program was started without the variable DATABASE_URL: {place}",
        "env={'DATABASE_URL': arena.url}",
    )
    assert run.output.count("a Python program was started") == 1


@pytest.mark.slow
def test_a_python_program_on_sqlite_is_not_named(example: Example) -> None:
    """A change of the app's file fails the run, whichever program made it."""
    project = example.with_files(test_it=PYTHON, worker="pass")
    project = project.with_paths({"command": "#!/usr/bin/env python3\n"})
    project.run("-q").expect(passed=4).never_says("a Python program was started")
