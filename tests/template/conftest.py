"""The project that these tests change."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.template.project import Project, new_project
from tests.template.server_project import ServerProject, new_own

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """One table, one seeded row, one imported helper."""
    project = new_project(tmp_path, monkeypatch)
    yield project
    project.forget()


@pytest.fixture
def on_server(project: Project) -> Iterator[ServerProject]:
    """The same one, with its templates on a server; what it has made there is dropped."""
    own = new_own(str(project.root))
    on_server = ServerProject(project.root, project.cache, own=own)
    yield on_server
    on_server.forget()
    own.drop(*on_server.databases())
    own.close()
