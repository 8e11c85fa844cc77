"""Are the sources tried in their order, and is each of them named where none has a server?"""

from __future__ import annotations

import sys
import types
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from pytest_arena._servers import _binaries, _service, _wheel
from pytest_arena._servers._base import Found, Unavailable
from pytest_arena._servers._binaries import BinariesSource
from pytest_arena._servers._containers import ContainersSource
from pytest_arena._servers._find import SOURCES, find_server
from pytest_arena._servers._wheel import WheelSource
from pytest_arena._values import Address
from pytest_arena.errors import ServerError
from tests.servers.crowded import free_port

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_arena._servers._base import Server, Wanted
    from tests.servers.crowded import Crowded

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
        "a container",
    ]


@pytest.mark.usefixtures("no_libpq_variables")
def test_where_there_is_none_each_source_says_why(
    wanted: Wanted, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A machine without PostgreSQL: four reasons, and the line that helps."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PGPORT", str(free_port()))
    monkeypatch.setattr(_service, "_SOCKETS", ())
    monkeypatch.setattr(_binaries, "_USUAL", ())
    monkeypatch.setattr(_wheel, "_PACKAGES", ())
    monkeypatch.setitem(sys.modules, "testcontainers", None)
    monkeypatch.setattr("pytest_arena._servers._containers.find_spec", lambda _: None)
    with pytest.raises(ServerError) as error:
        find_server(wanted)
    lines = str(error.value).splitlines()
    assert len(lines) <= 12
    assert [line.strip().removeprefix("cause:").strip().split(":")[0] for line in lines[2:6]] == [
        source.name for source in SOURCES
    ]
    assert "nothing answers on 127.0.0.1" in error.value.cause
    assert "no initdb" in error.value.cause
    assert "testcontainers is not installed" in error.value.cause
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


class Container:
    """Stands in for testcontainers' PostgresContainer: the server is one that runs anyway."""

    made: ClassVar[list[Container]] = []
    server: Crowded
    error: str = ""

    def __init__(self, image: str, **login: str) -> None:
        self.image, self.login, self.stopped = image, login, 0
        self.made.append(self)

    def with_command(self, command: str) -> None:
        """What it runs."""
        assert "fsync=off" in command

    def with_kwargs(self, **options: Any) -> None:
        """What Docker is told."""
        assert options == {"tmpfs": {"/var/lib/postgresql/data": "rw"}}

    def start(self) -> None:
        """Warn, as the package does of its own means; fail, where it is to."""
        warnings.warn("deprecated", DeprecationWarning, stacklevel=1)
        if self.error:
            raise RuntimeError(self.error)

    def get_container_host_ip(self) -> str:
        """Where Docker's ports are."""
        return "127.0.0.1"

    def get_exposed_port(self, port: int) -> str:
        """Testcontainers has given it as text, and as a number."""
        assert port == 5432
        return str(self.server.port)

    def stop(self) -> None:
        """Count."""
        self.stopped += 1


@pytest.fixture(params=["testcontainers.postgres", "testcontainers.community.postgres"])
def containers(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, crowded: Crowded
) -> type[Container]:
    """The package testcontainers, as far as it is used; of two versions."""
    package, module = types.ModuleType("testcontainers"), types.ModuleType("postgres")
    monkeypatch.setitem(sys.modules, "testcontainers.community", types.ModuleType("community"))
    module.PostgresContainer = Container  # type: ignore[attr-defined]  # planted in a module of ours
    monkeypatch.setitem(sys.modules, "testcontainers", package)
    monkeypatch.setitem(sys.modules, request.param, module)
    monkeypatch.setattr("pytest_arena._servers._containers.find_spec", lambda _: package)
    monkeypatch.setattr(Container, "made", [])
    monkeypatch.setattr(Container, "server", crowded, raising=False)
    return Container


def test_a_container_is_started_and_stopped(containers: type[Container], wanted: Wanted) -> None:
    """Once each; `close` may be called again."""
    found = ContainersSource().find(wanted)
    assert found.is_private
    assert found.address.port == containers.server.port
    assert "in a container of postgres:17 on 127.0.0.1:" in found.shown
    found.close()
    found.close()
    assert [one.stopped for one in containers.made] == [1]


def test_a_container_that_does_not_start_says_why(
    containers: type[Container], wanted: Wanted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No daemon is the usual reason."""
    monkeypatch.setattr(containers, "error", "Cannot connect to the Docker daemon")
    with pytest.raises(Unavailable, match="Cannot connect to the Docker daemon"):
        ContainersSource().find(wanted)
    assert [one.stopped for one in containers.made] == [1]


def test_a_container_that_cannot_be_entered_is_stopped(
    containers: type[Container], wanted: Wanted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was started is not left."""
    monkeypatch.setattr(containers, "get_exposed_port", lambda *_: free_port())
    with pytest.raises(Unavailable, match="nothing answers"):
        ContainersSource().find(wanted)
    assert [one.stopped for one in containers.made] == [1]
