"""Clusters of the tests' own, far from the developer's."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_arena._config._read import Config, load_config
from pytest_arena._postgresql.servers._cluster import CLUSTERS
from tests.servers.beside import newest_programs
from tests.servers.crowded import Crowded
from tests.servers.waiting import end_cluster

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_arena._postgresql.servers._programs import PostgreSQLPrograms
    from pytest_arena._product.servers._private_servers import PrivateServer
    from pytest_arena._values import Address


@pytest.fixture(scope="session")
def installed() -> PostgreSQLPrograms:
    """The newest PostgreSQL of this machine, else a wheel's."""
    return newest_programs()


@pytest.fixture(scope="session")
def short() -> Iterator[Path]:
    """A folder with a short name, which the server's user may pass through."""
    memory = Path("/dev/shm")  # noqa: S108 - a folder of its own is made in it
    path = Path(tempfile.mkdtemp(prefix="arena-", dir=memory if memory.exists() else None))
    path.chmod(0o711)
    yield path
    for used in path.rglob("*.used"):
        end_cluster(CLUSTERS.folder(used.with_suffix("")))
    shutil.rmtree(path)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for all."""
    return tmp_path_factory.mktemp("servers_cache")


@pytest.fixture
def clusters(short: Path, clean_environment: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this test's private servers are: together with all other tests'."""
    monkeypatch.setenv("ARENA_CLUSTERS", str(short / "c"))
    return short / "c"


@pytest.fixture
def clusters_alone(
    short: Path, clean_environment: None, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """Where this test's private servers are: nobody else's are there."""
    path = Path(tempfile.mkdtemp(prefix="c", dir=short))
    path.chmod(0o711)
    monkeypatch.setenv("ARENA_CLUSTERS", str(path))
    yield path
    for used in path.rglob("*.used"):
        end_cluster(CLUSTERS.folder(used.with_suffix("")))
    shutil.rmtree(path)


@pytest.fixture
def cluster(clusters: Path, installed: PostgreSQLPrograms, cache: Path) -> Iterator[PrivateServer]:
    """A private server, shared by the tests that do it no harm."""
    with closing(CLUSTERS.find(installed, cache=cache)) as found:
        yield found


@pytest.fixture
def address(cluster: PrivateServer) -> Address:
    """A database on it, as its superuser."""
    return cluster.address


@pytest.fixture(scope="session")
def crowded(short: Path, installed: PostgreSQLPrograms) -> Iterator[Crowded]:
    """A server with a port, passwords and five connections."""
    with Crowded(short / "crowded", installed) as server:
        yield server


@pytest.fixture
def config(cache: Path) -> Config:
    """What a run asks for that says nothing."""
    environ = {"ARENA_CACHE": str(cache)}
    return load_config(flags={}, environ=environ, ini=lambda _: "", root=Path("/nowhere"))


@pytest.fixture
def no_libpq_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell without PGHOST and its like."""
    for name in [name for name in os.environ if name.startswith("PG")]:
        monkeypatch.delenv(name)
