"""The socket of a proxy."""

from __future__ import annotations

import socket
import tempfile
from typing import TYPE_CHECKING

import pytest

from pytest_arena._postgresql.rollback._sockets import ProxySocket, check_for_sockets
from pytest_arena._values import PROXY_FOLDER
from pytest_arena.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_arena._postgresql.rollback._sockets import ServedConnection


def no_client(_connection: socket.socket, _number: int) -> ServedConnection:
    """Serve nobody, because nobody connects."""
    raise AssertionError


def test_an_operating_system_without_unix_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the option."""
    check_for_sockets("pytest.ini:3")
    monkeypatch.delattr(socket, "AF_UNIX")
    with pytest.raises(ConfigError, match=r"no Unix sockets(?s:.*)pytest\.ini:3"):
        check_for_sockets("pytest.ini:3")


def test_the_folder_of_a_killed_run_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That of a living one stays until it is closed."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    left = tmp_path / f"{PROXY_FOLDER}left"
    left.mkdir()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(left / "name.sock"))
    first = ProxySocket("name.sock", no_client)
    assert not left.exists()
    second = ProxySocket("name.sock", no_client)
    assert first.path.exists()
    first.close()
    second.close()
    assert not first.folder.exists()
