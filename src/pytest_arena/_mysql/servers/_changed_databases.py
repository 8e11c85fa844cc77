"""Finds databases of a server that other programs change during the run."""

# ruff: noqa: S608 - texts are written by literal() alone

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_arena._mysql._control import literal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pytest_arena._mysql._control import MySQLControlLine
    from pytest_arena._values import Address

_LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")


class ChangedDatabases:
    """Compares the times of the tables' last changes with the start of the run.

    The server keeps these times in seconds. The comparison misses a change in the first second of
    the run, and a dropped table. It also misses databases on which pytest-arena's login has no
    right.

    Cost: one query at the start. At the end, one query for each of the app's databases.

    Raises:
        MySQLFailure: the server does not answer.
    """

    def __init__(self, control: MySQLControlLine, address: Address) -> None:
        self._control = control
        self._address = address
        [(started, port)] = control.rows("SELECT CAST(NOW() AS CHAR), @@port")
        self._started = str(started)
        self._port = str(port)

    def changed(self, names: Iterable[str]) -> list[str]:
        """Return the names (``mysql://host:port/database``) of databases that have changed.

        Raises as the constructor does.
        """
        changed = []
        for name in names:
            server, _, database = name.rpartition("/")
            if self._is_this_server(server) and self._has_changed(database):
                changed.append(name)
        return changed

    def _has_changed(self, database: str) -> bool:
        """Return whether a table of a database was changed or created since the start.

        The server's own database `mysql` does not count, because each CREATE USER changes it.
        """
        started = literal(self._started)
        rows = self._control.rows(
            "SELECT 1 FROM information_schema.tables "
            f"WHERE table_schema = {literal(database)} AND table_schema <> 'mysql' "
            f"AND (update_time > {started} OR create_time > {started}) LIMIT 1"
        )
        return bool(rows)

    def _is_this_server(self, server: str) -> bool:
        """Return whether ``mysql://host:port`` is this server."""
        _, _, place = server.partition("://")
        host, _, port = place.rpartition(":")
        if port != self._port:
            return False
        own_host = self._address.host
        if own_host in _LOCAL_HOSTS or self._address.is_socket:
            return host in _LOCAL_HOSTS
        return host == own_host
