"""Where do the test databases of this process live? On a server: what one is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_arena._values import Address


@dataclass(frozen=True)
class Server:
    """A server that answers, and lets its role create databases."""

    address: Address  # a maintenance database on it
    shown: str  # what it is, in a few words for the run's summary
    is_private: bool = False  # arena has started it; then it is nobody else's

    def close(self) -> None:
        """This process is done with it. Idempotent; never raises."""


class Unavailable(Exception):
    """A source has no server. The text is the reason, ``fix`` the next step where it is known."""

    def __init__(self, reason: str, *, fix: str = "") -> None:
        super().__init__(reason)
        self.fix = fix
