"""A connection of the app to the proxy, and its transaction from the app's view."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_FIRST_PID = 1_000_000_000  # no process of the server has such a number


@dataclass(slots=True)
class Savepoint:
    """A savepoint of the app. The real connection opens it at the next write."""

    name: str
    backend_name: str
    settings: object  # the session's settings, which a rollback to it restores

    def forget_name(self) -> None:
        """Note that the app cannot name it any more. No savepoint has an empty name."""
        self.name = ""


@dataclass(eq=False, slots=True)
class SharingSession:
    """A connection of the app to the proxy.

    ``note`` notes a difference between this isolation and real connections. ``end_connection`` ends
    the connection with an error.
    """

    number: int
    note: Callable[[str], None]
    end_connection: Callable[[str], None]
    is_begun: bool = False
    is_implicit: bool = False  # whether its transaction ends with the present messages
    is_read_only: bool = False
    first_write: str = ""  # the first statement that changed something
    savepoints: list[Savepoint] = field(default_factory=list)

    @property
    def pid(self) -> int:
        """The number by which a driver cancels its statement."""
        return _FIRST_PID + self.number

    @property
    def savepoint(self) -> str:
        """The name of the savepoint of its transaction."""
        return f"arena_client_{self.number}"

    @property
    def in_block(self) -> bool:
        """Whether the app has begun a transaction."""
        return self.is_begun and not self.is_implicit

    def lock_timeout(self, default: float | None) -> float | None:
        """Return the seconds to wait for another transaction, None for no limit."""
        return default

    # The transaction

    def begin(self, *, is_implicit: bool = False, is_read_only: bool = False) -> None:
        """Begin a transaction."""
        self.is_begun = True
        self.is_implicit = is_implicit
        self.is_read_only = is_read_only

    def forbid_writes(self) -> None:
        """Refuse writes from now on."""
        self.is_read_only = True

    def end(self, *, is_committed: bool) -> None:
        """Note that the transaction has ended."""
        del is_committed
        self.is_begun = False
        self.is_implicit = False
        self.is_read_only = False
        self.first_write = ""
        self.savepoints = []

    def cut_off(self) -> None:
        """Note that the end of a level has ended its transaction."""
        self.end(is_committed=False)

    def note_write(self, statement: str) -> None:
        """Note a statement that has changed something."""
        self.first_write = self.first_write or statement

    # Savepoints of the app

    def saved_settings(self) -> object:
        """Return the settings that a rollback to a new savepoint restores."""
        return None

    def restore_settings(self, settings: object) -> None:
        """Restore the settings of a savepoint."""

    def add_savepoint(self, name: str) -> None:
        """Note a new savepoint."""
        backend_name = f"{self.savepoint}_{len(self.savepoints)}"
        self.savepoints.append(Savepoint(name, backend_name, self.saved_settings()))

    def find_savepoint(self, name: str) -> Savepoint | None:
        """Return the last savepoint of a name."""
        for savepoint in reversed(self.savepoints):
            if savepoint.name == name:
                return savepoint
        return None

    def release(self, savepoint: Savepoint) -> None:
        """Forget a savepoint and all later ones."""
        del self.savepoints[self.savepoints.index(savepoint) :]

    def roll_back_to(self, savepoint: Savepoint) -> None:
        """Roll back to a savepoint. Forget all later ones."""
        del self.savepoints[self.savepoints.index(savepoint) + 1 :]
        self.restore_settings(savepoint.settings)


def shown(statement: str) -> str:
    """Return a statement in one line of a message."""
    line = " ".join(statement.split())
    return line if len(line) <= 100 else line[:97] + "..."  # noqa: PLR2004 - fits a line
