"""``rollback`` in a database that pytest-arena has not created, by a role without CREATEDB."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from pytest_arena._postgresql._control import literal
from tests.servers.postgresql import URL, create_database, names_on_server, rows, run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_arena.testing import Example, Run

PASSWORD = "hush-hush"  # noqa: S105 - the server asks for none
APPS = "postgresql+asyncpg://me:s3cret@db.example.org/shop"
# What autovacuum and ANALYZE write, which is no content.
COUNTED = "{relpages,reltuples,relallvisible,relallfrozen,relfrozenxid,relminmxid,datfrozenxid}"
CATALOGS = """
SELECT c.oid::regclass::text FROM pg_class c
WHERE c.relkind = 'r' AND c.relnamespace = 'pg_catalog'::regnamespace
AND c.relname !~ '^pg_(statistic|authid|database|shdepend|largeobject$)'
UNION ALL SELECT c.oid::regclass::text FROM pg_class c
WHERE c.relkind IN ('r', 'S') AND c.relnamespace = 'public'::regnamespace ORDER BY 1
"""


def content(database: str) -> dict[str, list[str]]:
    """Return all catalogs, rows and sequences of a database, without what autovacuum writes."""
    tables = [str(name) for (name,) in rows(CATALOGS, database)]
    query = f"SELECT (to_jsonb(t) - {literal(COUNTED)}::text[])::text FROM "
    dump = {}
    for table in tables:
        dump[table] = [str(row) for (row,) in rows(f"{query}{table} t ORDER BY 1", database)]
    return dump


@dataclass(frozen=True)
class Named:
    """A database, and the role of the tests, which owns it."""

    example: Example
    name: str

    @property
    def url(self) -> str:
        """The value of arena_database."""
        return f"postgresql://{self.name}:{PASSWORD}@{URL.host}:{URL.port}/{self.name}"

    @property
    def env(self) -> dict[str, str]:
        """The variables of a run in it."""
        return {"ARENA_DATABASE": self.url, "ARENA_ISOLATION": "rollback"}

    def of(self, test: str) -> Example:
        """Return the example's app, with a URL of production, and tests."""
        example = self.example
        if "sqlite" in example.files["app.py"]:
            example = example.change("app.py", "sqlite+aiosqlite:///dev.db", APPS)
        return example.with_files(test_it=test)

    def test(self, text: str, *args: str, **env: str) -> Run:
        """Run tests of the example's app in it. They leave nothing."""
        before = content(self.name)
        ran = self.of(text).run(*args, env={**self.env, **env})
        assert content(self.name) == before
        return ran.never_says(PASSWORD)

    def run(self, *statements: str) -> None:
        """Execute statements as its owner."""
        run(f"SET ROLE {self.name}", *statements, database=self.name)

    def mark(self) -> None:
        """Mark it."""
        ran = self.example.python("-m", "pytest_arena._cli", "databases", "mark", self.url, "--yes")
        assert ran.status == 0, ran.output


@pytest.fixture(name="named")
def _named(example: Example) -> Iterator[Named]:
    name = f"ci_{secrets.token_hex(6)}"
    create_database(name)
    run(f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'", f"ALTER DATABASE {name} OWNER TO {name}")
    run(f"ALTER SCHEMA public OWNER TO {name}", database=name)
    yield Named(example, name)
    run(f"DROP DATABASE {name} WITH (FORCE)", f"DROP ROLE {name}")


MIGRATED = (
    "CREATE TABLE dancers (id serial PRIMARY KEY, name text UNIQUE NOT NULL)",
    "INSERT INTO dancers (name) VALUES ('Found')",
)

STORY = """
import pytest
from app import Dancer, app, engine, get_db
from fastapi import Depends
from sqlalchemy import text


@app.post("/lost/{name}")
async def lose(name: str, db=Depends(get_db)):
    db.add(Dancer(name=name))
    await db.flush()


@pytest.fixture(scope="class")
def crew(arena):
    with arena.session() as session:
        session.add(Dancer(name="Crew"))
        session.commit()


class TestWithACrew:
    @pytest.mark.parametrize("turn", range(2))
    async def test_requests_and_fixtures(self, crew, client, arena, turn):
        await client.post("/dancers/Bob")
        assert (await client.get("/dancers")).json() == ["Sand", "Crew", "Bob"]
        assert "Bob" in str(arena.changes())
        assert "Crew" not in str(arena.changes())


async def test_of_the_schema(client, db_session):
    db_session.add(Dancer(name="Ann"))
    assert (await client.get("/dancers")).json() == ["Sand", "Ann"]
    async with engine.begin() as connection:
        await connection.execute(text("ALTER TABLE dancers ADD COLUMN mood text"))
        await connection.execute(text("CREATE TYPE mood AS ENUM ('sad')"))
        await connection.execute(text("CREATE EXTENSION citext"))
        await connection.execute(text("SELECT lo_from_bytea(0, 'x')"))


async def test_numbers_begin_again(client, db_session):
    ids = "SELECT nextval('dancers_id_seq')"
    assert await db_session.scalar(text(ids)) == 2


async def test_that_loses_a_write(client):
    await client.post("/lost/Bob")
    assert (await client.get("/dancers")).json() == ["Sand"]
"""


def test_an_empty_database_is_built_and_left_empty(named: Named) -> None:
    """Requests, fixtures, levels, DDL and lost writes, in one transaction."""
    registries = names_on_server(beginning="arena_registry")
    ran = named.test(STORY).expect(passed=5)
    ran.says(
        f"rollback: tests use the database {named.name} on {URL.host}:{URL.port} itself, "
        f"since role {named.name} may not create databases",
        "schema and seed built in this run, and never committed",
        "POST /lost/Bob 200 wrote dancers (1 row) and never committed it",
    )
    assert names_on_server(beginning="arena_registry") == registries
