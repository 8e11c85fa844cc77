"""Redirects connections in processes that multiprocessing has spawned.

Such a process imports the app again, with the URL of the developer's database.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, partial
from importlib import import_module
from typing import TYPE_CHECKING

from pytest_arena._config._supported import SUPPORTED
from pytest_arena._interpreter import when_imported
from pytest_arena._process import send_to_spawned

if TYPE_CHECKING:
    from pytest_arena._values import Address


@dataclass(frozen=True, slots=True)
class SpawnedDrivers:
    """Redirects or refuses the connections of the process that unpickles it.

    ``addresses`` has the addresses of the test's databases. Its keys are the names of a database
    and a user in the app's URLs.
    """

    product: str
    guard_module: str  # the module that watches the product's drivers
    addresses: dict[tuple[str, str], Address]
    allowed: tuple[str, ...]

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle a call of ``guard_spawned``. Unpickling in the new process makes the call."""
        values = (self.product, self.guard_module, self.addresses, self.allowed)
        return guard_spawned, values


def guard_spawned(
    product: str,
    guard_module: str,
    addresses: dict[tuple[str, str], Address],
    allowed: tuple[str, ...],
) -> SpawnedDrivers:
    """Guard this process and the processes that it spawns, without importing a driver."""
    guard = SpawnedDrivers(product, guard_module, addresses, allowed)
    watch = cache(partial(_watch, guard))
    for package in SUPPORTED[product].drivers:
        when_imported(package, lambda _package: watch())
    send_to_spawned(lambda: [guard])
    return guard


def _watch(guard: SpawnedDrivers) -> None:
    # Imported late, because most spawned processes import no driver.
    module = import_module(guard.guard_module)
    module.watch_spawned(guard.addresses, guard.allowed)
