"""A run that uses no database loads little, and the first use of one finds all guards."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.plugin.developer import CONFIG, change_of, small_example, untouched

if TYPE_CHECKING:
    from pathlib import Path

    from tests.example import Example

# A fork of a process that has imported SQLAlchemy begins at once.
pytestmark = pytest.mark.usefixtures("whole_process")

MOST_MODULES = 14
LOADS = f"""
import sys
from importlib.machinery import SourceFileLoader

def test_it():
    ours = {{name: sys.modules[name] for name in sys.modules if name.startswith("pytest_arena.")}}
    assert len(ours) <= {MOST_MODULES}, sorted(ours)
    assert not {{"sqlalchemy", "sqlite3"}} & set(sys.modules)
    # pytest has found these two, because pytest-arena's finder is in the second.
    del ours["pytest_arena.plugin"], ours["pytest_arena._interpreter"]
    assert {{type(module.__loader__) for module in ours.values()}} == {{SourceFileLoader}}
"""


def _project(tmp_path: Path, **files: str) -> Example:
    lines = [line for line in CONFIG.splitlines() if not line.startswith("arena_")]
    return small_example(tmp_path, **files).with_paths({"pytest.ini": "\n".join(lines)})


def test_a_run_without_a_database_loads_few_modules(tmp_path: Path) -> None:
    """No SQLAlchemy, no driver, and no assertions rewritten, as pytest does for plugins."""
    early = "import pytest\npytest.register_assert_rewrite('pytest_arena._config')\n"
    project = _project(tmp_path, test_it=LOADS, early=early)
    project = project.change("pytest.ini", "[pytest]", "[pytest]\naddopts = -p early")
    project.run().expect(passed=1)


IN_TEST = """
import pytest

@pytest.mark.parametrize("turn", [1, 2])
{}def test_it(turn):
    import app
    app.Base.metadata.create_all(app.engine)
    assert app.names(app.engine) == []
    app.add(app.engine, "Ghost")
"""
BY_DRIVER = """
import pytest

def test_it(tmp_path):
    import app, sqlite3
    mine = tmp_path / "mine.db"
    sqlite3.connect(mine).execute("CREATE TABLE mine (id)").connection.close()
    app.create_engine(f"sqlite:///{mine}").connect().exec_driver_sql("SELECT * FROM mine")
    sqlite3.connect("dev.db")
"""


@pytest.mark.parametrize(
    "word, options", [("", []), ("async ", []), ("", ["-pxdist.plugin", "-n2"])]
)
def test_the_first_import_may_be_in_a_test(tmp_path: Path, word: str, options: list[str]) -> None:
    """The level of what imports it begins before its first connection.

    A controller of pytest-xdist has imported no SQLAlchemy itself.
    """
    project = _project(tmp_path, test_it=IN_TEST.format(word))
    with untouched(project):
        project.run(*options).expect(passed=2).says("in place of dev (empty) on SQLite")


def test_a_driver_that_a_test_imports_is_guarded(tmp_path: Path) -> None:
    """Pytest's temporary folder stays the test's own."""
    project = _project(tmp_path, test_it=BY_DRIVER)
    with untouched(project):
        project.run().expect(1, failed=1).says("[A201]", 'sqlite3.connect("dev.db")')


CREATED = """
import tempfile
from sqlalchemy import create_engine

_, NAME = tempfile.mkstemp()
engine = create_engine(f"sqlite:///{NAME}")

def test_it():
    engine.connect().close()
"""


def test_an_empty_file_of_the_suite_is_no_developers(tmp_path: Path) -> None:
    """The suite creates it after the start of the run."""
    _project(tmp_path, test_it=CREATED).run().expect(passed=1)


@pytest.mark.parametrize(
    "call, options",
    [("rename('other')", ()), ("unlink(missing_ok=True)", ("-p", "xdist.plugin", "-n", "2"))],
)
def test_a_conftest_that_removes_the_apps_file_fails_the_run(
    tmp_path: Path, call: str, options: tuple[str, ...]
) -> None:
    """It does so before it imports SQLAlchemy. The file is compared at the end."""
    conftest = f"from pathlib import Path\nPath('dev.db').{call}\n"
    test = "def test_it():\n    import app\n    app.engine.connect().close()\n"
    project = _project(tmp_path, conftest=conftest, test_it=test)
    with change_of(project):
        run = project.run(*options).expect(1, passed=1)
    run.says("dev.db was changed during this run")


def test_a_fixture_begins_the_run(tmp_path: Path) -> None:
    """No option is set, and no test has imported SQLAlchemy."""
    run = _project(tmp_path, test_it="def test_it(test_client): ...\n").run()
    run.says("there is no arena_app", "[A101]")


def test_db_session_without_an_app_and_an_engine(tmp_path: Path) -> None:
    options = "[pytest]\narena_database = sqlite\narena_schema = tables.sql\n"
    test = (
        "def test_it(db_session):\n    db_session.connection().exec_driver_sql('SELECT * FROM t')\n"
    )
    project = _project(tmp_path, test_it=test)
    project = project.with_paths({"pytest.ini": options, "tables.sql": "CREATE TABLE t (a INT);"})
    project.run().expect(passed=1)


HELPERS = """
import pytest
from app import Base, add, engine, names

Base.metadata.drop_all(engine)
Base.metadata.create_all(engine)

@pytest.fixture
def ghost():
    add(engine, "Ghost")
    return names(engine)
"""
BY_HELPERS = "def test_it(ghost, db_session):\n    assert ghost == ['Ghost']\n"


@pytest.mark.parametrize(
    "options, env", [(("-p", "helpers"), {}), ((), {"PYTEST_PLUGINS": "helpers"})]
)
def test_a_plugin_that_pytest_loads_after_this_one_is_guarded(
    tmp_path: Path, options: tuple[str, ...], env: dict[str, str]
) -> None:
    """At its import, and its engine is known."""
    project = _project(tmp_path, helpers=HELPERS, test_it=BY_HELPERS)
    project = project.change("pytest.ini", "[pytest]", "[pytest]\narena_schema = app:Base")
    with untouched(project):
        project.run(*options, env=env).expect(passed=1)


def test_a_plugin_that_pytest_has_loaded_before_is_refused(tmp_path: Path) -> None:
    """What it did with a database, no guard has seen."""
    helpers = "from app import Base, engine\n"
    project = _project(tmp_path, helpers=helpers, test_it="def test_it():\n    pass\n")
    project = project.change("pytest.ini", "[pytest]", "[pytest]\naddopts = -p helpers")
    run = project.run()
    assert run.status == 4, run.output
    run.says("addopts = -p arena -p helpers", "helpers.py")
