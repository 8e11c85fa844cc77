"""How is an app's own connection to PostgreSQL asked something, and left as it was?"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ask", "has_written"]

# Any role may ask. A transaction has a number from when it has written something.
_HAS_WRITTEN = "SELECT pg_catalog.pg_current_xact_id_if_assigned()::pg_catalog.text"


def has_written(dbapi_connection: Any) -> bool:
    """Whether its transaction, which is open, has written anything. Raises as ``ask`` does."""
    found = ask(dbapi_connection, _HAS_WRITTEN)
    return bool(found and found[0])


def ask(dbapi_connection: Any, question: str) -> Sequence[Any] | None:
    """Ask for one row of texts, on a connection as an engine's pool has it; None: nobody knows how.

    The connection is left as it was: no transaction is begun, none is ended. One round trip, on
    async connections inside of SQLAlchemy's greenlet.

    Raises:
        Exception: the driver's own, where the connection is closed or busy.
    """
    connection = getattr(dbapi_connection, "driver_connection", dbapi_connection)
    driver = _driver_of(connection)
    if driver == "asyncpg":

        async def asked(connection: Any) -> tuple[Any, ...]:
            return tuple(await connection.fetchrow(question))

        return cast("tuple[Any, ...]", dbapi_connection.run_async(asked))
    if driver == "psycopg":
        return _asked_of_libpq(connection.pgconn, question)
    if driver == "psycopg2":
        return _asked_of_psycopg2(connection, question)
    return None


def _driver_of(connection: Any) -> str:
    """The package that a class, or one that it is made from, belongs to: apps have subclasses."""
    packages = (one.__module__.partition(".")[0] for one in type(connection).__mro__)
    return next((one for one in packages if one in {"asyncpg", "psycopg", "psycopg2"}), "")


def _asked_of_libpq(pgconn: Any, question: str) -> tuple[str, ...]:
    # Below psycopg's own transactions, adapters and row factories.
    result = pgconn.exec_(question.encode())
    values = [result.get_value(0, column) for column in range(result.nfields)]
    return tuple((value or b"").decode() for value in values)


def _asked_of_psycopg2(connection: Any, question: str) -> tuple[Any, ...]:
    library = sys.modules["psycopg2.extensions"]  # an extra; the connection is its own
    was_idle = connection.info.transaction_status == library.TRANSACTION_STATUS_IDLE
    # The bare class: the app's cursors may give rows of any kind.
    cursor = library.cursor(connection)
    try:
        cursor.execute(question)
        return tuple(cursor.fetchone())
    finally:
        cursor.close()
        if was_idle and not connection.autocommit:
            connection.rollback()
