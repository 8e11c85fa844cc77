"""All of SQLite: where its files stand, how a connection is led there, how one is brought back."""

from __future__ import annotations

from pytest_arena._sqlite._copy import Copy
from pytest_arena._sqlite._guard import lead_attached
from pytest_arena._sqlite._home import Home
from pytest_arena._sqlite._sql import OwnConnection, file_of
from pytest_arena._sqlite._trial import works
from pytest_arena._sqlite._wal import LiveLog, Wal
from pytest_arena._sqlite._ways import LiveFile, Pages

__all__ = [
    "Copy",
    "Home",
    "LiveFile",
    "LiveLog",
    "OwnConnection",
    "Pages",
    "Wal",
    "file_of",
    "lead_attached",
    "works",
]
