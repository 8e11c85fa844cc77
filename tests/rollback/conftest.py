"""A database with a shared transaction before it, and connections of several drivers."""

from __future__ import annotations

import secrets
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import asyncpg
import psycopg
import psycopg2
import pytest

from pytest_arena._postgresql.rollback._proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.example import Example
    from tests.rollback.named import Named

SCHEMA = """
CREATE TABLE dancer (id serial PRIMARY KEY, name text UNIQUE, style text);
CREATE TABLE battle (id int PRIMARY KEY,
    dancer int REFERENCES dancer DEFERRABLE INITIALLY DEFERRED);
INSERT INTO dancer (name) VALUES ('Sand');
"""


@dataclass
class Shared:
    """A proxy, and what it has reported."""

    proxy: Proxy
    database: str
    notes: list[str] = field(default_factory=list)

    @property
    def place(self) -> dict[str, Any]:
        """Where it listens, as drivers want it."""
        address = self.proxy.address
        return {"host": address.host, "port": address.port, "user": address.user}

    def psycopg(self, **options: Any) -> psycopg.Connection[Any]:
        """Connect by psycopg 3."""
        return psycopg.connect(dbname=self.database, **self.place, **options)

    def psycopg2(self, **options: Any) -> Any:
        """Connect by psycopg2."""
        return closing(psycopg2.connect(dbname=self.database, **self.place, **options))

    async def asyncpg(self, **options: Any) -> Any:
        """Connect by asyncpg."""
        return await asyncpg.connect(database=self.database, **self.place, **options)

    def names(self) -> list[str]:
        """Return the names that a new connection sees."""
        with self.psycopg(autocommit=True) as connection:
            return [name for (name,) in connection.execute("SELECT name FROM dancer ORDER BY id")]


@pytest.fixture(name="database", scope="module")
def _database() -> Iterator[str]:
    from tests.servers.postgresql import create_database, run  # noqa: PLC0415 - configured later

    name = f"arena_test_{secrets.token_hex(6)}"
    create_database(name)
    run(*SCHEMA.split(";\n"), database=name)
    yield name
    run(f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def opened(database: str) -> Iterator[Shared]:
    """Open a proxy before a database, inside a level."""
    from tests.servers.postgresql import address  # noqa: PLC0415 - configured later

    notes: list[str] = []
    proxy = Proxy(address(database), note=notes.append)
    proxy.enter()
    try:
        yield Shared(proxy, database, notes)
    finally:
        proxy.close()


@pytest.fixture(name="shared")
def _shared(database: str) -> Iterator[Shared]:
    with opened(database) as shared:
        yield shared


@pytest.fixture(name="named")
def _named(example: Example) -> Iterator[Named]:
    from tests.rollback.named import PASSWORD, Named  # noqa: PLC0415 - configured later
    from tests.servers.postgresql import create_database, run  # noqa: PLC0415 - configured later

    name = f"ci_test_{secrets.token_hex(6)}"
    create_database(name)
    run(f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'", f"ALTER DATABASE {name} OWNER TO {name}")
    run(f"ALTER SCHEMA public OWNER TO {name}", database=name)
    yield Named(example, name)
    run(f"DROP DATABASE {name} WITH (FORCE)", f"DROP ROLE {name}")
