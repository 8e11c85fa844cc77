"""Where do the connections of PostgreSQL's drivers land, and what is open?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from pytest_arena._postgresql import _arguments as arguments
from pytest_arena._postgresql._handle import ServerHandle, driver_connection
from pytest_arena._postgresql._identity import identity, name_of
from pytest_arena._postgresql.drivers import _statements as drivers
from pytest_arena._postgresql.drivers._raw_guard import watch_drivers
from pytest_arena._postgresql.moving._moving_trial import prepare
from pytest_arena._product import Asked, Live

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.engine import Dialect

    from pytest_arena._config import Config
    from pytest_arena._postgresql._identity import Identity
    from pytest_arena._postgresql._product import PostgreSQL
    from pytest_arena._product import Aim, Core, Product

__all__ = ["connections", "open_product"]

# Arguments by which an app opens its connections itself, whatever the others say.
_OWN_WAYS = ("connection_factory", "connection_class")


class PostgreSQLConnections:
    """Connections of asyncpg, psycopg and psycopg2."""

    def describe(self, dialect: Dialect, cargs: Any, cparams: Any) -> Asked | None:
        """The servers and the database, as libpq and asyncpg read them."""
        if not arguments.knows(dialect.driver):
            return None
        meant = arguments.target(dialect.driver, cargs, cparams)
        return Asked(dialect, "postgresql", meant.name, database=meant.database)

    def lead(
        self,
        core: Core,
        dialect: Dialect,
        aim: Aim | None,
        cargs: list[Any],
        cparams: dict[str, Any],
    ) -> Callable[[Any], Live | None]:
        """By the address; asyncpg's move between loops from here on."""
        if aim is not None and aim.address is not None:
            arguments.lead(dialect.driver, aim.address, cargs, cparams)
            prepare(dialect, cparams, tell=core.ledger.note)
        # What this listener sets up holds, unless another one has the last word after it.
        has_own_way = any(map(cparams.get, _OWN_WAYS))
        is_last = len(dialect.dispatch.do_connect) == 1 and not has_own_way

        def opened(dbapi_connection: Any) -> Live | None:
            if not is_last:
                return None
            return Live(aim, ServerHandle(core, aim, dbapi_connection)) if aim else Live()

        return opened

    def recognize(self, core: Core, dbapi_connection: Any) -> Live | None:
        """Whatever name it was opened by: the server says which one it is, and which database."""
        connection = driver_connection(dbapi_connection)
        admitted = drivers.admitted(connection)
        if admitted is not None and admitted.address is None:
            return Live()  # as arena_allow has it
        found = identity(dbapi_connection)
        if found is None:
            return None
        aim = _aim_of(core, found)
        if aim is None:
            return Live(outside=name_of(dbapi_connection, found))
        drivers.pooled(connection)
        return Live(aim, ServerHandle(core, aim, dbapi_connection))

    def watch(self, core: Callable[[], Core | None]) -> None:
        """Each connection of a driver, by the functions that all of them go through."""
        watch_drivers(core)

    def end_raw(self, core: Core, serial: int) -> None:
        """Their backends."""
        for raw in drivers.raw_connections():
            database = core.database_at(raw.aim.key) if raw.serial == serial and raw.pid else None
            if database is not None:
                product = cast("PostgreSQL", database.product)
                product.end_backend(database, raw.pid, cancel=False)


def _aim_of(core: Core, found: Identity) -> Aim | None:
    own = [known for known in core.provisioned() if known.product.name == "postgresql"]
    aims = (cast("PostgreSQL", known.product).aim_of(known, found) for known in own)
    return next((aim for aim in aims if aim is not None), None)


connections = PostgreSQLConnections()


def open_product(core: Core, config: Config) -> Product:
    """Return the product of a run. A driver that is only imported does not pay for it."""
    from pytest_arena._postgresql._product import PostgreSQL  # noqa: PLC0415 - as said

    return PostgreSQL(core, config)
