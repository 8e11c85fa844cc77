"""Who holds a connection that is out of its pool, and how is he given another one?"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from pytest_arena._values import alive

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

    from pytest_arena._gate._entries import Checkout

__all__ = ["Holders"]

_NONE = "AUTOCOMMIT"


class Holders:
    """The connections of SQLAlchemy's Core, which take one from a pool and may take another.

    Each is known with the serial of the level in which it was made: what a wider fixture has made
    is no test's, also where it took another connection in a test.
    """

    def __init__(self) -> None:
        self._made: weakref.WeakKeyDictionary[Connection, int] = weakref.WeakKeyDictionary()

    def made(self, connection: Connection, serial: int) -> None:
        """Somebody has called ``engine.connect()``, or a session has."""
        self._made[connection] = serial

    def entries_of_others(self, serial: int) -> list[object]:
        """Return the pool's entries whose holders were made in another level than this one."""
        older = [one for one in alive(self._made) if self._made.get(one) != serial]
        return [getattr(_proxied(one), "_connection_record", None) for one in older]

    def give_up(self, taken: Checkout) -> bool:
        """Take a connection away: its holder opens another one when he goes on.

        Returns whether he was inside a transaction, which is lost: he has to roll it back first.
        """
        reference = getattr(taken.entry, "fairy_ref", None)
        proxied: Any = reference() if reference is not None else None
        if proxied is None:
            return False
        holder = next((one for one in alive(self._made) if _proxied(one) is proxied), None)
        if holder is None:
            proxied.invalidate()
            return False
        return _reconnected(holder)


def _reconnected(holder: Connection) -> bool:
    begun, level = holder.get_transaction(), holder.get_execution_options().get("isolation_level")
    holder.invalidate()
    if begun is not None and level != _NONE:
        return True
    if begun is not None:
        begun.rollback()  # SQLAlchemy's own: the database has never heard of it
    if level is not None and not holder.dialect.is_async:
        # A new connection would not have it. (It opens one, for which an async one has to be
        # awaited: that has the engine's.)
        holder.execution_options(isolation_level=level)
    return False


def _proxied(connection: Connection) -> object:
    # Its property would open another one where there is none.
    return connection._dbapi_connection  # noqa: SLF001 - as said
