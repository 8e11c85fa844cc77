"""The guard of PostgreSQL's drivers: the calls that open a connection, and its statements."""

from __future__ import annotations

import re
import sys
from functools import cache, partial, wraps
from typing import TYPE_CHECKING, Any

from pytest_arena._interpreter import when_imported
from pytest_arena._postgresql import _arguments as arguments
from pytest_arena._product._admission import UNWATCHED, change_module
from pytest_arena._product._raw_guard import Arguments, RawConnections, RawGuard
from pytest_arena._product._statements import Words

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from pytest_arena._product._admission import FindCore


__tracebackhide__ = True  # a traceback of the app or of a test ends at its own line

_IDLE = 0  # libpq's PQTRANS_IDLE: no transaction is open


def pid_of(connection: Any) -> int:
    """Return the pid of a driver connection's backend, 0 if the connection is not open."""
    try:
        if hasattr(connection, "get_server_pid"):  # asyncpg
            return int(connection.get_server_pid())
        return int(connection.info.backend_pid)
    except Exception:  # noqa: BLE001 - each driver has its exceptions for a closed connection
        return 0


def is_in_transaction(connection: Any) -> bool:
    """Return whether a driver's connection has a transaction open, by what the driver knows."""
    if hasattr(connection, "is_in_transaction"):  # asyncpg
        return not connection.is_closed() and bool(connection.is_in_transaction())
    if getattr(connection, "closed", False):
        return False
    info = getattr(connection, "info", None)  # psycopg, psycopg2
    return bool(getattr(info, "transaction_status", _IDLE) != _IDLE)


CONNECTIONS = RawConnections(pid_of, is_in_transaction)


@cache
def watch_drivers(find_core: FindCore) -> None:
    """Watch asyncpg, psycopg and psycopg2 until the process ends. Imports none of them."""
    guard = RawGuard(
        find_core,
        Arguments(
            arguments.target,
            arguments.is_redirected,
            arguments.write_address,
            arguments.redirect,
        ),
        CONNECTIONS,
    )
    for module, change in _CONNECTING.items():
        when_imported(
            module, partial(change_module, find_core, partial(change, guard), UNWATCHED)
        )


def _guard_asyncpg(guard: RawGuard, module: ModuleType) -> None:
    # `connect` and pools both call this private function.
    guard.wrap(module, "_connect", "asyncpg")


def _guard_psycopg(guard: RawGuard, module: ModuleType) -> None:
    guard.wrap(module.Connection, "connect", "psycopg", has_class=True)
    # The package has copied the method if it was imported before.
    package = sys.modules.get("psycopg")
    if package is not None and hasattr(package, "connect"):
        package.connect = module.Connection.connect  # type: ignore[attr-defined]


def _guard_async_psycopg(guard: RawGuard, module: ModuleType) -> None:
    guard.wrap(module.AsyncConnection, "connect", "psycopg_async", has_class=True)


def _guard_psycopg2(guard: RawGuard, module: ModuleType) -> None:
    guard.wrap(module, "connect", "psycopg2")


def _guard_pool(
    guard: RawGuard, module: ModuleType, *, kind: str, dialect: str
) -> None:
    original = vars(module)[kind]._open  # noqa: SLF001 - `open()` and `open=True` both call it

    @wraps(original)
    def _open(pool: Any) -> Any:
        text, options = pool.conninfo, pool.kwargs or {}
        # Each of the two may be a function that the pool calls for each connection.
        if isinstance(text, str) and isinstance(options, dict):
            guard.refuse_pool(dialect, [text], dict(options))
        return original(pool)

    vars(module)[kind]._open = _open  # noqa: SLF001 - see above


_CONNECTING: dict[str, Callable[[RawGuard, Any], None]] = {
    "asyncpg.connect_utils": _guard_asyncpg,
    "psycopg.connection": _guard_psycopg,
    "psycopg.connection_async": _guard_async_psycopg,
    "psycopg2": _guard_psycopg2,
    "psycopg_pool.pool": partial(_guard_pool, kind="ConnectionPool", dialect="psycopg"),
    "psycopg_pool.pool_async": partial(
        _guard_pool, kind="AsyncConnectionPool", dialect="psycopg_async"
    ),
}


_ITS_DEFAULT = (
    "set the role's default in this database alone:\n"
    "DO $$ BEGIN EXECUTE format('ALTER ROLE … IN DATABASE %I SET …', current_database()); END $$"
)
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
    instead={
        "ALTER ROLE": _ITS_DEFAULT,
        "ALTER USER": _ITS_DEFAULT,
        "ALTER DATABASE": "in a migration or in arena_schema, for the database that it runs in:\n"
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I …', current_database()); END $$",
        "PG_TERMINATE_BACKEND": "end sessions of the test's database: "
        "WHERE datname = current_database()",
    },
)
