"""The project that these tests change, and a server for its templates."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_arena._postgresql.registry import ServerRegistry
from pytest_arena._postgresql.servers._cluster import CLUSTERS
from pytest_arena._postgresql.servers._programs import folders, read_programs
from tests.servers.waiting import end_cluster
from tests.template.project import Project, new_project
from tests.template.server_project import ServerProject

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_arena._values import Address


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """One table, one seeded row, one imported helper."""
    project = new_project(tmp_path, monkeypatch)
    yield project
    project.forget()
    project.home.close()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Address]:
    """A private cluster, in memory where that is possible."""
    if not (programs := folders()):
        pytest.skip("no PostgreSQL is installed")
    memory = Path("/dev/shm")  # noqa: S108 - a folder of its own is made in it
    place = Path(tempfile.mkdtemp(prefix="arena-", dir=memory if memory.exists() else None))
    place.chmod(0o711)  # the server's user passes through
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ARENA_CLUSTERS", str(place))
        cache = tmp_path_factory.mktemp("servers_cache")
        with closing(CLUSTERS.find(read_programs(programs[0], "the tests"), cache=cache)) as found:
            yield found.address
    for used in place.rglob("*.used"):
        end_cluster(CLUSTERS.folder(used.with_suffix("")))
    shutil.rmtree(place)


@pytest.fixture
def on_server(project: Project, server: Address) -> Iterator[ServerProject]:
    """The same one, with its templates on a server."""
    own = ServerRegistry(server, project=str(project.root))
    on_server = ServerProject(project.root, project.cache, own=own, home=project.home)
    yield on_server
    on_server.forget()
    own.close()
