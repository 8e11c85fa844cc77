"""Servers of these tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_arena._config._read import Config, load_config
from tests.servers.crowded import Crowded

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def crowded() -> Iterator[Crowded]:
    """A server with a port, passwords and five connections."""
    with Crowded() as server:
        yield server


@pytest.fixture
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    environ = {"ARENA_CACHE": str(tmp_path_factory.mktemp("cache"))}
    return load_config(
        flags={}, environ=environ, ini=lambda _: "", root=tmp_path_factory.mktemp("root")
    )
