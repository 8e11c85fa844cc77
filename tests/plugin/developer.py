"""The developer's own database beside a test project, and the proof that nobody touched it."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.example import Example

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

CONFIG = """
[pytest]
arena_schema = app:Base
asyncio_mode = auto
asyncio_default_fixture_loop_scope = function
filterwarnings =
    error
    default::pytest_arena.ArenaWarning
pythonpath = .
"""

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


async def anames(engine):
    async with engine.connect() as connection:
        return sorted(await connection.scalars(select(Dancer.name)))


async def aadd(engine, name):
    async with engine.begin() as connection:
        await connection.execute(insert(Dancer).values(name=name))


engine = create_engine("sqlite:///dev.db")
"""

# Long ago, so that any write of today shows.
_THEN = 1_000_000_000


@dataclass(frozen=True, slots=True)
class _State:
    """A file as it stands, with those that SQLite puts beside it."""

    content: bytes
    modified: int
    beside: tuple[str, ...]


def small_example(folder: Path, **files: str) -> Example:
    """Return a project with an app of one table and one engine, on ``dev.db``."""
    return Example(folder / "project", {"app.py": APP, "pytest.ini": CONFIG}).with_files(**files)


@contextmanager
def untouched(example: Example, *names: str) -> Iterator[None]:
    """Assert that the developer's files are the same, byte for byte and in time, at the end.

    Made here: each holds the app's table with one row. ``dev.db`` where no name is given.
    """
    example.folder.mkdir(parents=True, exist_ok=True)
    files = [example.folder / name for name in names or ("dev.db",)]
    before = [_made(file) for file in files]
    yield
    assert [_state(file) for file in files] == before


@contextmanager
def change_of(example: Example, files: Mapping[str, bool]) -> Iterator[list[str]]:
    """Give the names of the developer's files that are not as they were, at the end.

    Made here, but for those that say True: they are not to be there.
    """
    example.folder.mkdir(parents=True, exist_ok=True)
    paths = {name: example.folder / name for name in files}
    before = {name: None if files[name] else _made(path) for name, path in paths.items()}
    changed: list[str] = []
    yield changed
    for name, path in paths.items():
        if (_state(path) if path.exists() else None) != before[name]:
            changed.append(name)


def _made(file: Path) -> _State:
    file.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE dancers (name VARCHAR PRIMARY KEY)")
        connection.execute("INSERT INTO dancers VALUES ('The developer')")
        connection.commit()
    os.utime(file, (_THEN, _THEN))
    return _state(file)


def _state(file: Path) -> _State:
    beside = tuple(sorted(path.name for path in file.parent.glob(f"{file.name}?*")))
    return _State(file.read_bytes(), file.stat().st_mtime_ns, beside)
