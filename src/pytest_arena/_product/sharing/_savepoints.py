"""The savepoints of the real connection's transaction."""

from abc import ABC, abstractmethod
from collections.abc import Mapping


class SavepointStack(ABC):
    """The savepoints of a real connection, and the settings that a rollback to each restores.

    Statements of the methods are sent with the next statement, in the same round trip.
    """

    def __init__(self) -> None:
        self._pending: list[str] = []
        self._settings: Mapping[str, str] = {}
        # The settings at the start of each savepoint.
        self._savepoints: dict[str, Mapping[str, str]] = {}

    def note_settings(self, settings: Mapping[str, str]) -> None:
        """Note the settings after a client's statements."""
        self._settings = settings

    def execute_later(self, sql: str) -> None:
        """Send a statement together with the next one."""
        self._pending.append(sql)

    @abstractmethod
    def execute_pending(self) -> None:
        """Send the statements that wait for the next one."""

    @abstractmethod
    def cancel(self) -> None:
        """Cancel the running statement."""

    @abstractmethod
    def close(self) -> None:
        """Close the connection, which rolls back."""

    def has(self, savepoint: str) -> bool:
        """Return whether the transaction has a savepoint."""
        return savepoint in self._savepoints

    @property
    def last_savepoint(self) -> str:
        """The name of the last open savepoint."""
        return next(reversed(self._savepoints))

    def set_savepoint(self, name: str) -> None:
        """Open a savepoint."""
        self.execute_later(f"SAVEPOINT {name}")
        self._savepoints[name] = self._settings

    def release(self, name: str) -> None:
        """Release a savepoint, and keep the changes since then."""
        self.execute_later(f"RELEASE SAVEPOINT {name}")
        self._forget_after(name)
        del self._savepoints[name]

    def roll_back_to(self, name: str) -> None:
        """Roll back to a savepoint, which stays open."""
        self.execute_later(f"ROLLBACK TO SAVEPOINT {name}")
        self._forget_after(name)

    def undo(self, name: str) -> None:
        """Roll back to a savepoint, and release it."""
        self.roll_back_to(name)
        self.release(name)

    def _forget_after(self, name: str) -> None:
        while self.last_savepoint != name:
            self._savepoints.popitem()
