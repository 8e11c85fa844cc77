"""The PostgreSQL server that tests run on, and a registry on it that is theirs alone.

It is started beside the suite; ``TESTS_POSTGRESQL=postgresql://user:password@host:port`` names
another one. Where none can be had, tests fail: a suite that skipped them would prove nothing.
"""

from __future__ import annotations

import os
import secrets
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import psycopg
import pytest
from sqlalchemy.engine import make_url

from pytest_arena._postgresql._control import ControlFailure, identifier, literal, open_control
from pytest_arena._postgresql._server_registry import ServerRegistry
from pytest_arena._values import Address

if TYPE_CHECKING:
    from collections.abc import Iterator

# Read when it is imported: tests start without variables of the developer's.
URL = make_url(os.environ["TESTS_POSTGRESQL"])


def address(database: str = "postgres") -> Address:
    host, port, user = URL.host or "127.0.0.1", URL.port or 5432, URL.username or "postgres"
    return Address(host, port, user, database, URL.password or "")


def rows(sql: str, database: str = "postgres") -> list[tuple[object, ...]]:
    with closing(open_control(address(database))) as control:
        return control.rows(sql)


def run(*statements: str, database: str = "postgres") -> None:
    with closing(open_control(address(database))) as control:
        for sql in statements:
            control.run(sql)


def connect(database: str) -> psycopg.Connection[tuple[object, ...]]:
    """Connect as an app would, without transactions that are begun unasked."""
    to = address(database)
    return psycopg.connect(
        host=to.host,
        port=to.port,
        user=to.user,
        password=to.password or None,
        dbname=database,
        autocommit=True,
    )


def names_on_server(*, beginning: str = "arena_") -> set[str]:
    found = rows(f"SELECT datname::text FROM pg_database WHERE datname ^@ {literal(beginning)}")
    return {str(name) for (name,) in found}


@contextmanager
def own_registry(rights: str = "SUPERUSER") -> Iterator[str]:
    """Return a new login. The databases that it owns are dropped."""
    name = f"arena_test_{secrets.token_hex(6)}"
    try:
        run(f"CREATE ROLE {name} LOGIN {rights}")
    except ControlFailure as error:
        pytest.fail(f"no PostgreSQL at {address().server}, see TESTS_POSTGRESQL: {error}")
    try:
        yield name
    finally:
        found = rows(
            f"SELECT datname::text FROM pg_database WHERE pg_get_userbyid(datdba) = {literal(name)}"
        )
        for (database,) in found:
            with suppress(ControlFailure):
                run(f"ALTER DATABASE {identifier(str(database))} WITH IS_TEMPLATE false")
                run(f"DROP DATABASE {identifier(str(database))} WITH (FORCE)")
        run(f"DROP OWNED BY {name}", f"DROP ROLE {name}")


def login(role: str) -> Address:
    return replace(address(), user=role)


def database_names(own: ServerRegistry) -> set[str]:
    return {one.name for one in own.listed() if not one.role}


@contextmanager
def own_databases(registry: str) -> Iterator[ServerRegistry]:
    own = ServerRegistry(login(registry))
    try:
        yield own
    finally:
        own.close()
