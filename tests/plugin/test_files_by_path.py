"""Code that writes, renames or removes an SQLite file by its path."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.example import Example

CHANGED = "dev.db was changed during this run, by another program"


def _write_database(file: Path) -> bytes:
    file.parent.mkdir(exist_ok=True)
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("CREATE TABLE dancers (id INTEGER)")
    # Time passes until the system's clock says that the file is older than the run.
    changed = file.stat().st_ctime
    while time.time() < changed + 0.05:
        os.sched_yield()
    return file.read_bytes()


CHANGES = """
import os
import shutil
from pathlib import Path

import pytest

CHANGES = {
    "os.remove": lambda: os.remove("dev.db"),
    "Path.unlink": lambda: Path("dev.db").absolute().unlink(missing_ok=True),
    "os.rename": lambda: os.rename("dev.db", "old.db"),
    "os.replace": lambda: os.replace("other.db", "dev.db"),
    "shutil.move": lambda: shutil.move("dev.db", "old.db"),
    "a log": lambda: os.remove("dev.db-wal"),
    "a folder": lambda: shutil.rmtree(Path.cwd()),
}


@pytest.mark.parametrize("name", CHANGES)
def test_it(test_client, name):
    CHANGES[name]()


def test_another_file(test_client):
    os.symlink("dev.db", "link.db")
    os.remove("link.db")
    os.rename("other.db", "third.db")
    os.remove("third.db")
"""


def test_a_file_of_the_app_that_a_test_removes_or_renames_is_refused(example: Example) -> None:
    """Also its log, and also by its folder."""
    project = example.with_files(test_it=CHANGES)
    file = project.with_paths({"dev.db-wal": "", "other.db": ""}).write() / "dev.db"
    content = _write_database(file)
    run = project.run("-p", "no:randomly").expect(status=1, passed=1, failed=7)
    run.says("refused: removing", "refused: renaming", "refused: replacing")
    run.says("dev.db, a database file of the app", "arena_allow = ", 'os.remove("dev.db")')
    assert file.read_bytes() == content


def test_a_file_that_is_changed_in_another_way_fails_the_run(example: Example) -> None:
    """It is compared at the end of the run."""
    test = "def test_it(test_client):\n    open('dev.db', 'wb').close()\n"
    project = example.with_files(test_it=test)
    _write_database(project.write() / "dev.db")
    project.run("-q").expect(status=1, passed=1).says(CHANGED)


TEMPORARY = """
import os
import tempfile

import pytest
from sqlalchemy import create_engine, text


@pytest.fixture
def made(request):
    number, path = tempfile.mkstemp(suffix=".db")
    os.close(number)
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE more (id INTEGER)"))
    yield engine
    engine.dispose()
    if request.node.name == "test_it[0]":
        os.unlink(path)


@pytest.mark.parametrize("turn", range(2))
def test_it(test_client, made, turn):
    with made.begin() as connection:
        connection.execute(text("INSERT INTO more VALUES (1)"))
        assert connection.scalar(text("SELECT count(*) FROM more")) == 1
"""


def test_a_temporary_file_that_a_fixture_has_made_may_be_removed_or_left(example: Example) -> None:
    """The rows are in the test's database: the file is as empty as ``tempfile`` has made it."""
    example.with_files(test_it=TEMPORARY).run().expect(passed=2)


@pytest.mark.parametrize(
    "deed",
    [
        'os.remove("dev.db")',
        'os.rename("dev.db", "old.db")',
        'os.replace(shutil.copy("app.py", "new.db"), "dev.db")',
        'sqlite3.connect("dev.db").execute("CREATE TABLE more (id INTEGER)").connection.close()',
    ],
)
def test_a_file_that_a_conftest_changes_before_the_app_is_known_fails_the_run(
    example: Example, deed: str
) -> None:
    """No engine names it yet."""
    conftest = f"import os\nimport shutil\nimport sqlite3\n{deed}\n"
    project = example.with_files(conftest=conftest, test_it="def test_it(test_client): ...")
    _write_database(project.write() / "dev.db")
    project.run().expect(status=1, passed=1).says(CHANGED)


def test_files_that_no_engine_names_are_the_suites_own(example: Example) -> None:
    """Of this run, or a backup that is older."""
    test = """
import os
import sqlite3

sqlite3.connect("own.db").execute("CREATE TABLE t (id INTEGER)").connection.close()
os.rename("own.db", "own-old.db")
os.remove("own-old.db")

def test_it(test_client):
    os.rename("backup.db", "old.db")
    open("old.db", "wb").close()
"""
    project = example.with_files(test_it=test)
    _write_database(project.write() / "backup.db")
    project.run("-q").expect(passed=1).never_says("was changed during this run")
