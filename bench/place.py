"""Where does everything happen? One folder, on the file system that the product chooses."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from pytest_arena._sqlite._home import Home

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["ROOT", "environment", "machine", "scratch"]

ROOT = Path(__file__).parent.parent
_LIBRARIES = (
    *("SQLAlchemy", "aiosqlite", "asyncpg", "psycopg", "FastAPI", "httpx2"),
    *("pytest", "pytest-asyncio", "pytest-postgresql", "pytest-django", "Django"),
)
# Which server all processes use, and where a private one has its data.
_SERVERS = ("BENCH_POSTGRESQL", "ARENA_CLUSTERS", "ARENA_CLUSTER_IDLE", "PGBIN")


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder beside the product's live files: alternatives get no slower disk than it has."""
    home = Home(None)
    try:
        with TemporaryDirectory(dir=home.path) as folder:
            yield Path(folder)
    finally:
        home.close()


def environment(folder: Path, more: Mapping[str, str]) -> dict[str, str]:
    """The environment of a measured process, whose files are all in this folder."""
    dropped = ("PYTEST_", "ARENA_", "BENCH_", "DATABASE_URL", "COV_", "PYTHON")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    servers = {name: os.environ[name] for name in _SERVERS if name in os.environ}
    return {
        **kept,
        **servers,
        "DATABASE_URL": f"sqlite+aiosqlite:///{folder}/dev.db",
        "ARENA_CACHE": str(folder / "cache"),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "src"))),
        **more,
    }


def machine() -> str:
    """The machine and what runs on it, in a sentence."""
    with scratch() as folder:
        system = _file_system(folder)
    sqlite = subprocess.run(
        [sys.executable, "-c", "import sqlite3; print(sqlite3.sqlite_version)"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    return (
        f"{os.cpu_count()} cores ({_processor()}), {platform.system()}, files on {system}, "
        f"Python {platform.python_version()}, SQLite {sqlite}, " + ", ".join(_libraries())
    )


def _libraries() -> Iterator[str]:
    for name in _LIBRARIES:
        with suppress(PackageNotFoundError):  # what others are compared with may be left out
            yield f"{name} {version(name)}"


def _processor() -> str:
    lines = _lines("/proc/cpuinfo")
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _file_system(folder: Path) -> str:
    mounts = [line.split()[1:3] for line in _lines("/proc/mounts")]
    above = [(len(point), kind) for point, kind in mounts if folder.is_relative_to(point)]
    return max(above)[1] if above else "an unknown file system"


def _lines(file: str) -> list[str]:
    path = Path(file)
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []
