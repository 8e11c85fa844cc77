"""Asks a connection for its server and database.

The answer does not depend on the arguments by which the connection was opened.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from pytest_arena._postgresql import DRIVERS
from pytest_arena._postgresql._arguments import PostgreSQLTarget
from pytest_arena._product import UNNAMED
from pytest_arena._product._raw_guard import driver_connection

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_arena._postgresql._control import Control

# The start of a server, to the microsecond, identifies it over a socket, a tunnel or a pooler. Any
# role may read it, and no setting of the session changes its text.
_QUESTION = (
    "SELECT extract(epoch FROM pg_catalog.pg_postmaster_start_time())::pg_catalog.text, "
    "pg_catalog.current_database()::pg_catalog.text"
)


class Identity(NamedTuple):
    """The server and the database of a connection. ``server`` changes with a restart."""

    server: str
    database: str


def identity_of_control(control: Control) -> Identity:
    """Ask a control connection. Raises as ``Control.rows`` does."""
    return Identity(*control.rows(_QUESTION)[0])


def identity(dbapi_connection: object) -> Identity | None:
    """Ask a connection of an engine's pool. Return None for an unknown driver.

    Raises as ``_ask`` does.
    """
    row = _ask(dbapi_connection, _QUESTION)
    return Identity(*row) if row is not None else None


def name_of(dbapi_connection: object, identity: Identity) -> str:
    """Return the name in the form of ``arena_allow``, with ``UNNAMED`` for an unknown server."""
    connection = driver_connection(dbapi_connection)
    place = _server_of(connection)
    if place is not None:
        return PostgreSQLTarget((place,), identity.database).name
    driver = type(connection).__module__.partition(".")[0]
    name = f"{driver}://{UNNAMED}"
    if identity.database:
        name += f"/{identity.database}"
    return name


def _server_of(connection: object) -> tuple[str, str] | None:
    info = getattr(connection, "info", None)
    if info is not None:  # psycopg, psycopg2
        return str(info.host or info.hostaddr), str(info.port)
    address = getattr(connection, "_addr", None)  # asyncpg has no public name for it
    if not address:
        return None
    if isinstance(address, str):  # the file of a socket
        folder, _, port = address.rpartition("/.s.PGSQL.")
        return folder, port
    return str(address[0]), str(address[1])


def _ask(dbapi_connection: Any, question: str) -> Sequence[Any] | None:
    """Read one row of texts over an app's connection. Return None for an unknown driver.

    The app's transaction stays as it is. The query takes one round trip. The caller of an async
    connection is in SQLAlchemy's greenlet.

    Raises:
        Exception: the driver's, if the connection is closed or busy.
    """
    connection = driver_connection(dbapi_connection)
    driver = _driver_of(connection)
    if driver == "asyncpg":

        async def fetch(connection: Any) -> tuple[object, ...]:
            return tuple(await connection.fetchrow(question))

        return cast("tuple[Any, ...]", dbapi_connection.run_async(fetch))
    if driver == "psycopg":
        return _ask_libpq(connection.pgconn, question)
    if driver == "psycopg2":
        return _ask_psycopg2(connection, question)
    return None


def _driver_of(connection: object) -> str:
    """Return the package of a connection's class. An app may have a subclass."""
    for kind in type(connection).__mro__:
        package = kind.__module__.partition(".")[0]
        if package in DRIVERS:
            return package
    return ""


def _ask_libpq(pgconn: Any, question: str) -> tuple[str, ...]:
    # Without psycopg's transactions, adapters and row factories.
    result = pgconn.exec_(question.encode())
    if not result.nfields:  # the transaction has failed, or the connection is lost
        raise sys.modules["psycopg"].OperationalError("the server did not answer")
    values = [result.get_value(0, column) for column in range(result.nfields)]
    return tuple((value or b"").decode() for value in values)


def _ask_psycopg2(connection: Any, question: str) -> tuple[object, ...]:
    library = sys.modules["psycopg2.extensions"]  # the app has imported it
    was_idle = connection.info.transaction_status == library.TRANSACTION_STATUS_IDLE
    # The driver's cursor class returns tuples. The app's cursor class may return any rows.
    try:
        with library.cursor(connection) as cursor:
            cursor.execute(question)
            return tuple(cursor.fetchone())
    finally:
        if was_idle and not connection.autocommit:
            connection.rollback()
