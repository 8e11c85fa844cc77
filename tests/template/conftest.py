"""The project that these tests change."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.template.project import Project, new_project

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """One table, one seeded row, one imported helper."""
    project = new_project(tmp_path, monkeypatch)
    yield project
    project.forget()
