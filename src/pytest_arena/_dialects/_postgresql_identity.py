"""Which server and which database is a live connection on, whatever name it was opened by?"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_arena._dialects._postgresql_control import Control

__all__ = ["Identity", "close_unseen", "identity", "identity_of_control"]

# When a server started, to the microsecond, is the same by every way to it (socket, tunnel,
# pooler) and on no other one. Any role may ask, no setting of the session changes the answer.
_QUESTION = (
    "SELECT extract(epoch FROM pg_catalog.pg_postmaster_start_time())::pg_catalog.text, "
    "pg_catalog.current_database()::pg_catalog.text, pg_catalog.pg_backend_pid()::pg_catalog.text"
)


@dataclass(frozen=True, slots=True)
class Identity:
    """Where a connection really is. ``server`` is compared only; a restart makes it another."""

    server: str
    database: str
    pid: int


def identity_of_control(control: Control) -> Identity:
    """Ask on a connection of arena's own. Raises as ``Control.rows`` does."""
    return _identity(control.rows(_QUESTION)[0])


def identity(dbapi_connection: Any) -> Identity | None:
    """Ask on an app's connection, as an engine's pool has it; None where nobody knows how.

    The connection is left as it was: no transaction is begun, none is ended. One round trip, on
    async connections inside of SQLAlchemy's greenlet.

    Raises:
        Exception: the driver's own, where the connection is closed or busy.
    """
    connection = getattr(dbapi_connection, "driver_connection", dbapi_connection)
    driver = _driver_of(connection)
    if driver == "asyncpg":
        return _identity(dbapi_connection.run_async(_asked_of_asyncpg))
    if driver == "psycopg":
        return _identity(_asked_of_libpq(connection.pgconn))
    if driver == "psycopg2":
        return _identity(_asked_of_psycopg2(connection))
    return None


def close_unseen(dbapi_connection: Any) -> None:
    """Close a connection that turned out to be outside; its pool does not know of it yet."""
    terminate_it = getattr(dbapi_connection, "terminate", None)  # an async one, without awaiting
    (terminate_it or dbapi_connection.close)()


def _identity(row: Sequence[Any]) -> Identity:
    server, database, pid = (str(value) for value in row)
    return Identity(server, database, int(pid))


def _driver_of(connection: Any) -> str:
    """The package that a class, or one that it is made from, belongs to: apps have subclasses."""
    packages = (one.__module__.partition(".")[0] for one in type(connection).__mro__)
    return next((one for one in packages if one in {"asyncpg", "psycopg", "psycopg2"}), "")


async def _asked_of_asyncpg(connection: Any) -> tuple[Any, ...]:
    return tuple(await connection.fetchrow(_QUESTION))


def _asked_of_libpq(pgconn: Any) -> tuple[str, ...]:
    # Below psycopg's own transactions, adapters and row factories.
    result = pgconn.exec_(_QUESTION.encode())
    values = [result.get_value(0, column) for column in range(3)]
    return tuple(cast("bytes", value).decode() for value in values)


def _asked_of_psycopg2(connection: Any) -> tuple[Any, ...]:
    library = sys.modules["psycopg2.extensions"]  # an extra; the connection is its own
    was_idle = connection.info.transaction_status == library.TRANSACTION_STATUS_IDLE
    # The bare class: the app's cursors may give rows of any kind.
    cursor = library.cursor(connection)
    try:
        cursor.execute(_QUESTION)
        return tuple(cursor.fetchone())
    finally:
        cursor.close()
        if was_idle and not connection.autocommit:
            connection.rollback()
