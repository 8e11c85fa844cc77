"""pytest-arena's connections to PostgreSQL: synchronous, by psycopg 3."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, Any

from pytest_arena._product._server_control import (
    Control,
    ServerFailure,
    import_driver,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from psycopg import Connection

    from pytest_arena._values import Address

_CONNECT_SECONDS = 10
APPLICATION_NAME = "pytest-arena"  # in pg_stat_activity

# SQLSTATEs of a server that shuts down, has crashed, or starts.
_SHUTDOWN = ("57P01", "57P02", "57P03")
_STARTS_OR_STOPS = re.compile("is (shutting down|starting up|not yet accepting|in recovery)")

# A transaction gets its id at its first write. The backend type excludes autovacuum.
WRITERS = """
SELECT pid FROM pg_stat_activity WHERE datname = {0} AND backend_xid IS NOT NULL
AND backend_type = 'client backend' AND pid <> pg_backend_pid()
"""


class ControlFailure(ServerFailure):
    """``code`` is an SQLSTATE (https://www.postgresql.org/docs/current/errcodes-appendix.html)."""

    @property
    def is_lost(self) -> bool:
        """Whether the connection is lost. False if the server refused a statement."""
        return self.code in ("", *_SHUTDOWN) or self.code.startswith("08")

    @property
    def is_down(self) -> bool:
        """Whether no server answers, or it shuts down or starts."""
        if self.code:
            return self.is_lost
        # A server that refuses a login answers. libpq reports no code for that.
        return "FATAL:" not in str(self) or _STARTS_OR_STOPS.search(str(self)) is not None


class PostgreSQLControl(Control):
    """A connection by psycopg."""

    def _execute(self, sql: str, *, fetch: bool) -> list[tuple[Any, ...]]:
        try:
            cursor = self._connection.execute(sql)
            return cursor.fetchall() if fetch else []
        except (_psycopg().Error, UnicodeError) as error:
            sqlstate = getattr(error, "sqlstate", None) or ""
            raise ControlFailure(str(error).strip(), sqlstate) from error


def connect(
    address: Address,
    settings: Mapping[str, str] | None = None,
    *,
    seconds: int = _CONNECT_SECONDS,
) -> Connection:
    """Connect to PostgreSQL by psycopg.

    ``settings`` are settings of the session, such as ``lock_timeout``, from the login on. libpq's
    environment variables, such as PGOPTIONS, have no effect. A server that does not answer in so
    many seconds is down.
    """
    psycopg = _psycopg()
    try:
        connection: Connection = psycopg.connect(
            host=address.host,
            port=address.port,
            user=address.user,
            password=address.password or None,
            dbname=address.database,
            sslmode="disable" if address.is_socket else "prefer",
            connect_timeout=seconds,
            application_name=APPLICATION_NAME,
            options=_options(settings or {}),
            autocommit=True,
            prepare_threshold=None,
        )
    except psycopg.Error as error:
        raise ControlFailure(str(error).strip(), error.sqlstate or "") from error
    return connection


def _psycopg() -> Any:
    return import_driver("psycopg", "psycopg", "PostgreSQL", "postgresql")


def open_control(address: Address, *args: Any, **options: Any) -> PostgreSQLControl:
    """Open a connection that does not reconnect. The parameters are those of ``connect``."""
    return PostgreSQLControl(partial(connect, address, *args, **options), reconnects=False).open()


def literal(text: str) -> str:
    """Write a text as a literal in SQL."""
    return "'" + text.replace("'", "''") + "'"


def identifier(name: str) -> str:
    """Write a name as a quoted identifier in SQL."""
    return '"' + name.replace('"', '""') + '"'


def _options(settings: Mapping[str, str]) -> str:
    """Write settings as libpq's ``options``. The server splits these at unescaped blanks."""
    server_settings = {
        "standard_conforming_strings": "on",
        "client_min_messages": "error",
        **settings,
    }
    arguments = []
    for name, value in server_settings.items():
        escaped = re.sub(r"([\\\s])", r"\\\1", value)
        arguments.append(f"-c {name}={escaped}")
    return " ".join(arguments)
