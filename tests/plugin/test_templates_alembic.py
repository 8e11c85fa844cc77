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

# As `alembic init -t async` writes it: asyncio.run is forbidden where a loop is running.
ASYNC_ENV = """
import asyncio
from logging.config import fileConfig
from alembic import context
from sqlalchemy import pool
from sqlalchemy.ext.asyncio import async_engine_from_config

config = context.config
fileConfig(config.config_file_name)

def run(connection):
    context.configure(connection=connection)
    with context.begin_transaction():
        context.run_migrations()

async def main():
    section = config.get_section(config.config_ini_section)
    engine = async_engine_from_config(section, prefix="sqlalchemy.", poolclass=pool.NullPool)
    async with engine.connect() as connection:
        await connection.run_sync(run)
    await engine.dispose()

asyncio.run(main())
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
    """The example, with its schema from migrations."""
    files = {
        "alembic.ini": INI,
        "migrations/env.py": env,
        "migrations/versions/first.py": FIRST,
        "test_names.py": TESTS,
    }
    return example.change("pytest.ini", "app:Base", "alembic.ini").with_paths(files)


@pytest.mark.slow
@pytest.mark.parametrize("env", [SYNC_ENV, ASYNC_ENV], ids=["sync", "async"])
def test_migrations_run_inside_and_outside_a_loop_pitfall_127(example: Example, env: str) -> None:
    """A sync and an async env.py, unmodified; loggers and the working folder stay as they were.

    A migration that is added makes another template, and so does one that is edited.
    """
    project = with_migrations(example, env)
    run = project.run().expect(passed=2).says("template built")
    assert not (run.folder / "dev.db").exists()
    more = project.with_paths({"migrations/versions/second.py": SECOND})
    more.run().expect(status=1, failed=2).says("'Migrated'", "template built")
    edited = more.change("migrations/versions/second.py", "'Migrated'", "'Edited'")
    edited.run().expect(status=1, failed=2).never_says("Migrated").says("'Edited'")


@pytest.mark.slow
def test_a_migration_that_fails_says_its_own_line_once(example: Example) -> None:
    """Each test shows the migration's line, the first test its traceback too; all fail."""
    broken = FIRST.replace("op.create_table", 'op.execute("create tabel x")\n    op.create_table')
    project = with_migrations(example, SYNC_ENV)
    run = (
        project.with_paths({"migrations/versions/first.py": broken})
        .run()
        .expect(status=1, failed=2)
    )
    run.says(
        "arena_schema = alembic.ini failed: OperationalError:",
        'near "tabel": syntax error',
        'migrations/versions/first.py:7 op.execute("create tabel x")',
    )
    assert len(re.findall("cause: migrations/versions/first.py:7", run.output)) == 2
    assert len(re.findall("where the build failed", run.output)) == 1


# A package contains its migrations, and a fixture of the suite runs them.
MIGRATES = """
import pytest
from alembic import command
from alembic.config import Config

@pytest.fixture(autouse=True)
def tables():
    command.upgrade(Config("shop/alembic.ini"), "head")
"""


@pytest.mark.slow
def test_the_migrations_of_a_package_are_proposed_and_not_its_base(example: Example) -> None:
    """The fixture finds nothing more to do. On tables of the base it would fail: they exist."""
    env = SYNC_ENV.replace("import app", "from shop import app")
    files = {
        "shop/app.py": example.files["app.py"],
        "shop/alembic.ini": INI,
        "shop/migrations/env.py": env,
        "shop/migrations/versions/first.py": FIRST,
        "conftest.py": MIGRATES,
        "test_it.py": "def test_none(test_client): assert test_client.get('/dancers').json() == []",
    }
    options = "arena_schema = app:Base\narena_seed = seed:seed\n"
    suite = example.change("pytest.ini", options, "").change(
        "pytest.ini", "app:app", "shop.app:app"
    )
    suite = suite.with_paths(files)
    suite.run().expect(passed=1).says("arena_schema = shop/alembic.ini")
    suite.run("-oarena_schema=shop/alembic.ini").expect(passed=1).says("template built")
    suite.run("-oarena_schema=shop.app:Base").expect(1, errors=1).says("already exists")


