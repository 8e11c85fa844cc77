"""Programs that a conftest starts before the app has an engine: what they change is named."""

from __future__ import annotations

import os
import sqlite3
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from tests.parameters import slow_except
from tests.plugin.developer import change_of, small_example
from tests.plugin.test_postgresql_story import PRODUCTION, on_postgresql

if TYPE_CHECKING:
    from pathlib import Path

    from tests.example import Example

USES_THE_APP = """
from app import engine, names

def test_it():
    assert names(engine) == []
"""

DELETES = """
import sqlite3
with sqlite3.connect("dev.db") as db:
    db.execute("DELETE FROM dancers WHERE name > ''")
"""

JOBS = """
def delete():
    import deletes
"""

WAYS = {
    "program": "import subprocess, sys\nsubprocess.run([sys.executable, 'deletes.py'], check=True)",
    "shell": "import os\nassert os.system('cp backup.db dev.db') == 0",
    "spawn": "import multiprocessing, jobs\n"
    "context = multiprocessing.get_context('spawn')\n"
    "def pytest_configure():\n"
    "    child = context.Process(target=jobs.delete)\n"
    "    child.start()\n"
    "    child.join()",
}


@pytest.mark.parametrize("way", slow_except(WAYS, "program"))
def test_a_changed_file_fails_the_run(tmp_path: Path, way: str) -> None:
    """The app's engine means the file only later."""
    project = small_example(
        tmp_path, conftest=WAYS[way], deletes=DELETES, jobs=JOBS, test_it=USES_THE_APP
    )
    with change_of(project, {"dev.db": False}) as changed:
        (project.folder / "backup.db").write_bytes(b"")
        run = project.run("test_it.py").expect(1, passed=1)
    assert changed == ["dev.db"]
    file = project.folder / "dev.db"
    run.says(f"{file} was changed during this run", "arena_schema", f"arena_allow = {file}")
    if way != "spawn":  # it is started as a fork is
        program = "cp" if way == "shell" else "python"
        run.says(f"probably by a program that this run started: {program}", " at conftest.py:2")


@pytest.mark.slow
def test_also_if_the_controller_of_workers_starts_it(tmp_path: Path) -> None:
    """In the workers the same program changes nothing more."""
    files = {"conftest": WAYS["program"], "deletes": DELETES, "test_it": USES_THE_APP}
    project = small_example(tmp_path, **files)
    with change_of(project, {"dev.db": False}) as changed:
        run = project.run("-p", "xdist.plugin", "-n", "2", "test_it.py").expect(1, passed=1)
    assert changed == ["dev.db"]
    run.says(f"{project.folder / 'dev.db'} was changed during this run", " at conftest.py:2")


@pytest.mark.slow
def test_a_program_that_changes_no_file_of_the_app_is_not_named(tmp_path: Path) -> None:
    """It changes another database of the project."""
    other = DELETES.replace("dev.db", "other.db")
    files = {"conftest": WAYS["program"], "deletes": other, "test_it": USES_THE_APP}
    project = small_example(tmp_path, **files)
    with change_of(project, {"dev.db": False, "other.db": False}) as changed:
        run = project.run("test_it.py", env={"SHOP_URL": "sqlite:///dev.db"}).expect(passed=1)
    assert changed == ["other.db"]
    run.never_says("was changed").says(
        f"a process was started with {project.folder / 'dev.db'}, a database of the app, in its "
        "variable SHOP_URL: conftest.py:2"
    )


STARTS = """
import subprocess, sys
subprocess.run([sys.executable, "-c", "print(1)"])
subprocess.run(["git", "--version"])
subprocess.run(["true", "postgres://me@db.example.org/shop"])
"""

PASSES = """
def test_it(test_client):
    assert test_client.get("/dancers").json() == ["Sand"]
"""


def test_a_program_that_has_the_apps_url_of_a_server_is_named(example: Example) -> None:
    """The app's engine means the database only later. Git has nothing to do with it."""
    project = on_postgresql(example, conftest=STARTS, test_it=PASSES)
    run = project.run("test_it.py", env={"SHOP_URL": PRODUCTION}).expect(1, passed=1)
    name = "a process was started with postgresql://db.example.org:5432/shop, a database of the app"
    run.says(
        f"{name}, in its variable SHOP_URL: conftest.py:3",
        f"{name}, in its arguments: conftest.py:5",
    )
    run.never_says("conftest.py:4", "s3cret")


@pytest.mark.slow
def test_a_python_program_without_the_tests_url_is_named(example: Example) -> None:
    """The app has its URL from a default, as from a file of settings: so may the program."""
    project = on_postgresql(example, conftest=STARTS.replace("postgres:", ""), test_it=PASSES)
    run = project.run("test_it.py").expect(passed=1)
    run.says("a Python program was started without", ": conftest.py:3")
    run.never_says("conftest.py:4", "conftest.py:5")
    led = project.run("test_it.py", env={"DATABASE_URL": PRODUCTION}).expect(passed=1)
    led.never_says("was started")


