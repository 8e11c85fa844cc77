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
    "open": lambda: open("dev.db", "wb"),
    "a link": lambda: open("link.db", "wb"),
    "a log": lambda: os.remove("dev.db-wal"),
    "a folder": lambda: shutil.rmtree(Path.cwd()),
    "the folder's name": lambda: os.rename(Path.cwd(), f"{Path.cwd()}-old"),
}

def setup_module():
    os.symlink("dev.db", "link.db")


@pytest.mark.parametrize("name", CHANGES)
def test_it(test_client, name):
    CHANGES[name]()


def test_another_file(test_client):
    open("dev.db", "rb").close()
    os.remove("link.db")
    os.rename("other.db", "third.db")
    open("third.db", "wb").close()
    os.remove("third.db")
"""


@pytest.mark.slow
def test_a_file_of_the_app_that_a_test_removes_renames_or_changes_is_refused(
    example: Example,
) -> None:
    """By a link, too."""
    files = dict.fromkeys(("dev.db", "dev.db-wal", "other.db"), "the developer's")
    project = example.with_files(test_it=CHANGES).with_paths(files)
    run = project.run("-k", "not folder").expect(status=1, passed=1, failed=8)
    run.says("refused: removing", "refused: renaming", "refused: writing")
    run.says("dev.db is a database file of the app")
    run.says("arena_allow = ", 'os.remove("dev.db")')
    assert (project.folder / "dev.db").read_text() == "the developer's"
    assert (project.folder / "dev.db-wal").exists()
    run = project.run("-k", "folder").expect(status=1, failed=2)
    run.says("refused: removing", "refused: renaming")
    assert (project.folder / "dev.db").exists()


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
    inode = os.stat(path).st_ino
    os.unlink(path)
    assert not os.path.exists(path)
    for number in range(50):  # the file system gives one of them the inode of the other file
        name = f"{path}.{number}"
        open(name, "wb").close()
        open(name, "rb").close()
        if os.stat(name).st_ino == inode:
            break


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
    left = project.with_paths({"dev.db": "of an earlier run"})
    left.run("-o", "arena_allow=dev.db").expect(passed=1)
    assert not (project.folder / "dev.db").exists()


def _write_database(file: Path) -> None:
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("CREATE TABLE dancers (id INTEGER)")
    # Time passes until the system's clock says that the file is older than the run.
    changed = file.stat().st_ctime
    while time.time() < changed + 0.05:
        os.sched_yield()


@pytest.mark.slow
@pytest.mark.parametrize(
    "conftest, action",
    [
        ('if os.path.exists("dev.db"):\n    os.remove("dev.db")\nimport app', "removing"),
        ('import app\nPath("dev.db").unlink()', "removing"),
        ('def pytest_collection_finish():\n    os.remove("dev.db")', "removing"),
        ('os.rename("dev.db", "old.db")', "renaming"),
        ('shutil.copy("app.py", "dev.db")', "writing"),
        ("import atexit\natexit.register(os.remove, 'dev.db')", "removing"),
        ('from sqlalchemy_utils import drop_database\ndrop_database("dev.db")', "removing"),
    ],
)
def test_a_conftest_that_removes_or_overwrites_an_older_database_is_refused(
    example: Example, conftest: str, action: str
) -> None:
    """No engine names the file yet: it may be the developer's."""
    conftest = f"import os\nimport shutil\nfrom pathlib import Path\n{conftest}\n"
    project = example.with_files(conftest=conftest, test_it="def test_it(test_client): ...")
    library = "import os\n\ndef drop_database(file):\n    os.remove(file)\n"
    project = project.with_paths({"site-packages/sqlalchemy_utils.py": library})
    project = project.change("pytest.ini", "pythonpath = .", "pythonpath = . site-packages")
    file = project.write() / "dev.db"
    _write_database(file)
    content = file.read_bytes()
    run = project.run("-p", "no:cacheprovider")
    run.says(f"refused: {action}", "an SQLite database that is older than this run", "[A201]")
    assert file.read_bytes() == content
    project.run("-o", "arena_allow=dev.db").says("1 passed")


OTHERS = """
import os
import sqlite3

for name in ("own.db", "notes.txt"):
    sqlite3.connect(name).execute("CREATE TABLE t (id INTEGER)").connection.close()
    os.rename(name, "own-" + name)
    os.remove("own-" + name)
os.remove("text.db")
"""


def test_a_conftest_may_remove_a_database_of_this_run_and_other_files(example: Example) -> None:
    """A suite's own files: they began in this run, or are no databases."""
    project = example.with_files(conftest=OTHERS, test_it="def test_it(test_client): ...")
    project.with_paths({"text.db": "a text"}).run().expect(passed=1)


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
        ('FILE = shutil.copy2("base.db", FOLDER)', 'os.rename(FOLDER, FOLDER + "-old")'),
        ('FILE = shutil.copy2("base.db", "dev.db")', "os.remove(FILE)"),
        (
            'FILE = "dev.db"\nsqlite3.connect(FILE).execute("CREATE TABLE t (id INTEGER)")',
            "os.remove(FILE)",
        ),
        (
            'FILE = "dev.db"\nos.replace(shutil.copy2("base.db", "part.db"), FILE)',
            'os.rename(FILE, "old.db")',
        ),
    ],
)
def test_a_suite_may_remove_what_it_has_made_in_this_run(
    example: Example, make: str, remove: str
) -> None:
    """Its temporary folder or file, with a copy that keeps the times of an older file."""
    conftest = OWN_FILES.format(make=make, remove=remove)
    project = example.with_files(conftest=conftest, test_it=READS)
    _write_database(project.write() / "base.db")
    run = project.run().expect(passed=1)
    run.never_says("another program")


