"""Migrations whose URL names another product than the app's never reach that database."""

from __future__ import annotations

import secrets
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.example import Example
from tests.servers.postgresql import address, create_database, rows, run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

APP = """
from sqlalchemy import create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

engine = create_engine("{url}")


class Base(DeclarativeBase):
    pass


class Dancer(Base):
    __tablename__ = "dancers"
    name: Mapped[str] = mapped_column(primary_key=True)
"""

INI = """
[alembic]
script_location = %(here)s/migrations
path_separator = os
sqlalchemy.url = {url}
"""

# As `alembic init` writes it.
ENV = """
from alembic import context
from sqlalchemy import engine_from_config, pool

section = context.config.get_section("alembic")
engine = engine_from_config(section, prefix="sqlalchemy.", poolclass=pool.NullPool)
with engine.connect() as connection:
    context.configure(connection=connection)
    with context.begin_transaction():
        context.run_migrations()
"""

FIRST = """
import sqlalchemy as sa
from alembic import op

revision = "1"
down_revision = None


def upgrade():
    op.create_table("dancers", sa.Column("name", sa.String(80), primary_key=True))
"""

TEST = """
from app import Dancer
from sqlalchemy import select

def test_there_is_no_dancer(db_session):
    assert db_session.scalars(select(Dancer)).all() == []
"""

BY_HAND = """
from alembic import command
from alembic.config import Config

def test_the_migrations_run():
    command.upgrade(Config("alembic.ini"), "heads")
"""

AS_THE_APP = """
from alembic import command
from alembic.config import Config
from app import engine

def migrate():
    config = Config("alembic.ini")
    config.set_main_option("sqlalchemy.url", engine.url.render_as_string(hide_password=False))
    command.upgrade(config, "heads")

migrate.arena_files = ["migrations"]
"""

# A schema function of a driver, with no engine.
RAW = """
import psycopg

def migrate():
    with psycopg.connect("{url}") as connection:
        connection.execute("CREATE TABLE dancers (name text)")
"""


@dataclass(frozen=True, slots=True)
class Developer:
    """A project whose app and whose alembic.ini name databases of different products."""

    project: Example
    server: str  # the name of the developer's database on the server

    def tables(self) -> set[str]:
        """The tables in both of the developer's databases."""
        sql = "SELECT tablename::text FROM pg_tables WHERE schemaname = 'public'"
        tables = {str(name) for (name,) in rows(sql, self.server)}
        with closing(sqlite3.connect(self.project.folder / "dev.db")) as connection:
            tables |= {name for (name,) in connection.execute("SELECT tbl_name FROM sqlite_master")}
        return tables


@pytest.fixture(params=["sqlite", "postgresql"])
def developer(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Developer]:
    """An app on this product, and an alembic.ini for the other one."""
    name = f"developer_{secrets.token_hex(4)}"
    server = address(name)
    of_server = f"postgresql+psycopg://{server.user}@{server.host}:{server.port}"
    urls = ["sqlite:///dev.db", f"{of_server}/{name}"]
    config = "[pytest]\npythonpath = .\narena_schema = alembic.ini\n"
    if request.param == "postgresql":
        urls.reverse()
        config += f"arena_database = {of_server.replace('+psycopg', '')}\n"
    files = {
        "app.py": APP.format(url=urls[0]),
        "alembic.ini": INI.format(url=urls[1]),
        "migrations/env.py": ENV,
        "migrations/versions/first.py": FIRST,
        "pytest.ini": config,
        "test_it.py": TEST,
    }
    create_database(name)
    try:
        yield Developer(Example(tmp_path, files), name)
    finally:
        run(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.mark.parametrize("drivers", ["refuse", "redirect", "off"])
def test_no_option_lets_migrations_reach_a_database_of_another_product(
    developer: Developer, drivers: str
) -> None:
    """Whether the developer's database is on a server or a file."""
    ran = developer.project.run("-p", "no:asyncio", f"-oarena_drivers={drivers}")
    ran.expect(1, failed=1).says("refused: a connection to", "migrations/env.py:7")
    ran.says("arena_schema = <module>:<function>", ".arena_files").never_says("arena_drivers")
    assert developer.tables() == set()


def test_without_the_plugin_the_same_migrations_reach_it(developer: Developer) -> None:
    """The test above is about a real danger."""
    project = developer.project.with_files(test_it=BY_HAND)
    project.run("-W", "ignore", plugin=False).expect(passed=1)
    assert developer.tables() == {"alembic_version", "dancers"}


def test_a_function_that_migrates_as_the_app_does_builds_the_tests_database(
    developer: Developer,
) -> None:
    """The way out that the error names."""
    project = developer.project.with_files(tables=AS_THE_APP)
    project.run("-p", "no:asyncio", "-oarena_schema=tables:migrate").expect(passed=1)
    assert developer.tables() == set()


def test_the_summary_proposes_the_models_and_not_such_migrations(developer: Developer) -> None:
    """A proposal can be pasted."""
    create = "db_session):\n    Dancer.metadata.create_all(db_session.get_bind())"
    making = TEST.replace("db_session):", create)
    project = developer.project.with_files(test_it=making)
    ran = project.run("-p", "no:asyncio", "-oarena_schema=").expect(passed=1)
    ran.says("arena_schema = app:Base").never_says("arena_schema = alembic.ini")


@pytest.mark.parametrize("drivers", ["refuse", "redirect", "off"])
@pytest.mark.parametrize("developer", ["sqlite"], indirect=True)
def test_a_driver_of_another_product_is_refused_during_a_build(
    developer: Developer, drivers: str
) -> None:
    """The function of `arena_schema` uses no engine."""
    server = address(developer.server)
    url = f"postgresql://{server.user}@{server.host}:{server.port}/{developer.server}"
    project = developer.project.with_files(tables=RAW.format(url=url))
    options = "-oarena_schema=tables:migrate", f"-oarena_drivers={drivers}"
    ran = project.run("-p", "no:asyncio", *options).expect(1, failed=1)
    ran.says("refused: a connection to", "tables.py:5").never_says("arena_drivers = redirect")
    assert developer.tables() == set()
