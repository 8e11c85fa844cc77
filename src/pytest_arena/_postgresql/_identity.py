"""Asks a connection for its server and database.

The answer does not depend on the arguments by which the connection was opened.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from pytest_arena._postgresql import DRIVERS
from pytest_arena._postgresql._arguments import PostgreSQLTarget
from pytest_arena._postgresql._driver_guard import is_in_transaction
from pytest_arena._product import UNNAMED
from pytest_arena._product._raw_guard import driver_connection

if TYPE_CHECKING:
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


def identity(dbapi_connection: Any) -> Identity | None:
    """Ask a connection of an engine's pool. Return None for an unknown driver.

    The app's transaction stays as it is. The caller of an async connection is in SQLAlchemy's
    greenlet.

    Raises:
        Exception: the driver's, if the connection is closed or busy.
    """
    connection = driver_connection(dbapi_connection)
    # An app may have a subclass of the driver's class.
    packages = {kind.__module__.partition(".")[0] for kind in type(connection).__mro__}
    if packages.isdisjoint(DRIVERS):
        return None
    was_idle = not is_in_transaction(connection)
    cursor = dbapi_connection.cursor()
    try:
        cursor.execute(_QUESTION)
        return Identity(*cursor.fetchone())
    finally:
        cursor.close()
        if was_idle:
            dbapi_connection.rollback()


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
