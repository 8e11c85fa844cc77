"""The project that these tests change, and a server for its templates."""

from __future__ import annotations

import shutil
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from pytest_arena._postgresql import _clusters as clusters
from pytest_arena._postgresql._server_registry import ServerRegistry
from tests.servers.crowded import folder_in_memory, newest_programs
from tests.servers.waiting import end_cluster
from tests.template.project import Project, new_project
from tests.template.server_project import ServerProject

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

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
    place = folder_in_memory()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ARENA_CLUSTERS", str(place))
        cache = tmp_path_factory.mktemp("servers_cache")
        with closing(clusters.find(newest_programs(), cache=cache)) as found:
            yield found.address
    end_cluster(found.folder)
    shutil.rmtree(place)


@pytest.fixture
def on_server(project: Project, server: Address) -> Iterator[ServerProject]:
    """The same one, with its templates on a server."""
    own = ServerRegistry(server)
    on_server = ServerProject(project.root, project.cache, own=own, home=project.home)
    yield on_server
    on_server.forget()
    own.close()
