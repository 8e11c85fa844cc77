"""Finds databases of a server that other programs change during the run."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pytest_arena._postgresql._control import ControlLine
    from pytest_arena._values import Address

_LOCAL_HOSTS = ("", "localhost", "127.0.0.1", "::1")
# PostgreSQL 13 does not count sessions, so no database counts as changed.
_COUNTERS = """
SELECT datname::text, coalesce((to_jsonb(s) ->> 'sessions')::bigint, 0),
    tup_inserted + tup_updated + tup_deleted
FROM pg_stat_database s WHERE datname IS NOT NULL AND NOT datname ^@ 'arena_'
"""


class Counters(NamedTuple):
    """PostgreSQL's counters of one database, since its statistics began."""

    sessions: int
    rows: int
    """The inserted, updated and deleted rows, also in catalogs, so that a changed schema counts."""


class OthersWrites:
    """Compares PostgreSQL's counters of databases with those at the run's first connection.

    pytest-arena does not connect to these databases, because ``pg_stat_database`` has a row for
    each. Autovacuum writes without a session, so a database counts as changed only after a new
    login. pytest-arena does not notice writes of a session from before the run. If autovacuum
    analyzes a table while a new session reads, the database counts as changed.

    Cost: one query at the start and one at the end, 1 ms each.
    """

    def __init__(self, control: ControlLine, address: Address) -> None:
        self._control = control
        self._address = address
        self._before = self._read()

    def changed(self, names: Iterable[str]) -> list[str]:
        """Return the names (``postgresql://host:port/database``) of databases that changed."""
        after = self._read()
        changed = []
        for name in names:
            server, _, database = name.rpartition("/")
            before = self._before.get(database)
            now = after.get(database)
            if before is None or now is None or not self._is_here(server):
                continue
            if now.sessions > before.sessions and now.rows > before.rows:
                changed.append(name)
        return changed

    def _read(self) -> dict[str, Counters]:
        rows = self._control.rows(_COUNTERS)
        return {name: Counters(*counters) for name, *counters in rows}

    def _is_here(self, server: str) -> bool:
        """Return whether ``postgresql://host:port`` is this server."""
        _, _, place = server.partition("://")
        host, _, port = place.rpartition(":")
        if (port or "5432") != str(self._address.port):
            return False
        own_host = self._address.host
        if own_host in _LOCAL_HOSTS or self._address.is_socket:
            return host in _LOCAL_HOSTS or host.startswith("/")
        return host == own_host
