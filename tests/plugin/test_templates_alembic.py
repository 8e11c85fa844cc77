"""`arena_schema = alembic.ini`: the project's own migrations, on the engine that env.py makes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.example import Example

INI = """
[alembic]
script_location = %(here)s/migrations
path_separator = os
prepend_sys_path = .
sqlalchemy.url = sqlite+aiosqlite:///dev.db

[loggers]
keys = root
[handlers]
keys = console
[formatters]
keys = plain
[logger_root]
level = WARN
handlers = console
[handler_console]
class = StreamHandler
args = (sys.stderr,)
formatter = plain
[formatter_plain]
format = %(message)s
"""

# As `alembic init` writes it, with fileConfig, which disables every logger that there is.
SYNC_ENV = """
from logging.config import fileConfig
from alembic import context
from sqlalchemy import create_engine
import app

fileConfig(context.config.config_file_name)
engine = create_engine("sqlite:///dev.db")
with engine.connect() as connection:
    context.configure(connection=connection, target_metadata=app.Base.metadata)
    with context.begin_transaction():
        context.run_migrations()
engine.dispose()
"""


FIRST = """
import sqlalchemy as sa
from alembic import op
revision, down_revision = "1", None

def upgrade():
    op.create_table("dancers", sa.Column("id", sa.Integer, primary_key=True),
                    sa.Column("name", sa.String, unique=True))
"""

SECOND = """
import sqlalchemy as sa
from alembic import op
revision, down_revision = "2", "1"

def upgrade():
    op.execute("insert into dancers (name) values ('Migrated')")
"""

# The first connection of the run is made inside a running loop, by a request.
TESTS = """
import logging, os
logger = logging.getLogger("app.log")
folder = os.getcwd()

async def test_names(client, caplog):
    assert (await client.get("/dancers")).json() == ["Sand"]
    logger.warning("still heard")
    assert "still heard" in caplog.text
    assert os.getcwd() == folder

def test_sync(test_client):
    assert test_client.get("/dancers").json() == ["Sand"]
"""


def with_migrations(example: Example, env: str) -> Example:
    files = {
        "alembic.ini": INI,
        "migrations/env.py": env,
        "migrations/versions/first.py": FIRST,
        "test_names.py": TESTS,
    }
    return example.change("pytest.ini", "app:Base", "alembic.ini").with_paths(files)


@pytest.mark.parametrize("folder", ["migrations/versions", "extra"])
def test_a_changed_migration_is_run(example: Example, folder: str) -> None:
    """A migration that is added makes another template, also in a folder of version_locations."""
    project = with_migrations(example, SYNC_ENV)
    if folder == "extra":  # as `alembic init -t pyproject` names the folders
        pytest.importorskip("alembic", minversion="1.16")
        locations = [
            "script_location = '%(here)s/migrations'",
            "version_locations = ['%(here)s/extra']",
        ]
        files = {"pyproject.toml": "\n".join(["[tool.alembic]", *locations])}
        project = project.change("alembic.ini", "script_location = %(here)s/migrations", "")
        project = project.with_paths({"extra/first.py": FIRST, **files})
    run = project.run().expect(passed=2).says("template built")
    assert not (run.folder / "dev.db").exists()
    more = project.with_paths({f"{folder}/second.py": SECOND})
    more.run().expect(status=1, failed=2).says("'Migrated'", "template built")


def test_a_migration_that_fails_says_its_own_line_once(example: Example) -> None:
    """The first test shows the migration's line and its traceback; all fail."""
    broken = FIRST.replace("op.create_table", 'op.execute("create tabel x")\n    op.create_table')
    run = (
        with_migrations(example, SYNC_ENV)
        .with_paths({"migrations/versions/first.py": broken})
        .run()
        .expect(status=1, failed=2)
    )
    run.says(
        "arena_schema = alembic.ini failed: OperationalError:",
        'near "tabel": syntax error',
        'migrations/versions/first.py:7 op.execute("create tabel x")',
    )
    assert len(re.findall("cause: migrations/versions/first.py:7", run.output)) == 1
    assert len(re.findall("where the build failed", run.output)) == 1


def test_a_folder_without_env_py_is_a_mistake_of_configuration(example: Example) -> None:
    """At collection, and not at the first connection."""
    project = with_migrations(example, SYNC_ENV).change("alembic.ini", "/migrations", "/migration")
    project.run().expect(status=4).says("/migration", "script_location")


def test_a_folder_named_alembic_does_not_hide_that_the_package_is_missing(example: Example) -> None:
    """`alembic init alembic` makes it, and Python imports it in place of the library."""
    conftest = """
import sys
from importlib.machinery import PathFinder

class OnlyTheFolder:
    def find_spec(name, path=None, target=None):
        return PathFinder.find_spec(name, ["."]) if name == "alembic" else None

sys.meta_path.insert(0, OnlyTheFolder)
"""
    project = with_migrations(example, SYNC_ENV).change("alembic.ini", "/migrations", "/alembic")
    files = {"alembic/env.py": SYNC_ENV, "conftest.py": conftest}
    project.with_paths(files).run().expect(status=4).says("pip install 'pytest-arena[alembic]'")


MIGRATES = """
import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine

@pytest.fixture(scope="SCOPE")
def engine():
    command.upgrade(Config("alembic.ini"), "head")
    return create_engine("sqlite:///dev.db")

@pytest.mark.parametrize("turn", [1, 2])
def test_it(engine, turn):
    with engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO dancers (name) VALUES ('Ghost')")
        rows = connection.exec_driver_sql("SELECT name FROM dancers ORDER BY 1").all()
    assert rows == [("Ghost",), ("Sand",)]
"""


@pytest.mark.parametrize("scope", ["function", "session"])
def test_a_fixture_that_migrates_is_the_first_to_connect(example: Example, scope: str) -> None:
    """The template is built within its migration."""
    tests = MIGRATES.replace("SCOPE", scope)
    with_migrations(example, SYNC_ENV).with_files(test_names=tests).run().expect(passed=2)
