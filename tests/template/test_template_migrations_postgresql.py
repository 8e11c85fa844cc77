"""Alembic on PostgreSQL: what migrations do there, and in which way ``env.py`` runs them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from pytest_arena._values import Stage
from pytest_arena.errors import TemplateError

if TYPE_CHECKING:
    from tests.template.server_project import ServerProject

INI = """
[alembic]
script_location = %(here)s/migrations
path_separator = os
"""

SYNC_ENV = """
import os
from alembic import context
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

engine = create_engine(os.environ["SHOP_URL"], poolclass=NullPool)
with engine.connect() as connection:
    context.configure(connection=connection, transaction_per_migration=True)
    with context.begin_transaction():
        context.run_migrations()
engine.dispose()
"""

# As `alembic init -t async` writes it: asyncio.run is forbidden where a loop is running.
ASYNC_ENV = """
import asyncio, os
from alembic import context
from sqlalchemy.ext.asyncio import create_async_engine

def run(connection):
    context.configure(connection=connection, transaction_per_migration=True)
    with context.begin_transaction():
        context.run_migrations()

async def main():
    engine = create_async_engine(os.environ["SHOP_URL"].replace("psycopg", "asyncpg"))
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
    op.execute("create schema shop")
    op.execute("create extension citext schema shop")
    kind = sa.Enum("tango", "vals", name="kind")
    op.create_table(
        "dancers",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.String),
        sa.Column("kind", kind, server_default="vals"),
    )
    op.create_table("orders", sa.Column("id", sa.Integer), schema="shop")
"""

SECOND = """
from alembic import op
revision, down_revision = "2", "1"

def upgrade():
    op.execute("alter type kind add value 'milonga'")
    with op.get_context().autocommit_block():
        op.create_index("by_name", "dancers", ["name"], postgresql_concurrently=True)
    op.execute("do $$ begin execute format('alter database %I set timezone = ''Asia/Tokyo''', "
               "current_database()); end $$")
    op.execute("update dancers set kind = 'milonga'")
"""

THIRD = """
from alembic import op
revision, down_revision = "3", "2"

def upgrade():
    op.execute("alter database no_such_shop set timezone = 'UTC'")
"""

LOOK = """
select name, kind::text, current_setting('timezone'), 'shop.orders'::regclass::text,
       (select indisvalid from pg_index where indexrelid = 'by_name'::regclass)
from dancers
"""


def _migrated(on_server: ServerProject, env: str) -> None:
    folder = on_server.root / "migrations"
    (folder / "versions").mkdir(parents=True)
    (on_server.root / "alembic.ini").write_text(INI)
    (folder / "env.py").write_text(env)
    (folder / "versions" / "1_first.py").write_text(FIRST)
    (folder / "versions" / "2_second.py").write_text(SECOND)
    on_server.schema = "alembic.ini"


async def _rows(on_server: ServerProject) -> list[tuple[object, ...]]:
    return on_server.rows(LOOK)


@pytest.mark.parametrize("env", [SYNC_ENV, ASYNC_ENV], ids=["sync", "async"])
@pytest.mark.slow
def test_migrations_run_inside_and_outside_of_a_loop_pitfall_127(
    on_server: ServerProject, env: str
) -> None:
    """Schemas, extensions, enums, indexes made beside others, settings of the database."""
    _migrated(on_server, env)
    assert asyncio.run(_rows(on_server)) == [("Sand", "vals", "Asia/Tokyo", "shop.orders", True)]
    assert on_server.ensure() == on_server.ensure()
    assert on_server.builds() == 1


def test_a_migration_that_was_edited_or_added_builds_anew_pitfall_089(
    on_server: ServerProject,
) -> None:
    """One that names the app's database itself says what to write instead."""
    _migrated(on_server, SYNC_ENV)
    on_server.seed = ""
    first = on_server.ensure(stage=Stage.SCHEMA)
    versions = on_server.root / "migrations" / "versions"
    (versions / "2_second.py").write_text(SECOND.replace("Asia/Tokyo", "Asia/Kolkata"))
    assert on_server.ensure(stage=Stage.SCHEMA) != first
    (versions / "3_third.py").write_text(THIRD)
    with pytest.raises(TemplateError) as caught:
        on_server.ensure(stage=Stage.SCHEMA)
    assert 'database "no_such_shop" does not exist' in caught.value.what
    assert "3_third.py:6" in caught.value.cause
    assert "current_database()" in caught.value.fix
