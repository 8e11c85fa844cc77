"""Finds the MySQL or MariaDB server for the test databases."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_arena._values import Address


@dataclass(frozen=True)
class MySQLServer:
    """A server that answers, and lets its login create databases."""

    address: Address  # without a database
    shown: str  # its version and origin, for the run's summary


class NoMySQL(Exception):
    """A source has no usable server. The text is the reason, ``fix`` the next step or ""."""

    def __init__(self, reason: str, *, fix: str = "") -> None:
        super().__init__(reason)
        self.fix = fix
