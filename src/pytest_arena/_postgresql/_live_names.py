"""What is the database of a live connection called, whatever arguments it was opened by?"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

from pytest_arena._postgresql._arguments import Target
from pytest_arena._product import UNNAMED

if TYPE_CHECKING:
    from pytest_arena._postgresql._identity import Identity

__all__ = ["name_of"]


def name_of(dbapi_connection: Any, found: Identity) -> str:
    """Return the name as ``arena_allow`` has it, with ``UNNAMED`` where the server is not known.

    The server has said what the database is; where the server is, its driver says.
    """
    connection = getattr(dbapi_connection, "driver_connection", dbapi_connection)
    if (place := _place(connection)) is not None:
        return Target((place,), found.database).name
    driver = type(connection).__module__.partition(".")[0]
    return f"{driver}://{UNNAMED}" + (f"/{found.database}" if found.database else "")


def _place(connection: Any) -> tuple[str, str] | None:
    info = getattr(connection, "info", None)
    if info is not None:  # psycopg, psycopg2
        return _host_of_libpq(info), str(info.port)
    address = getattr(connection, "_addr", None)  # private; asyncpg tells it to its query loggers
    if isinstance(address, str):  # the file of a socket
        folder, _, port = address.rpartition("/.s.PGSQL.")
        return folder, port
    return (str(address[0]), str(address[1])) if address else None


def _host_of_libpq(info: Any) -> str:
    """The name that was connected to, or the number, where the name would be another server's.

    libpq takes a name for certificates beside a number that it connects to.
    """
    name, number = str(info.host or ""), _number(info)
    return name if not number or name.startswith("/") or number in _numbers(name) else number


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
