"""The project that these tests change, and a server for its templates."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_arena._postgresql._server_registry import ServerRegistry
from tests.plugin.private_server import private_server
from tests.template.project import Project, new_project
from tests.template.server_project import ServerProject

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pytest_arena._values import Address


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    project = new_project(tmp_path, monkeypatch)
    yield project
    project.forget()
    project.home.close()


@pytest.fixture(scope="session")
def server() -> Iterator[Address]:
    """A private cluster, in memory where that is possible."""
    with private_server() as found:
        yield found.address()


@pytest.fixture
def on_server(project: Project, server: Address) -> Iterator[ServerProject]:
    own = ServerRegistry(server)
    on_server = ServerProject(project.root, project.cache, own=own, home=project.home)
    yield on_server
    on_server.forget()
    own.close()
