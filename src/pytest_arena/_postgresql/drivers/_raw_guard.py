"""Which connections to servers does nobody open by an engine, and may they be opened?

Engines go the same way, below SQLAlchemy: what the gate has led is let through, as long as its
arguments are what the gate has made of them.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

from pytest_arena._origin import is_own, user_line
from pytest_arena._postgresql._arguments import (
    Led,
    ServerTarget,
    is_led,
    lead,
    name_outright,
    target,
)
from pytest_arena._postgresql._beyond import reaches_beyond
from pytest_arena._product import NOWHERE, Asked
from pytest_arena._values import alive
from pytest_arena.errors import ProductionDatabaseError, UnknownDatabaseError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType
    from typing import TypeAlias

    from pytest_arena._postgresql._product import PostgreSQL
    from pytest_arena._product import Aim, Core
    from pytest_arena._values import Address, CodeLine
    from pytest_arena.errors import RefusedError

    Without: TypeAlias = Callable[[str, str], str]  # the note about a driver that cannot be guarded

__all__ = [
    "Admitted",
    "Guard",
    "RawConnection",
    "admitted",
    "pooled",
    "raw_connections",
    "refused_beyond",
]


@dataclass(frozen=True, slots=True)
class RawConnection:
    """A connection of somebody's to a database of the arena's, which no pool of an engine has.

    It belongs to the level in which it was opened, and ends with it: by its backend, since the
    client may be in any thread or loop.
    """

    aim: Aim
    line: CodeLine | None
    serial: int
    pid: int  # of its backend; 0 where that is not known


@dataclass(frozen=True, slots=True)
class Admitted:
    """Why a connection was let through: to an address of ours, or as ``arena_allow`` has it.

    ``aim`` is set where no engine has led it there.
    """

    address: Address | None = None
    aim: Aim | None = None


@dataclass(frozen=True, slots=True)
class _Opened:
    admitted: Admitted
    line: CodeLine | None
    serial: int


_opened: weakref.WeakKeyDictionary[Any, _Opened] = weakref.WeakKeyDictionary()


def admitted(driver_connection: Any) -> Admitted | None:
    """Return why this very connection was let through; None for one that was not seen."""
    try:
        opened = _opened.get(driver_connection)
    except TypeError:  # an object of somebody's that cannot be looked up
        return None
    return opened.admitted if opened else None


def pooled(driver_connection: Any) -> None:
    """An engine's pool has this connection from here on: it does not end with a level."""
    opened = _opened.get(driver_connection)
    if opened is not None:
        _opened[driver_connection] = replace(opened, admitted=Admitted(opened.admitted.address))


def raw_connections() -> list[RawConnection]:
    """Return those that are open."""
    return [
        RawConnection(opened.admitted.aim, opened.line, opened.serial, _pid_of(connection))
        for connection in alive(_opened)
        if (opened := _opened.get(connection)) is not None
        and opened.admitted.aim is not None
        and not _is_closed(connection)
    ]


def _is_closed(connection: Any) -> bool:
    ask = getattr(connection, "is_closed", None)  # asyncpg's; the others have an attribute
    return bool(ask() if ask else connection.closed)


def _pid_of(connection: Any) -> int:
    try:
        ask = getattr(connection, "get_server_pid", None)
        return int(ask() if ask else connection.info.backend_pid)
    except Exception:  # noqa: BLE001 - a driver's own, of one that is not open yet, or not any more
        return 0


class Guard:
    """Decides on each connection before a socket is opened."""

    def __init__(self, core: Callable[[], Core | None]) -> None:
        self._core = core

    def change(
        self, change: Callable[[Guard, ModuleType], None], without: Without, module: ModuleType
    ) -> None:
        """Put the guard into a driver's module."""
        try:
            change(self, module)
        except (AttributeError, KeyError) as error:
            if (now := self._core()) is not None:
                now.ledger.note(without(module.__name__, str(error).strip("'")))

    def admit(self, dialect: str, args: list[Any], kwargs: dict[str, Any]) -> Admitted | None:
        """Refuse a connection, or lead it, or let it be; return why, None where nobody looks.

        Raises:
            RefusedError: it may not be opened.
        """
        __tracebackhide__ = True
        now = self._core()
        driver = dialect.removesuffix("_async")
        if now is None or is_own():
            return None
        if is_led(driver, args, kwargs):
            return Admitted(kwargs["host"].address)
        meant = target(driver, args, kwargs)
        if isinstance(kwargs.get("host"), Led):
            raise now.ledger.refused(_led_astray(meant))
        if now.drivers == "off":
            return None
        asked = _asked(dialect, meant)
        if (inside := _aim_at(now, asked)) is not None and inside.address is not None:
            name_outright(driver, inside.address, kwargs)
            return Admitted(inside.address, inside)
        return self._admit_outside(now, asked, meant, args, kwargs)

    def _admit_outside(
        self, now: Core, asked: Asked, meant: ServerTarget, args: list[Any], kwargs: dict[str, Any]
    ) -> Admitted:
        __tracebackhide__ = True
        if all(now.files.is_allowed(name) for name in meant.names):
            return Admitted()
        driver = asked.dialect.driver
        if now.drivers == "refuse":
            raise now.ledger.refused(_raw_connection(meant, driver, of_app=now.means(asked)))
        aim = now.aim(asked)
        if aim is None or aim.address is None:
            return Admitted()
        lead(driver, aim.address, args, kwargs)
        return Admitted(aim.address, aim)

    def refuse_outside(self, dialect: str, args: list[Any], kwargs: dict[str, Any]) -> None:
        """Refuse what would be refused when it connects."""
        __tracebackhide__ = True
        if (now := self._core()) is not None and now.drivers == "refuse":
            self.admit(dialect, args, kwargs)

    def opened(self, admitted: Admitted | None, connection: Any) -> None:
        """Keep in mind why a connection was let through, and use its database if it is ours.

        Raises:
            RefusedError: a class or a factory of the app's has opened another one.
        """
        __tracebackhide__ = True
        now = self._core()
        if admitted is None or now is None:
            return
        if admitted.address and (other := _elsewhere(admitted.address, connection)):
            connection.close()
            raise now.ledger.refused(_made_elsewhere(other))
        line = user_line() if admitted.aim else None  # an engine's own have theirs elsewhere
        _opened[connection] = _Opened(admitted, line, now.serial())
        if admitted.aim is not None:
            now.opened_raw(admitted.aim.key)

    def refuse_beyond(self, connection: Any, statement: str | bytes) -> None:
        """Refuse a statement that reaches beyond the arena's database that it is run in.

        What ``arena_allow`` has let through is asked nothing, nor is the arena's own connection.
        """
        __tracebackhide__ = True
        beyond = _beyond(statement)
        if not beyond or (why := admitted(connection)) is None or why.address is None:
            return
        if (now := self._core()) is not None:
            raise now.ledger.refused(refused_beyond(beyond))