# A driver that is not there, for a product that this version does not isolate.
DRIVER = """
import types
driver = types.SimpleNamespace(paramstyle="pyformat", Error=OSError)
engine = create_engine("mssql+pymssql://me:s3cret@db/shop", module=driver)
"""


@pytest.mark.slow
def test_migrations_that_lead_to_another_product_are_refused_without_its_password(
    example: Example,
) -> None:
    """A database that does not fit: nothing connects, and the message names env.py's line."""
    env = SYNC_ENV.replace('engine = create_engine("sqlite:///dev.db")\n', DRIVER)
    run = with_migrations(example, env).run().expect(status=1, failed=2)
    run.says("arena_schema = alembic.ini failed: refused: a connection to mssql://db")
    run.says("migrations/env.py:12 with engine.connect() as connection:").never_says("s3cret")


def test_a_folder_without_env_py_is_a_mistake_of_configuration(example: Example) -> None:
    """At collection, and not at the first connection."""
    project = with_migrations(example, SYNC_ENV).change("alembic.ini", "/migrations", "/migration")
    project.run().expect(status=4).says("there is no", "migration/env.py", "script_location")


@pytest.mark.slow
def test_the_configuration_of_flask_migrate_names_the_way_out(example: Example) -> None:
    """It has no `script_location`, because Flask-Migrate's commands set it."""
    project = with_migrations(example, SYNC_ENV)
    project = project.change("alembic.ini", "script_location = %(here)s/migrations\n", "")
    run = project.run().expect(status=4)
    run.says("<script_location>/env.py", "flask_migrate.upgrade() in the context of the app")


@pytest.mark.slow
def test_migrations_may_lie_in_a_folder_of_a_package_s_folder(example: Example) -> None:
    """As Prefect has them: ``prefect:server:database:_migrations``."""
    files = {
        "shop/__init__.py": "",
        "shop/database/migrations/env.py": SYNC_ENV,
        "shop/database/migrations/versions/first.py": FIRST,
        "alembic.ini": INI.replace("%(here)s/migrations", "shop:database:migrations"),
        "test_names.py": TESTS,
    }
    project = example.change("pytest.ini", "app:Base", "alembic.ini").with_paths(files)
    project.run().expect(passed=2)


@pytest.mark.slow
def test_a_package_of_migrations_that_cannot_be_imported_is_named(example: Example) -> None:
    """The message names the package, and does not say that Alembic is missing."""
    project = with_migrations(example, SYNC_ENV)
    run = project.change("alembic.ini", "%(here)s/migrations", "shop:migrations").run()
    run.expect(status=4).says("No module named 'shop'", "script_location")
    run.never_says("Alembic, which is not installed")


IN_THE_APP = """
from alembic import command
from alembic.config import Config
import app

def migrate():
    app.started = True
    command.upgrade(Config("alembic.ini"), "heads")
"""


@pytest.mark.slow
def test_an_env_py_that_works_only_inside_of_the_app_is_run_by_a_function(example: Example) -> None:
    """As Prefect's: its env.py wants a worker thread of AnyIO, which the app has."""
    env = "import app\nif not app.started: raise RuntimeError('not started')\n" + SYNC_ENV
    files = {"app.py": example.files["app.py"] + "started = False\n", "in_app.py": IN_THE_APP}
    project = with_migrations(example, env).with_paths(files)
    project.run().expect(status=1, failed=2).says(
        "RuntimeError: not started", "arena_schema = <module>:<function>"
    )
    project.change("pytest.ini", "alembic.ini", "in_app:migrate").run().expect(passed=2)


@pytest.mark.slow
def test_an_env_py_for_another_command_than_alembics_is_run_by_a_function(
    example: Example,
) -> None:
    """Advanced Alchemy's command gives its env.py a config of its own. No line of it is wrong."""
    env = "from alembic import context\n\nurl = context.config.db_url\n"
    run = with_migrations(example, env).run().expect(status=1, failed=2)
    run.says("AttributeError: 'Config' object has no attribute 'db_url'")
    run.says("next: call the command that this env.py needs, such as Advanced Alchemy's")
    run.says("AlembicCommands(config).upgrade(): arena_schema = <module>:<function>")
    run.never_says("correct that line")
