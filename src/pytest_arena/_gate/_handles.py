"""What can be asked of a live connection, and done to it, whatever its driver?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from pytest_arena._gate._base import Aim

__all__ = ["Handle"]


class Handle(Protocol):
    """One live connection, by a weak reference: it ends when its pool lets go of it."""

    def is_of(self, dbapi_connection: Any) -> bool:
        """Whether this is the very connection that the guard has looked at.

        An app's own do_connect listener runs after the gate's, and may return another one.
        """

    @property
    def in_transaction(self) -> bool:
        """Whether it has begun to write and has neither committed nor rolled back."""

    @property
    def is_begun(self) -> bool:
        """Whether a transaction is open as far as its driver knows, which is all that is asked."""

    def changes(self) -> int:
        """How many rows it has changed since it was opened; 0 where the driver does not count."""

    def interrupt(self) -> None:
        """End the statement that runs on it. Harmless where none does."""

    def roll_back(self) -> None:
        """End its transaction, from any thread; the connection may be unusable afterwards."""

    def attached(self) -> tuple[Aim, ...]:
        """Other databases that it has been led to, beside its own."""

    def session(self) -> object:
        """What it carries from one test to the next beside the database; None: cannot be asked."""
