"""What does an app's own connection to PostgreSQL say of itself, and is left as it was?

Which server and which database it is on, whatever arguments it was opened by.
"""

from __future__ import annotations

import socket
import sys
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from pytest_arena._postgresql._arguments import ServerTarget
from pytest_arena._product import UNNAMED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_arena._postgresql._control import Control

# When a server started, to the microsecond, is the same by every way to it (socket, tunnel,
# pooler) and on no other one. Any role may ask, no setting of the session changes the answer.
_QUESTION = (
    "SELECT extract(epoch FROM pg_catalog.pg_postmaster_start_time())::pg_catalog.text, "
    "pg_catalog.current_database()::pg_catalog.text"
)


class Identity(NamedTuple):
    """Where a connection really is. ``server`` is compared only; a restart makes it another."""

    server: str
    database: str


def identity_of_control(control: Control) -> Identity:
    """Ask on a connection of arena's own. Raises as ``Control.rows`` does."""
    return Identity(*control.rows(_QUESTION)[0])


def identity(dbapi_connection: Any) -> Identity | None:
    """Ask on an app's connection, as an engine's pool has it; None where nobody knows how.

    The connection is left as it was: no transaction is begun, none is ended. One round trip, on
    async connections inside of SQLAlchemy's greenlet.

    Raises:
        Exception: the driver's own, where the connection is closed or busy.
    """
    row = _ask(dbapi_connection, _QUESTION)
    return Identity(*row) if row is not None else None


def driver_connection(dbapi_connection: Any) -> Any:
    """Return the driver's own connection behind SQLAlchemy's adapted one."""
    return getattr(dbapi_connection, "driver_connection", dbapi_connection)


def name_of(dbapi_connection: Any, found: Identity) -> str:
    """Return the name as ``arena_allow`` has it, with ``UNNAMED`` where the server is not known.

    The server has said what the database is; where the server is, its driver says.
    """
    connection = driver_connection(dbapi_connection)
    if (place := _place(connection)) is not None:
        return ServerTarget((place,), found.database).name
    driver = type(connection).__module__.partition(".")[0]
    return f"{driver}://{UNNAMED}" + (f"/{found.database}" if found.database else "")


def _place(connection: Any) -> tuple[str, str] | None:
    info = getattr(connection, "info", None)
    if info is not None:  # psycopg, psycopg2
        return _host_of_libpq(info), str(info.port)
    address = getattr(
        connection, "_addr", None
    )  # private; asyncpg tells it to its query loggers
    if isinstance(address, str):  # the file of a socket
        folder, _, port = address.rpartition("/.s.PGSQL.")
        return folder, port
    return (str(address[0]), str(address[1])) if address else None


def _host_of_libpq(info: Any) -> str:
    """The name that was connected to, or the number, where the name would be another server's.

    libpq takes a name for certificates beside a number that it connects to.
    """
    name = str(info.host or "")
    number = _number(info)
    return (
        name
        if not number or name.startswith("/") or number in _numbers(name)
        else number
    )


def _number(info: Any) -> str:
    try:
        return str(info.hostaddr or "")
    except Exception:  # noqa: BLE001 - a driver's own, of a libpq that has no such word
        return str(info.dsn_parameters.get("hostaddr", ""))


def _numbers(name: str) -> set[str]:
    try:
        return {str(found[4][0]) for found in socket.getaddrinfo(name, None)}
    except OSError:
        return set()


# Any role may ask. A transaction has a number from when it has written something.
_HAS_WRITTEN = "SELECT pg_catalog.pg_current_xact_id_if_assigned()::pg_catalog.text"


def has_written(dbapi_connection: Any) -> bool:
    """Whether its transaction, which is open, has written anything. Raises as ``identity`` does."""
    found = _ask(dbapi_connection, _HAS_WRITTEN)
    return bool(found and found[0])


def _ask(dbapi_connection: Any, question: str) -> Sequence[Any] | None:
    """Ask for one row of texts, on a connection as an engine's pool has it; None: nobody knows how.

    The connection is left as it was: no transaction is begun, none is ended. One round trip, on
    async connections inside of SQLAlchemy's greenlet.

    Raises:
        Exception: the driver's own, where the connection is closed or busy.
    """
    connection = driver_connection(dbapi_connection)
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
    packages = (kind.__module__.partition(".")[0] for kind in type(connection).__mro__)
    return next(
        (name for name in packages if name in {"asyncpg", "psycopg", "psycopg2"}), ""
    )


def _asked_of_libpq(pgconn: Any, question: str) -> tuple[str, ...]:
    # Below psycopg's own transactions, adapters and row factories.
    result = pgconn.exec_(question.encode())
    if not result.nfields:  # the transaction has failed, or the server is gone
        raise sys.modules["psycopg"].OperationalError("the server did not answer")
    values = [result.get_value(0, column) for column in range(result.nfields)]
    return tuple((value or b"").decode() for value in values)


def _asked_of_psycopg2(connection: Any, question: str) -> tuple[Any, ...]:
    library = sys.modules["psycopg2.extensions"]  # an extra; the connection is its own
    was_idle = connection.info.transaction_status == library.TRANSACTION_STATUS_IDLE
    # The bare class: the app's cursors may give rows of any kind.
    try:
        with library.cursor(connection) as cursor:
            cursor.execute(question)
            return tuple(cursor.fetchone())
    finally:
        if was_idle and not connection.autocommit:
            connection.rollback()
