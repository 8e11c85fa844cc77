"""An SQLite file that is built once and copied for each test, with a new engine on the copy."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from bench.shop import client_of, create_tables, new_engine

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from httpx2 import AsyncClient


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the file that each test copies."""
    file = tmp_path_factory.mktemp("template") / "template.db"
    create_tables(f"sqlite:///{file}")
    return file


@pytest_asyncio.fixture
async def client(template: Path, tmp_path: Path) -> AsyncIterator[AsyncClient]:
    """Return a client of the app, whose sessions are overridden."""
    shutil.copyfile(template, tmp_path / "test.db")
    async with client_of(new_engine(f"sqlite+aiosqlite:///{tmp_path}/test.db")) as client:
        yield client
