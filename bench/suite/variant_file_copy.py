"""A file made once, copied for each test, and a new engine on the copy."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from sqlalchemy import create_engine

from bench.suite.clients import client_of
from bench.suite.shop import Base, new_engine

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from httpx2 import AsyncClient


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file that is copied."""
    file = tmp_path_factory.mktemp("template") / "template.db"
    sync = create_engine(f"sqlite:///{file}")
    Base.metadata.create_all(sync)
    sync.dispose()
    return file


@pytest_asyncio.fixture
async def client(template: Path, tmp_path: Path) -> AsyncIterator[AsyncClient]:
    """A client of the app, whose sessions are overridden."""
    shutil.copyfile(template, tmp_path / "test.db")
    async with client_of(new_engine(f"sqlite+aiosqlite:///{tmp_path}/test.db")) as client:
        yield client
