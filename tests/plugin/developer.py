"""The developer's own database beside a test project, and the proof that nobody touched it."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from tests.example import CONFIG as FULL_CONFIG
from tests.example import Example

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CONFIG = FULL_CONFIG.replace("arena_app = app:app\n", "").replace("arena_seed = seed:seed\n", "")

# No web framework: what connects is what matters here, and a run takes half the time.
APP = """
from sqlalchemy import create_engine, insert, select, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    pass


class Dancer(Base):
    __tablename__ = "dancers"
    name: Mapped[str] = mapped_column(primary_key=True)


def names(engine):
    with engine.connect() as connection:
        return sorted(connection.scalars(select(Dancer.name)))


def add(engine, name):
    with engine.begin() as connection:
        connection.execute(insert(Dancer).values(name=name))


async def aadd(engine, name):
    async with engine.begin() as connection:
        await connection.execute(insert(Dancer).values(name=name))


engine = create_engine("sqlite:///dev.db")
"""

# Long ago, so that any write of today shows.
_THEN = 1_000_000_000


def small_example(folder: Path, **files: str) -> Example:
    return Example(folder / "project", {"app.py": APP, "pytest.ini": CONFIG}).with_files(**files)


@contextmanager
def change_of(project: Example, *names: str) -> Iterator[list[str]]:
    """Make files with one row, and give the names of those that have changed at the end."""
    before = {name: _made(project.folder / name) for name in names or ("dev.db",)}
    changed: list[str] = []
    yield changed
    for name, state in before.items():
        path = project.folder / name
        if not path.exists() or _state(path) != state:
            changed.append(name)


@contextmanager
def untouched(project: Example) -> Iterator[None]:
    """Assert that ``dev.db`` is the same, byte for byte and in time, at the end."""
    with change_of(project) as changed:
        yield
    assert changed == []


def _made(file: Path) -> tuple[object, ...]:
    file.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE dancers (name VARCHAR PRIMARY KEY)")
        connection.execute("INSERT INTO dancers VALUES ('The developer')")
        connection.commit()
    os.utime(file, (_THEN, _THEN))
    return _state(file)


def _state(file: Path) -> tuple[object, ...]:
    """Return the content and the time of a file, and the files that SQLite puts beside it."""
    beside = sorted(path.name for path in file.parent.glob(f"{file.name}?*"))
    return file.read_bytes(), file.stat().st_mtime_ns, beside
