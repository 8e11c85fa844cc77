"""The server of the tests below."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from tests.mysql.journal.world import MySQLWorld
from tests.mysql.server import SOCKET, PrivateServer

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def mysql_socket() -> Iterator[str]:
    """The socket of a server that these tests may fill."""
    if SOCKET in os.environ:
        yield os.environ[SOCKET]
        return
    if shutil.which("mariadbd") is None:
        pytest.skip("no MariaDB server is installed")
    server = PrivateServer()
    yield server.socket
    server.stop()


@pytest.fixture
def worlds(mysql_socket: str) -> Iterator[type[MySQLWorld]]:
    """Creates databases with a journal, and drops them after the test."""
    MySQLWorld.socket = mysql_socket
    yield MySQLWorld
    MySQLWorld.drop_all()
