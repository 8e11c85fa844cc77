"""A server's product: what its driver knows by itself, and the rest by asking the server."""

from __future__ import annotations

import re
import weakref
from typing import TYPE_CHECKING, Any, cast

from pytest_arena._postgresql._beyond import reaches_beyond
from pytest_arena._postgresql._identity import has_written
from pytest_arena._postgresql.drivers._statements import refused_beyond
from pytest_arena._postgresql.moving._transport import at_checkin
from pytest_arena._values import STATEMENT_START as START

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_arena._postgresql._product import PostgreSQL
    from pytest_arena._product import Aim, Core, Database

__all__ = ["ServerHandle", "driver_connection"]

_IDLE = 0  # libpq's PQTRANS_IDLE: no transaction is open


class ServerHandle:
    """A connection of asyncpg, psycopg or psycopg2.

    No driver can be told anything from another thread or outside its event loop; the server can,
    on the arena's own connection and by the number of the backend.
    """

    __slots__ = ("_core", "_key", "_pid", "_reference", "_states")
    reads_statements = True

    def __init__(self, core: Core, aim: Aim, dbapi_connection: Any) -> None:
        driver = driver_connection(dbapi_connection)
        self._core, self._key = core, aim.key
        self._reference: Callable[[], Any] = _weak(driver)
        self._pid = _pid(driver)
        self._states = 0  # how many statements have changed what the session is

    def is_of(self, dbapi_connection: Any) -> bool:
        """Whether this is the very connection."""
        return self._reference() is driver_connection(dbapi_connection)

    @property
    def in_transaction(self) -> bool:
        """Whether it has written in a transaction that is open.

        Drivers begin one at the first SELECT. Only the server knows whether anything was written,
        which is asked where the driver says that one is open.
        """
        database = self._core.database_at(self._key) if self.is_begun else None
        return database is not None and _product_of(database).writes(database, self._pid)

    @property
    def is_begun(self) -> bool:
        """Whether the driver says that one is open, whatever was done in it."""
        driver = self._reference()
        return driver is not None and _is_open(driver)

    def changes(self) -> int:
        """No driver counts them."""
        return 0

    def interrupt(self) -> None:
        """Cancel its statement."""
        self._end(cancel=True)

    def roll_back(self) -> None:
        """End its backend, and with it its transaction and its locks."""
        self._end(cancel=False)

    def _end(self, *, cancel: bool) -> None:
        database = self._core.database_at(self._key) if self._reference() is not None else None
        if database is not None:
            _product_of(database).end_backend(database, self._pid, cancel=cancel)

    def attached(self) -> tuple[Aim, ...]:
        """A connection to a server has one database."""
        return ()

    def has_written(self, dbapi_connection: Any, since: int) -> bool:  # noqa: ARG002 - no driver counts
        """Ask the server on the connection itself."""
        return has_written(dbapi_connection)

    def executing(self, statement: str) -> None:
        """Refuse what reaches beyond; count what the session carries to its next transaction."""
        __tracebackhide__ = True
        if beyond := reaches_beyond(statement):
            raise self._core.ledger.refused(refused_beyond(beyond))
        self._states += alters_session(statement)

    def returned(self) -> None:
        """Its socket leaves the loop, if it can move to another one."""
        at_checkin(self._reference())

    def session(self) -> object:
        """How many statements have changed it."""
        return self._states


def _product_of(database: Database) -> PostgreSQL:
    return cast("PostgreSQL", database.product)


def driver_connection(dbapi_connection: Any) -> Any:
    """Return the driver's own connection behind SQLAlchemy's adapted one."""
    return getattr(dbapi_connection, "driver_connection", dbapi_connection)


def _weak(driver: Any) -> Callable[[], Any]:
    try:
        return weakref.ref(driver)
    except TypeError:
        return lambda: driver


def _pid(driver: Any) -> int:
    for name in ("get_server_pid", "get_backend_pid"):  # asyncpg; psycopg2
        if (ask := getattr(driver, name, None)) is not None:
            return int(ask())
    return int(getattr(getattr(driver, "info", None), "backend_pid", 0))


def _is_open(driver: Any) -> bool:
    if (ask := getattr(driver, "is_in_transaction", None)) is not None:  # asyncpg
        return not driver.is_closed() and bool(ask())
    info = getattr(driver, "info", None)  # psycopg, psycopg2
    return not getattr(driver, "closed", False) and getattr(info, "transaction_status", 0) != _IDLE


# What outlives a transaction on a connection: settings, roles, listeners, locks, prepared things.
# A function of the user's that does such a thing inside is not seen here.
_ALTERING = (
    r"(?:SET(?!\s+(?:LOCAL|TRANSACTION|CONSTRAINTS)\b)|RESET|DISCARD|LISTEN|UNLISTEN|PREPARE|"
    r"DECLARE|LOAD|DO\b|CREATE\s+(?:OR\s+REPLACE\s+)?(?:LOCAL\s+|GLOBAL\s+)?TEMP)"
)
_ALTERS = re.compile(START + _ALTERING, re.IGNORECASE | re.DOTALL)
_ALTERS_LATER = re.compile(";" + START + _ALTERING, re.IGNORECASE | re.DOTALL)
# What `set_config(…, true)` sets ends with the transaction: apps with row security do it in each.
_CALLS = re.compile(
    r"set_config\s*\((?![^()]*,\s*true\s*\))|pg_(?:try_)?advisory_lock|\bpg_temp\b|"
    r"\bINTO\s+(?:LOCAL\s+|GLOBAL\s+)?TEMP(?:ORARY)?\s",
    re.IGNORECASE,
)


def alters_session(statement: str) -> bool:
    """Whether a statement may change what a session carries to the next transaction. Costs 1 µs."""
    return bool(
        _ALTERS.match(statement)
        or _CALLS.search(statement)
        or (";" in statement and _ALTERS_LATER.search(statement))
    )