@pytest.mark.slow
def test_programs_of_the_controller_of_workers_are_named(example: Example) -> None:
    """Only its workers import the app. They inherit its variables."""
    starts = STARTS.replace("import subprocess", "import os, subprocess")
    only_here = 'if "PYTEST_XDIST_WORKER" not in os.environ:\n    subprocess'
    starts = starts.replace("\nsubprocess", f"\n{only_here}")
    project = on_postgresql(example, conftest=starts, test_it=PASSES)
    run = project.run("-p", "xdist.plugin", "-n", "1", "test_it.py").expect(1, passed=1)
    run.says(
        "a Python program was started without",
        ": conftest.py:4",
        "a database of the app, in its arguments: conftest.py:8",
    )
    run.never_says("conftest.py:6", "s3cret")


SETS = f"""
import os
os.environ.setdefault("DATABASE_URL", "{PRODUCTION}")
import subprocess, sys
if "PYTEST_XDIST_WORKER" not in os.environ:
    subprocess.run([sys.executable, "-c", "print(1)"])
"""


@pytest.mark.slow
def test_a_variable_of_the_controller_of_workers_is_named(example: Example) -> None:
    """The worker inherits the variable, and redirects it. The program had the real one."""
    project = on_postgresql(example, conftest=SETS, test_it=PASSES)
    run = project.run("-p", "xdist.plugin", "-n", "1", "test_it.py").expect(1, passed=1)
    run.says("a database of the app, in its variable DATABASE_URL: conftest.py:6")
    run.never_says("s3cret")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse the name")
def test_a_worker_starts_beside_a_file_whose_name_is_not_utf_8(tmp_path: Path) -> None:
    """The controller sends the workers the states of files before."""
    example = small_example(tmp_path, test_it=USES_THE_APP)
    folder = example.write()
    with closing(sqlite3.connect(folder / "other.db")) as connection:
        connection.execute("CREATE TABLE dancers (name)")
    (folder / "other.db").rename(folder / os.fsdecode(b"caf\xe9.db"))
    example.run("-p", "xdist.plugin", "-n1").expect(passed=1)


CODE = {
    "imports the app": "from app import engine",
    "names the URL": f"URL = {PRODUCTION!r}",
}


@pytest.mark.slow
@pytest.mark.parametrize("code", CODE)
def test_a_program_whose_code_reaches_the_apps_server_fails_the_run(
    example: Example, code: str
) -> None:
    """No file shows whether it has changed the database. A program about nothing is only named."""
    starts = "import subprocess, sys\nsubprocess.run([sys.executable, 'job.py'])\n"
    project = on_postgresql(example, conftest=starts, test_it=PASSES)
    run = project.with_files(job=CODE[code]).run("test_it.py").expect(1, passed=1)
    run.says("a Python program was started without", ": conftest.py:2")
    project.with_files(job="print(1)").run("test_it.py").expect(passed=1)


FINISHES = """
import os, subprocess, sys
def {hook}:
    if "PYTEST_XDIST_WORKER" not in os.environ:
        env = {{**os.environ, "SHOP_URL": "{url}"}}
        subprocess.run([sys.executable, "-c", "print(1)"], env=env)
"""


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "hook", [pytest.param("pytest_sessionfinish()", marks=pytest.mark.slow), "pytest_unconfigure()"]
)
def test_a_program_at_the_end_of_the_run_fails_it(
    example: Example, hook: str, workers: int
) -> None:
    """Also of the controller of workers, which has the app's databases from them."""
    ends = FINISHES.format(hook=hook, url=PRODUCTION)
    project = on_postgresql(example, conftest=ends, test_it=PASSES)
    arguments = ["-p", "xdist.plugin", "-n", str(workers)] if workers else []
    run = project.run(*arguments, "test_it.py").expect(1, passed=1)
    run.says("a database of the app, in its variable SHOP_URL: conftest.py:6")
    run.never_says("s3cret")


AT_EXIT = FINISHES.replace("def", "import atexit\n@atexit.register\ndef")


@pytest.mark.slow
def test_a_program_at_the_exit_of_the_process_is_named(example: Example) -> None:
    """The exit status is decided before."""
    ends = AT_EXIT.format(hook="end()", url=PRODUCTION)
    run = on_postgresql(example, conftest=ends, test_it=PASSES).run("test_it.py")
    run.says("a database of the app, in its variable SHOP_URL: conftest.py:8")


BUILDS = """
import os, subprocess
from pathlib import Path
Path("Makefile").write_text("build:\\n\\ttrue\\n")
Path("build.sh").write_text("#!/bin/sh\\ntrue\\n")
Path("build.sh").chmod(0o755)
os.system("make build")
subprocess.run(["sh", "build.sh"])
subprocess.run(["./build.sh"])
subprocess.run(["git", "--version"])
"""


@pytest.mark.slow
def test_a_builder_that_inherits_the_apps_url_is_named(example: Example) -> None:
    """It may start any program. Whether it does is not known, so the run passes."""
    project = on_postgresql(example, conftest=BUILDS, test_it=PASSES)
    run = project.run("test_it.py", env={"SHOP_URL": PRODUCTION}).expect(passed=1)
    for line in (7, 8, 9):
        run.says(f"a database of the app, in its variable SHOP_URL: conftest.py:{line}")
    run.never_says("conftest.py:10")
