"""On which PostgreSQL is everything measured? A private one, or that of ``BENCH_POSTGRESQL``."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
from platformdirs import user_cache_path
from sqlalchemy import URL

from pytest_arena._config._read import load_config
from pytest_arena._postgresql.journal._capture import install
from pytest_arena._postgresql.registry import ServerRegistry
from pytest_arena._postgresql.servers._find import find_server
from pytest_arena.errors import ServerError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_arena._product.servers import Server
    from pytest_arena._values import Address

__all__ = [
    "CACHE",
    "NAMED",
    "add_journal",
    "connect",
    "databases",
    "find",
    "has_server",
    "named",
    "url_of",
]

NAMED = "BENCH_POSTGRESQL"
CACHE = user_cache_path("pytest-arena")


def find() -> Server:
    """Find it, or start it. It goes on while somebody holds it, and some minutes longer."""
    url = os.environ.get(NAMED, "")
    config = load_config(
        flags={"database": url or "own"}, environ={}, ini=lambda _: "", root=Path.cwd()
    )
    return find_server(replace(config, cache=CACHE, places={"database": NAMED}))


def has_server() -> bool:
    """Whether there is one: the bench goes on without."""
    return bool(named())


def named() -> str:
    """Which PostgreSQL it is; nothing where there is none."""
    try:
        server = find()
    except ServerError:
        return ""
    server.close()
    return server.shown.partition(",")[0].partition(" on ")[0]


@contextmanager
def databases() -> Iterator[ServerRegistry]:
    """Databases for a while: what a bench that was killed has left, the next run sweeps."""
    server = find()
    own = ServerRegistry(server.address, project="bench")
    try:
        yield own
    finally:
        own.close()
        server.close()


def add_journal(address: Address) -> None:
    """Install a change journal in a database."""
    found = install(address)
    assert not any(one.is_fatal for one in found), found


def connect(address: Address, **options: Any) -> psycopg.Connection[tuple[Any, ...]]:
    """Connect as a test's app would: kept, and each statement prepared at its first use."""
    return psycopg.connect(
        host=address.host,
        port=address.port,
        user=address.user,
        password=address.password or None,
        dbname=address.database,
        autocommit=True,
        prepare_threshold=0,
        **options,
    )


def url_of(address: Address, driver: str) -> str:
    """The address as an app has it in ``DATABASE_URL``."""
    url = URL.create(
        f"postgresql+{driver}",
        username=address.user,
        password=address.password or None,
        host=None if address.is_socket else address.host,
        port=address.port,
        database=address.database,
        query={"host": address.host} if address.is_socket else {},
    )
    return url.render_as_string(hide_password=False)
