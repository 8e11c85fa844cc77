"""Redirects connections in spawned processes.

Such a process imports the app again, with the URL of the developer's database.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING

from pytest_arena._mysql import FACTS
from pytest_arena._process import send_to_spawned, when_imported

if TYPE_CHECKING:
    from pytest_arena._values import Address


@dataclass(frozen=True, slots=True)
class SpawnedDrivers:
    """Redirects or refuses the connections of the process that unpickles it.

    ``addresses`` has the test's databases by the names of the app's databases.
    """

    addresses: dict[str, Address]
    allowed: tuple[str, ...]

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle a call of ``guard_spawned``, which the new process makes."""
        return guard_spawned, (self.addresses, self.allowed)


def guard_spawned(
    addresses: dict[str, Address], allowed: tuple[str, ...]
) -> SpawnedDrivers:
    """Guard this process and the processes that it spawns, without importing a driver."""
    guard = SpawnedDrivers(addresses, allowed)
    watch = cache(partial(_watch, guard))
    for package in FACTS.drivers:
        when_imported(package, lambda _package: watch())
    send_to_spawned(lambda: [guard])
    return guard


def _watch(guard: SpawnedDrivers) -> None:
    from pytest_arena._mysql.drivers._driver_guard import watch_spawned  # noqa: PLC0415 - most spawned processes use no database

    watch_spawned(guard.addresses, guard.allowed)
