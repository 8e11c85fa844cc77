"""Redirects connections in spawned processes.

Such a process imports the app again, with the URL of the developer's database.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING

from pytest_arena._process import send_to_spawned, when_imported

if TYPE_CHECKING:
    from pytest_arena._values import Address


@dataclass(frozen=True, slots=True)
class SpawnedConnections:
    """Redirects or refuses the connections of the process that unpickles it.

    ``addresses`` has the test's databases by the names of the app's database and user.
    """

    addresses: dict[tuple[str, str], Address]
    allowed: tuple[str, ...]

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle a call of ``install``, which the new process makes."""
        return install, (self.addresses, self.allowed)


def install(
    addresses: dict[tuple[str, str], Address], allowed: tuple[str, ...]
) -> SpawnedConnections:
    """Guard this process and the processes that it spawns, without importing a driver."""
    guard = SpawnedConnections(addresses, allowed)
    watch = cache(partial(_watch, guard))
    for package in ("asyncpg", "psycopg", "psycopg2"):
        when_imported(package, lambda _package: watch())
    send_to_spawned(lambda: [guard])
    return guard


def _watch(guard: SpawnedConnections) -> None:
    from pytest_arena._postgresql.drivers import _raw_guard  # noqa: PLC0415 - most spawned processes use no database

    _raw_guard.watch_spawned(guard.addresses, guard.allowed)