@pytest.mark.slow
@pytest.mark.parametrize(
    "make, remove",
    [
        ('os.makedirs("data", exist_ok=True)\nFILE = "data/dev.db"', "shutil.rmtree('data')"),
        ('os.rename("data", FOLDER + "/data")\nFILE = FOLDER + "/data/dev.db"', "os.remove(FILE)"),
        ('FILE = "data/dev.db"\nopen(FILE, "a").close()', "os.remove(FILE)"),
    ],
)
def test_a_suite_may_not_remove_what_it_has_found(example: Example, make: str, remove: str) -> None:
    """A folder that was there already, also one that the suite has moved into its own."""
    conftest = OWN_FILES.format(make=make, remove=remove)
    project = example.with_files(conftest=conftest, test_it=READS)
    project = project.with_paths({"data/dev.db": "the developer's"})
    run = project.run().expect(status=1, passed=1, errors=1)
    run.says("refused: removing", "is a database file of the app", "[A201]")


LATE_ENGINE = """
from contextlib import asynccontextmanager
from sqlalchemy import create_engine

{other}


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
EARLY = """
import os
import shutil
import sqlite3
from contextlib import closing

import app


def attach():
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("ATTACH 'dev.db' AS dev")
        connection.execute("CREATE TABLE dev.more (id INTEGER)")


def test_it():
    {deed}


def test_the_app(test_client):
    assert test_client.get("/dancers").json() == ["Sand"]
"""
OTHER_ENGINE = 'other = create_engine("sqlite:///other.db")'
TWO_SCHEMAS = "arena_schema =\n    dev = app:Base\narena_seed =\n    dev = seed:seed\n"
CHANGED_EARLY = "dev.db was changed during this run, by a program that runs beside the tests, or by"


def _with_late_engine(example: Example, deed: str, *, other: str = "") -> Example:
    """An app whose lifespan creates its engine, after a test has done this."""
    app, _, _ = example.files["app.py"].partition("engine = ")
    app = app.replace("import Depends", "import Request, Depends")
    files = {"app": app + LATE_ENGINE.format(other=other), "test_it": EARLY.format(deed=deed)}
    project = example.with_files(**files)
    project = project.change("pytest.ini", "app:app", "app:create_app")
    options = "arena_schema = app:Base\narena_seed = seed:seed\n"
    return project.change("pytest.ini", options, TWO_SCHEMAS)


@pytest.mark.slow
def test_a_file_that_a_test_attaches_before_an_engine_names_it_fails_the_run(
    example: Example,
) -> None:
    """No engine of the app is known, or another one. A copy without an engine is the test's."""
    for other in ("", OTHER_ENGINE):
        project = _with_late_engine(example, "attach()", other=other)
        _write_database(project.write() / "dev.db")
        project.run("-q").expect(status=1, passed=2).says(CHANGED_EARLY)
        (project.folder / "dev.db").unlink()


DEEDS = {
    "rename": 'os.rename("dev.db", "old.db")',
    "replace": 'os.replace(shutil.copy("app.py", "new.db"), "dev.db")',
    "write": 'open("dev.db", "wb").close()',
}


@pytest.mark.parametrize("deed", slow_except(DEEDS, "replace"))
def test_a_file_that_a_test_changes_before_an_engine_names_it(example: Example, deed: str) -> None:
    """It is refused if no engine of the app is known, and fails the run if another one is."""
    project = _with_late_engine(example, DEEDS[deed])
    file = project.write() / "dev.db"
    _write_database(file)
    content = file.read_bytes()
    run = project.run("-q").expect(status=1, passed=1, failed=1)
    run.says("refused: ", "an SQLite database that is older than this run", "[A201]")
    assert file.read_bytes() == content
    project = _with_late_engine(example, DEEDS[deed], other=OTHER_ENGINE)
    project.run("-q").expect(status=1, passed=2).says(CHANGED_EARLY)


def test_a_file_that_no_engine_names_later_is_the_tests_own(example: Example) -> None:
    """A backup that a test of an app with an engine renames or writes."""
    deed = 'os.rename("backup.db", "old.db"); open("old.db", "wb").close()'
    project = example.with_files(test_it=EARLY.format(deed=deed))
    _write_database(project.write() / "backup.db")
    project.run("-q").expect(passed=2).never_says("was changed during this run")


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


LOG = """
import pytest


@pytest.mark.parametrize("name", ["dev.db-wal", "dev.db-journal"])
def test_it(test_client, name):
    open(name, "wb")
"""


def test_a_log_of_the_app_is_not_written(example: Example) -> None:
    """It may have rows that the developer has committed."""
    run = example.with_files(test_it=LOG).run().expect(1, failed=2)
    run.says("dev.db-wal: ", "dev.db is a database file of the app")


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
