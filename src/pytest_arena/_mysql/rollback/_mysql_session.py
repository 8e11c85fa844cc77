"""A connection of the app to the proxy, and its settings."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from pytest_arena._mysql.rollback._packets import AUTOCOMMIT, IN_TRANSACTION
from pytest_arena._product.sharing._sharing_session import SharingSession

_PATIENCE = "innodb_lock_wait_timeout"
_READ_ONLY = ("tx_read_only", "transaction_read_only")
_ON = {"1", "ON"}


@dataclass(eq=False, slots=True)
class MySQLSession(SharingSession):
    """A connection of the app. A rollback does not change its settings."""

    values: Mapping[str, str] = field(default_factory=dict)
    autocommits: bool = True

    @property
    def status(self) -> int:
        """The status for the server's answers."""
        status = AUTOCOMMIT if self.autocommits else 0
        if self.in_block:
            status |= IN_TRANSACTION
        return status

    def lock_timeout(self, default: float | None) -> float | None:
        """Return the seconds to wait for another transaction."""
        with suppress(KeyError, ValueError):
            return float(self.values[_PATIENCE])
        return default

    def begin(self, *, is_implicit: bool = False, is_read_only: bool = False) -> None:
        """Begin a transaction."""
        is_read_only |= any(self.values.get(name) in _ON for name in _READ_ONLY)
        SharingSession.begin(self, is_implicit=is_implicit, is_read_only=is_read_only)

    def add_savepoint(self, name: str) -> None:
        """Note a new savepoint, which replaces an earlier savepoint of the same name."""
        earlier = self.find_savepoint(name)
        if earlier is not None:
            earlier.forget_name()
        SharingSession.add_savepoint(self, name)

    def use_autocommit(self, *, is_on: bool) -> None:
        """Note whether the session commits each statement."""
        self.autocommits = is_on

    def note_settings(self, changed: Mapping[str, str]) -> None:
        """Note the settings that a statement has changed."""
        if changed:
            self.values = {**self.values, **changed}

    def reset(self) -> None:
        """Return to the settings of a new session."""
        self.values = {}
        self.autocommits = True
