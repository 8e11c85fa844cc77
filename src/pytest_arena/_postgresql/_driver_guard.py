"""The guard of PostgreSQL's drivers: the calls that open a connection, and its statements."""

from __future__ import annotations

import re
import sys
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from pytest_arena._interpreter import patch, when_imported
from pytest_arena._postgresql import _arguments as arguments
from pytest_arena._product._server_connections import (
    RawConnections,
    RawGuard,
)
from pytest_arena._product._statements import Words

if TYPE_CHECKING:
    from types import ModuleType

    from pytest_arena._product._server_connections import FindCore


__tracebackhide__ = True  # a traceback of the app or of a test ends at its own line

_IN_TRANSACTION = (1, 2, 3)  # libpq's PQTRANS_ACTIVE, INTRANS, INERROR


def pid_of(connection: Any) -> int:
    """Return the pid of a driver connection's backend."""
    if hasattr(connection, "get_server_pid"):  # asyncpg
        return int(connection.get_server_pid())
    return int(connection.info.backend_pid)


def is_in_transaction(connection: Any) -> bool:
    """Return whether a driver's connection has a transaction open, by what the driver knows."""
    if hasattr(connection, "is_in_transaction"):  # asyncpg
        return not connection.is_closed() and bool(connection.is_in_transaction())
    return connection.info.transaction_status in _IN_TRANSACTION  # psycopg, psycopg2


CONNECTIONS = RawConnections(pid_of)


@cache
def watch_drivers(find_core: FindCore) -> None:
    """Watch asyncpg, psycopg and psycopg2 until the process ends. Imports none of them."""
    guard = RawGuard(find_core, arguments, CONNECTIONS)
    for module, kind, dialect in _CONNECTING:
        when_imported(module, partial(_guard_module, guard, kind, dialect))


# The module and the class whose `connect` opens each connection, also those of pools; the dialect.
_CONNECTING = (
    ("asyncpg.connection", "", "asyncpg"),
    ("psycopg.connection", "Connection", "psycopg"),
    ("psycopg.connection_async", "AsyncConnection", "psycopg_async"),
    ("psycopg2", "", "psycopg2"),
)


def _guard_module(guard: RawGuard, kind: str, dialect: str, module: ModuleType) -> None:
    owner = getattr(module, kind) if kind else module
    patch(owner, "connect", guard.wrap(vars(owner)["connect"], dialect))
    # The package has copied the function if it was imported before.
    package: Any = sys.modules.get(module.__name__.partition(".")[0])
    if dialect != "psycopg_async" and hasattr(package, "connect"):
        patch(package, "connect", owner.connect)


WORDS = Words(
    # Settings, roles, listeners, locks, prepared statements. pytest-arena sends DISCARD SEQUENCES.
    # `set_config(…, true)` ends with the transaction. Apps with row security call it in each one.
    altering=re.compile(
        r"""(?isx) (?:\A|;) \s* (?: SET (?!\s+(?:LOCAL|TRANSACTION|CONSTRAINTS)\b) | RESET
            | DISCARD (?!\s+SEQ) | LISTEN | UNLISTEN | PREPARE | LOAD | DO
            | DECLARE \b (?=[^;]*\bHOLD)
            | CREATE \s+ (?:OR\s+REPLACE\s+)? (?:LOCAL\s+|GLOBAL\s+)? TEMP(?:ORARY)? ) \b
        | \b set_config (?!"?\s*\([^()]*,\s*true\s*\)) | \b pg_(?:try_)?advisory_lock
        | \b pg_temp \b | \b setseed \b | \b INTO \s+ TEMP"""
    ),
    beyond=re.compile(
        r"""(?isx) (?:\A|;) \s* (?P<verb> (?:CREATE|DROP|ALTER) \s+ DATABASE | ALTER \s+ SYSTEM
            | (?:DROP|ALTER) \s+ (?:ROLE|USER(?!\s+MAPPING)|GROUP) ) \b
        | (?P<function> \bpg_terminate_backend ) \s* \(
            (?=.*\bpg_stat_activity\b) (?!.*\bcurrent_database\s*\()"""
    ),
    # Migrations have such statements, also for a database by its name in production.
    shared=re.compile(
        r"""(?isx) (?:\A|;) \s* (?P<verb> CREATE \s+ (?:ROLE|USER(?!\s+MAPPING)|GROUP)
            | (?:CREATE|DROP|ALTER) \s+ TABLESPACE
            | COMMENT \s+ ON \s+ (?:DATABASE|ROLE|TABLESPACE) | (?:DROP|REASSIGN) \s+ OWNED
            | (?:GRANT|REVOKE) (?![^;]*\bON\b\s*+(?!(?:DATABASE|TABLESPACE|PARAMETER)\b)) ) \b"""
    ),
    instead={
        "ALTER DATABASE": "in a migration or in arena_schema, for the database that it runs in:\n"
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I …', current_database()); END $$",
        "PG_TERMINATE_BACKEND": "delete what drops a test database: each test has its own\n"
        "or end only its sessions: WHERE datname = current_database()",
    },
)
