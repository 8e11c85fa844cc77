"""Which of PostgreSQL's databases do the arguments of a connect call mean, by whichever driver?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_arena._postgresql import _asyncpg_arguments as asyncpg
from pytest_arena._postgresql import _libpq_arguments as libpq
from pytest_arena._postgresql._target import Led, Target

if TYPE_CHECKING:
    from pytest_arena._values import Address

__all__ = ["is_led", "knows", "lead", "name_outright", "target"]

_DRIVERS = frozenset({"asyncpg", "psycopg", "psycopg2"})


def knows(driver: str) -> bool:
    """Whether the arguments of this driver are understood."""
    return driver in _DRIVERS


def target(driver: str, args: Any, kwargs: dict[str, Any]) -> Target:
    """Return the servers and the database that are meant.

    Raises:
        Exception: the driver's own, for a string that it cannot read.
    """
    if driver == "asyncpg":
        return asyncpg.target(args, kwargs)
    return libpq.target(driver, args, kwargs)


def lead(driver: str, address: Address, args: list[Any], kwargs: dict[str, Any]) -> None:
    """Put an address in the place of the one that is meant; the session stays as the app wants it.

    The user is the address's: the app's need not exist there. Of the environment's variables
    only those that say nothing of the server are still read, and, where the address has no
    password, those that know one.
    """
    if driver == "asyncpg":
        asyncpg.lead(address, args, kwargs)
    else:
        libpq.lead(driver, address, args, kwargs)


def is_led(driver: str, args: Any, kwargs: dict[str, Any]) -> bool:
    """Whether the arguments were led to the arena, and nobody has led them elsewhere since."""
    host = kwargs.get("host")
    return isinstance(host, Led) and target(driver, args, kwargs) == host.target


def name_outright(driver: str, address: Address, kwargs: dict[str, Any]) -> None:
    """Say the server and the database of an address that is meant already; keep the login."""
    if driver != "asyncpg":
        kwargs.pop("database", None)
        kwargs["hostaddr"] = ""
    database = "database" if driver == "asyncpg" else "dbname"
    kwargs.update({"host": Led.to(address), "port": address.port, database: address.database})
