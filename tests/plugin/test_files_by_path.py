"""Code that writes, renames or removes an SQLite file by its path."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from tests.parameters import slow_except

if TYPE_CHECKING:
    from pathlib import Path

    from tests.example import Example

CHANGED = "dev.db was changed during this run, by a program that runs beside the tests, or by"


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


AROUND = {
    "open": 'open("dev.db", "wb").close()',
    "copy": 'shutil.copy("app.py", "dev.db")',
    "c code": "os.truncate('dev.db', 0)",
    "hard link": "os.link('dev.db', 'h.db'); open('h.db', 'wb').close()",
}


@pytest.mark.parametrize("change", slow_except(AROUND, "open"))
def test_a_file_that_is_changed_in_another_way_fails_the_run(example: Example, change: str) -> None:
    """It is compared at the end of the run."""
    test = f"import os\nimport shutil\n\ndef test_it(test_client):\n    {AROUND[change]}\n"
    project = example.with_files(test_it=test)
    _write_database(project.write() / "dev.db")
    project.run("-q").expect(status=1, passed=1).says(CHANGED)


TEMPORARY = """
import os
import tempfile

import pytest
from sqlalchemy import create_engine, text


@pytest.fixture
def made():
    number, path = tempfile.mkstemp(suffix=".db")
    os.close(number)
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE more (id INTEGER)"))
    yield engine
    engine.dispose()
    os.unlink(path)


@pytest.mark.parametrize("turn", range(2))
def test_it(test_client, made, turn):
    with made.begin() as connection:
        connection.execute(text("INSERT INTO more VALUES (1)"))
        assert connection.scalar(text("SELECT count(*) FROM more")) == 1
"""


def test_a_temporary_file_that_a_fixture_has_made_may_be_removed(example: Example) -> None:
    """The rows are in the test's database: the file is as empty as ``tempfile`` has made it."""
    example.with_files(test_it=TEMPORARY).run().expect(passed=2)


@pytest.mark.slow
def test_a_file_of_the_app_that_is_not_there_may_be_removed(example: Example) -> None:
    """Fixtures do so, to begin with an empty database. ``arena_allow`` lets all through."""
    test = """
from pathlib import Path

def test_it(test_client):
    Path("dev.db").unlink(missing_ok=True)
"""
    project = example.with_files(test_it=test)
    project.run().expect(passed=1)
    _write_database(project.folder / "dev.db")
    project.run("-o", "arena_allow=dev.db").expect(passed=1)
    assert not (project.folder / "dev.db").exists()


@pytest.mark.parametrize(
    "deed",
    [
        'os.remove("dev.db")',
        'os.rename("dev.db", "old.db")',
        'os.replace(shutil.copy("app.py", "new.db"), "dev.db")',
        'sqlite3.connect("dev.db").execute("CREATE TABLE more (id INTEGER)")',
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


OWN_FILES = """
import os
import shutil
import sqlite3
import tempfile

import pytest

FOLDER = tempfile.mkdtemp()
{make}
os.environ["DATABASE_URL"] = "sqlite+aiosqlite:///" + os.path.abspath(FILE)


@pytest.fixture(scope="session", autouse=True)
def leaves_no_file():
    yield
    {remove}
    assert not os.path.exists(FILE)
"""
READS = "def test_it(test_client):\n    assert test_client.get('/dancers').json() == ['Sand']\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    "make, remove",
    [
        ('FILE = shutil.copy2("base.db", FOLDER)', "shutil.rmtree(FOLDER)"),
        ('FILE = shutil.copy2("base.db", "dev.db")', "os.remove(FILE)"),
        ('FILE = "dev.db"\nopen(FILE, "wb").close()', 'os.rename(FILE, "old.db")'),
    ],
)
def test_a_suite_may_remove_what_it_has_made_in_this_run(
    example: Example, make: str, remove: str
) -> None:
    """Its temporary folder or file, with a copy that keeps the times of an older file."""
    conftest = OWN_FILES.format(make=make, remove=remove)
    project = example.with_files(conftest=conftest, test_it=READS)
    _write_database(project.write() / "base.db")
    project.run().expect(passed=1).never_says("another program")


@pytest.mark.slow
def test_a_file_that_a_test_attaches_before_an_engine_names_it_fails_the_run(
    example: Example,
) -> None:
    """The lifespan creates the engine."""
    app, _, _ = example.files["app.py"].partition("engine = ")
    app = app.replace("import Depends", "import Request, Depends")
    project = example.with_files(app=app + LATE_ENGINE, test_it=ATTACHES)
    project = project.change("pytest.ini", "app:app", "app:create_app")
    _write_database(project.write() / "dev.db")
    project.run("-q", "-p", "no:randomly").expect(status=1, passed=2).says(CHANGED)


LATE_ENGINE = """
from contextlib import asynccontextmanager


def create_app():
    @asynccontextmanager
    async def lifespan(app):
        app.state.maker = async_sessionmaker(create_async_engine("sqlite+aiosqlite:///dev.db"))
        yield
        await app.state.maker.kw["bind"].dispose()

    app = FastAPI(lifespan=lifespan)

    @app.get("/dancers")
    async def dancers(request: Request):
        async with request.app.state.maker() as session:
            return [dancer.name for dancer in await session.scalars(select(Dancer))]

    return app
"""
ATTACHES = """
import sqlite3
from contextlib import closing


def test_it():
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("ATTACH 'dev.db' AS dev")
        connection.execute("CREATE TABLE dev.more (id INTEGER)")


def test_the_app(test_client):
    assert test_client.get("/dancers").json() == ["Sand"]
"""


OF_THE_TEST = """
import shutil

import pytest
from sqlalchemy.engine import make_url


@pytest.mark.parametrize("turn", range(2))
async def test_restores_a_backup(arena, client, tmp_path, turn):
    live = make_url(arena.url).database
    assert (await client.get("/dancers")).json() == ["Sand"]
    shutil.copyfile(live, tmp_path / "backup.db")
    await client.post("/dancers/Dune")
    shutil.copyfile(tmp_path / "backup.db", live)
"""


@pytest.mark.slow
def test_a_test_overwrites_its_own_file(example: Example) -> None:
    """As a backup that is restored."""
    example.with_files(test_it=OF_THE_TEST).run().expect(passed=2)


NAMES = r"""
import os

import pytest
from sqlalchemy import create_engine
from sqlalchemy.engine import URL

engines = []


@pytest.mark.parametrize("name", ["a\0b.db", "\ud800.db"], ids=["NUL", "surrogate"])
def test_an_engine(name):
    engines.append(create_engine(URL.create("sqlite", database=name)))


def test_a_loop_of_links(test_client):
    os.symlink("loop", "loop")
    with pytest.raises(OSError):
        os.unlink("loop/file")
    os.remove("loop")
    assert test_client.get("/dancers").json() == ["Sand"]
"""


def test_names_that_no_file_can_have(example: Example) -> None:
    """The guard lets them pass. The call itself raises."""
    example.with_files(test_it=NAMES).run().expect(passed=3)
