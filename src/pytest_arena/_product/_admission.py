"""Decides whether to redirect, admit or refuse connections to servers without an engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from pytest_arena._origin import cause_of_connection
from pytest_arena._product import NOWHERE
from pytest_arena._product._server_targets import address_for
from pytest_arena.errors import (
    ProductionDatabaseError,
    RefusedError,
    UnknownDatabaseError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import ModuleType

    from pytest_arena._product import ConnectTarget, Core, Database, RequestedDatabase
    from pytest_arena._product._server_targets import ServerTarget
    from pytest_arena._values import Address

    FindCore: TypeAlias = Callable[[], Core | None]

__tracebackhide__ = True  # tracebacks end at the user's line


@dataclass(frozen=True, slots=True)
class Admission:
    """The decision to admit a connection that no engine opens.

    ``target`` is None for a database of ``arena_allow``. A connection to a target belongs to the
    level that opened it or its pool. The end of that level ends it.
    """

    target: ConnectTarget | None = None
    serial: int = 0  # of the level to which the connection belongs


def admit(
    core: Core,
    dialect: str,
    server: ServerTarget,
    *,
    write_address: Callable[[Address], None],
    redirect: Callable[[Address], None],
) -> Admission | None:
    """Refuse, redirect or admit a connection. Return None if pytest-arena need not watch it."""
    from sqlalchemy.engine import make_url  # noqa: PLC0415 - the command `arena` does not need it

    dialect_class = make_url(f"{server.product}+{dialect}://").get_dialect()
    requested = server.requested(dialect_class())
    is_allowed = all(core.files.is_allowed(name) for name in server.names)
    if core.config.drivers != "redirect" and not is_allowed:
        core.refuse_in_build(requested)
    if core.config.drivers == "off":
        return None
    core.refuse_late()
    live = _live_at(core, requested)
    if live is not None:
        live_target = live.target
        if live.is_shared:
            raise core.ledger.refused(_past_transaction(server))
        if live_target.address is not None:
            write_address(live_target.address)
            return Admission(live_target, core.serial())
    if is_allowed:
        return Admission()
    if core.config.drivers == "refuse":
        driver = requested.dialect.driver
        of_app = core.is_named_by_engine(requested)
        raise core.ledger.refused(_raw_connection(server, driver, of_app=of_app))
    target = core.ensure_target(requested)
    if target is None or target.address is None:
        return Admission()
    redirect(address_for(target, server.login))
    return Admission(target, core.serial())


def _live_at(core: Core, requested: RequestedDatabase) -> Database | None:
    """Return the test's database whose ``arena.url`` has or had this name."""
    for database in core.provisioned():
        product: Any = database.product  # a `ServerProduct`
        if product.name == requested.product:
            live: Database | None = product.live_at(requested)
            return live
    return None


def change_module(
    find_core: FindCore,
    change: Callable[[ModuleType], None],
    unwatched: str,
    module: ModuleType,
) -> None:
    """Put a guard into a driver's module. Note it if this version lacks a guarded function."""
    try:
        change(module)
    except (AttributeError, KeyError) as error:
        core = find_core()
        if core is not None:
            missing = getattr(error, "name", None) or str(error).strip("'")
            what = unwatched.format(module.__name__)
            core.ledger.note(f"{what}: this version has no {missing}")


UNWATCHED = "pytest-arena does not watch connections that {} opens without an engine"


_FILL = (
    "delete the fixture that creates a test database, and name the source of its tables:\n"
    "arena_schema =\n    <name of the database> = <module>:<Base>"
)
_LEAVE_OUT = "send it by hand before the tests, and not while tests run"


def _raw_connection(target: ServerTarget, driver: str, *, of_app: bool) -> RefusedError:
    """Return the error for a driver's connection to a database that is not a test's."""
    kind = ProductionDatabaseError if of_app else UnknownDatabaseError
    return kind(
        f"refused: a connection to {target.name} by {driver}, and not by the app's engine",
        why="pytest-arena redirects only engines to the test's database. The writes of this "
        "connection would stay in a database that may be a real one",
        cause=cause_of_connection(),
        fix="arena_drivers = redirect   (the driver opens the test's database)\n"
        f"or use the app's engine, db_session or arena.url{_allowing(target)}",
    )


def _past_transaction(target: ServerTarget) -> UnknownDatabaseError:
    return UnknownDatabaseError(
        f"refused: a connection to {target.name} that no engine opens, with rollback",
        why="it would not see the tests' one transaction, which is never committed",
        cause=cause_of_connection(),
        fix="use the app's engine, db_session or arena.session()\nor arena_isolation = undo",
    )


def changed_by_app(target: ServerTarget) -> UnknownDatabaseError:
    """Return the error for a redirected connection whose target the app has changed."""
    return UnknownDatabaseError(
        f"refused: a connection to {target.name}, which is no test database",
        why="a do_connect listener or a connection_factory of the app changed the target after "
        "pytest-arena had redirected the connection to the test's database. The test's writes "
        "would stay there",
        cause=cause_of_connection(),
        fix="change only the session's settings in the listener or the factory"
        f"{_allowing(target)}",
    )


def reaches_beyond(beyond: str, instead: Mapping[str, str]) -> ProductionDatabaseError:
    """Return the error for a statement that would change another database or the server."""
    is_of_fixture = beyond.endswith(("DATABASE", "SCHEMA"))
    return ProductionDatabaseError(
        f"refused: {beyond}, which reaches beyond the test's database",
        why="the server may have databases of yours. pytest-arena does not undo changes to them "
        "or to the server",
        cause=cause_of_connection(),
        fix=instead.get(beyond) or (_FILL if is_of_fixture else _LEAVE_OUT),
    )


def _allowing(target: ServerTarget) -> str:
    # pytest-arena has put this host into the environment, so a pattern for it is useless.
    if any(NOWHERE in name for name in target.names):
        return ""
    if target.database in target.standard_databases:
        return "\nA fixture that creates a test database here is not needed: delete it"
    return f". Or, if tests may reach it:\narena_allow = {', '.join(target.names)}"