def _elsewhere(address: Address, connection: Any) -> ServerTarget | None:
    """What a connection of libpq's is on, where that is not the database that it was led to."""
    info = getattr(connection, "info", None)
    if info is None or info.dbname == address.database:
        return None
    return ServerTarget(((str(info.host), str(info.port)),), str(info.dbname))


def _beyond(statement: str | bytes) -> str:
    is_short = len(statement) < _SHORT
    return (_remembered if is_short else _read)(statement)


def _read(statement: str | bytes) -> str:
    text = statement if isinstance(statement, str) else statement.decode(errors="replace")
    return reaches_beyond(text)


# An engine's statement was read a moment ago; and an app has a few hundred of them. Longer ones are
# somebody's data.
_SHORT = 4096
_remembered = lru_cache(maxsize=1024)(_read)


def _asked(dialect: str, meant: ServerTarget) -> Asked:
    from sqlalchemy.engine import make_url  # noqa: PLC0415 - the command `arena` does without it

    kind = make_url(f"postgresql+{dialect}://").get_dialect()
    return Asked(kind(), "postgresql", meant.name, database=meant.database)


def _aim_at(core: Core, asked: Asked) -> Aim | None:
    """Return what aims at this very database, known by its name; None if it is not ours."""
    product = cast("PostgreSQL | None", core.find_product("postgresql"))
    database = product.meant(asked) if product else None
    return database.aim if database else None


# The guard's words

_UNSEEN = "no line of yours is on the stack: a pool's own task or thread connects"
_UNSEEN_LINE = "no line of yours is on the stack: a thread or an extension module connects"
_REDIRECT = "arena_drivers = redirect   (it then lands in the test's database)"


def _raw_connection(
    target: ServerTarget, driver: str, *, of_app: bool, line: CodeLine | None = None
) -> RefusedError:
    """A connection by a driver itself, to a server's database outside of the arena."""
    kind = ProductionDatabaseError if of_app else UnknownDatabaseError
    return kind(
        f"refused: a connection to {target.name} by {driver}, and not by the app's engine",
        why="arena leads engines into the test's database; what this connection does would stay "
        "in a database that may be a real one",
        cause=str(line or user_line() or _UNSEEN),
        fix=f"{_REDIRECT}\nor use the app's engine, db_session or arena.url{_allowing(target)}",
    )


def _led_astray(target: ServerTarget) -> UnknownDatabaseError:
    """An engine's connection whose arguments somebody changed after arena had."""
    return UnknownDatabaseError(
        f"refused: an engine's connection to {target.name}, which is not inside the arena",
        why="a do_connect listener of the app changed where it goes after arena had led it into "
        "the test's database; what the test did would stay there",
        cause=str(user_line() or _UNSEEN),
        fix=f"set what belongs to the session alone in the listener{_allowing(target)}",
    )


def _made_elsewhere(target: ServerTarget) -> UnknownDatabaseError:
    """A connection that a factory opened, instead of the one that it was asked for."""
    return UnknownDatabaseError(
        f"refused: a connection to {target.name}, which is not inside the arena",
        why="a connection_factory was asked for one to the test's database and opened another one; "
        "what it does would stay there",
        cause=str(user_line() or _UNSEEN),
        fix="let the factory pass on the dsn that it is given",
    )


def _allowing(target: ServerTarget) -> str:
    if any(NOWHERE in name for name in target.names):  # the environment's, before it was replaced
        return ""
    hosts_alike = target.names[0] if len(target.names) == 1 else f"postgresql://*/{target.database}"
    return f"; or, if tests may reach it:\narena_allow = {hosts_alike}"


def refused_beyond(statement: str) -> ProductionDatabaseError:
    """A statement that would touch another database of the server, or all of it."""
    return ProductionDatabaseError(
        f"refused: {statement}, which reaches beyond the test's database",
        why="the server may have databases of yours; what is done to them, and to the server, is "
        "not taken back after the test",
        cause=str(user_line() or _UNSEEN_LINE),
        fix="delete the fixture that makes a test database, and name what fills one:\n"
        "arena_schema = <module>:<Base>   (a migration names its own by current_database())",
    )
