"""Which server and which database is a live connection on, whatever name it was opened by?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pytest_arena._postgresql._live_sql import ask

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_arena._postgresql._control import Control

__all__ = ["Identity", "identity", "identity_of_control"]

# When a server started, to the microsecond, is the same by every way to it (socket, tunnel,
# pooler) and on no other one. Any role may ask, no setting of the session changes the answer.
_QUESTION = (
    "SELECT extract(epoch FROM pg_catalog.pg_postmaster_start_time())::pg_catalog.text, "
    "pg_catalog.current_database()::pg_catalog.text, pg_catalog.pg_backend_pid()::pg_catalog.text"
)


@dataclass(frozen=True, slots=True)
class Identity:
    """Where a connection really is. ``server`` is compared only; a restart makes it another."""

    server: str
    database: str
    pid: int


def identity_of_control(control: Control) -> Identity:
    """Ask on a connection of arena's own. Raises as ``Control.rows`` does."""
    return _identity(control.rows(_QUESTION)[0])


def identity(dbapi_connection: Any) -> Identity | None:
    """Ask on an app's connection, as an engine's pool has it; None where nobody knows how.

    The connection is left as it was: no transaction is begun, none is ended. One round trip, on
    async connections inside of SQLAlchemy's greenlet.

    Raises:
        Exception: the driver's own, where the connection is closed or busy.
    """
    row = ask(dbapi_connection, _QUESTION)
    return _identity(row) if row is not None else None


def _identity(row: Sequence[Any]) -> Identity:
    server, database, pid = (str(value) for value in row)
    return Identity(server, database, int(pid))
